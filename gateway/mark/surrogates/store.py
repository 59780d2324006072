"""Networks to and from safetensors files: float16 or int8 weights, description in the file's own header.

The header metadata of a file: ``family``, ``channels``, ``input_size`` (pixels), ``tasks`` (JSON: task -> class names),
``shared`` (``yes`` where gray images, repeated, and RGB ones were trained on alike; absent in older files: no).
A tensor ``NAME`` of int8 stands beside ``NAME@scale`` (float32, one per first index): the weight is their product.
Nothing in such a file is executable, unlike a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gateway.errors import MarkError
from gateway.mark.device import channels_last
from gateway.mark.surrogates.nets import FAMILIES, MultiTaskNet, fold_batch_norms
from gateway.mark.surrogates.nets_small import Built

SCALE = "@scale"
"""Ends the name of an int8 tensor's scales."""
LEAST_INT8 = 1024
"""Smaller tensors stay float16: they save nothing, and heads are small."""


def save_net(
    net: MultiTaskNet,
    path: Path,
    input_size: int,
    extra: Mapping[str, str] | None = None,
    weights: Literal["float32", "float16", "int8", "exact"] = "float16",
) -> None:
    """Write ``net`` to ``path``.

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
    weights
        how floating tensors are written; ``int8``: the backbone's convolutions and matrices, symmetric, with a scale
        per output channel, all others as float16; ``exact``: those of them that lose nothing by it
        (``round_weights``), all others as float16.
    """
    tensors: dict[str, Tensor] = {}
    floats = torch.float32 if weights == "float32" else torch.float16
    for name, value in net.state_dict().items():
        if (
            weights == "int8"
            and value.ndim > 1
            and value.numel() >= LEAST_INT8
            and name.endswith("weight")
            and "heads." not in name
        ):
            tensors[name], tensors[name + SCALE] = quantised(value)
        else:
            tensors[name] = (value.to(floats) if value.is_floating_point() else value).cpu().contiguous()
    header = {
        "family": net.family,
        "channels": str(net.channels),
        "input_size": str(input_size),
        "tasks": json.dumps({task: list(names) for task, names in net.tasks.items()}),
        "shared": "yes" if net.shared else "no",
    }
    write_whole(path, tensors, {**dict(extra or {}), **header})


def write_whole(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all: one that is broken off leaves what was there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, str(beside), metadata=header)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values and float32 scales (one per first index) whose product is nearest to ``weight`` (float)."""
    flat = weight.detach().float().cpu().flatten(1)
    scale = flat.abs().amax(1).clamp(min=1e-12) / 127.0
    return (flat / scale[:, None]).round().to(torch.int8).view(weight.shape), scale


def round_weights(net: MultiTaskNet, layers: nn.Module) -> None:
    """Round the large weights of some layers of a network, in place, to what int8 with scales can hold.

    Done before the layers behind them learn, it costs nothing: those learn what the rounded ones show.
    """
    inside = {id(parameter) for parameter in layers.parameters()}
    for name, parameter in net.named_parameters():
        if id(parameter) in inside and _goes_to_int8(name, parameter):
            parameter.data.copy_(_product(*quantised(parameter)))


def _goes_to_int8(name: str, value: Tensor) -> bool:
    large = value.ndim > 1 and value.numel() >= LEAST_INT8
    return large and name.endswith("weight") and not name.startswith("heads.")


def _is_rounded(value: Tensor) -> bool:
    return torch.allclose(_product(*quantised(value)), value.detach().float().cpu(), rtol=1e-5, atol=0.0)


def _product(values: Tensor, scale: Tensor) -> Tensor:
    return (values.flatten(1).float() * scale[:, None]).view(values.shape)


def load_net(
    path: Path,
    device: torch.device,
    families: Mapping[str, Callable[[int], Built]] = FAMILIES,
    fold: bool = True,
    tasks: Sequence[str] = (),
) -> tuple[MultiTaskNet, int]:
    """Return the network of ``path`` (float32, no parameter gradients, evaluation mode) and its input size.

    Parameters
    ----------
    path
        the file.
    device
        where the network is put.
    families
        family name -> builder.
    fold
        whether batch norms are folded into convolutions; not for further training.
    tasks
        heads to keep; empty: all.

    Raises
    ------
    MarkError
        ``weights-corrupt`` when the file is missing, damaged, or does not fit its own description, or where a head is
        missing.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            shared = header.get("shared") == "yes"
            heads = json.loads(header["tasks"])
            net = MultiTaskNet(header["family"], int(header["channels"]), heads, shared, families)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        net.load_state_dict(_floats(tensors))
        input_size = int(header["input_size"])
        if tasks:
            net.keep(tasks)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise MarkError("weights-corrupt", f"network weights {path.name} cannot be used: {error}") from error
    net.eval()
    if fold:
        fold_batch_norms(net)
    net.requires_grad_(False)
    return channels_last(net, device), input_size


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file with all weights as float32."""
    result = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        if value.dtype == torch.int8:
            value = _product(value, tensors[name + SCALE])
        result[name] = value.float() if value.is_floating_point() else value
    return result
