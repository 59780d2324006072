"""Networks to and from safetensors files: float16 weights, description in the file's own header.

The header metadata of a file: ``family``, ``channels``, ``input_size`` (pixels), ``tasks`` (JSON: task -> class names).
Nothing in such a file is executable, unlike a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gateway.errors import MarkError
from gateway.mark.device import channels_last
from gateway.mark.surrogates.nets import MultiTaskNet, fold_batch_norms


def save_net(net: MultiTaskNet, path: Path, input_size: int, extra: Mapping[str, str] | None = None) -> None:
    """Write ``net`` to ``path``: floating tensors as float16, counters as they are.

    Parameters
    ----------
    net
        the network; its weights may be on any device.
    path
        target file, replaced when it exists.
    input_size
        side (pixels) of the square images that the network was trained for.
    extra
        more header metadata, all strings.
    """
    tensors = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in net.state_dict().items()
    }
    header = {
        "family": net.family,
        "channels": str(net.channels),
        "input_size": str(input_size),
        "tasks": json.dumps({task: list(names) for task, names in net.tasks.items()}),
    }
    save_file(tensors, str(path), metadata={**dict(extra or {}), **header})


def load_net(path: Path, device: torch.device) -> tuple[MultiTaskNet, int]:
    """Return the network of ``path`` (float32, batch norms folded, no parameter gradients) and its input size.

    Raises
    ------
    MarkError
        ``weights-corrupt`` when the file is missing, damaged, or does not fit its own description.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            net = MultiTaskNet(header["family"], int(header["channels"]), json.loads(header["tasks"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        input_size = int(header["input_size"])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise MarkError("weights-corrupt", f"network weights {path.name} cannot be used: {error}") from error
    fold_batch_norms(net.eval())
    net.requires_grad_(False)
    return channels_last(net, device), input_size
