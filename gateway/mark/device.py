"""The device that marks are computed on, and the flags that make it repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from gateway.errors import ConfigError

AnyNet = TypeVar("AnyNet", bound=torch.nn.Module)


def resolve_device(name: str) -> torch.device:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA where there is one.

    Raises
    ------
    ConfigError
        ``no-device`` when CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError("no-device", f"device {name} is not on this machine", 'use device = "auto" or "cpu"')
    return device


@contextmanager
def deterministic() -> Iterator[None]:
    """Run a block with repeatable convolutions in full float32; the flags are put back afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    saved = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = saved


def channels_last(net: AnyNet, device: torch.device | None = None) -> AnyNet:
    """Return the network itself, on the device (None: where it is), its weights in channels-last order."""
    loose: Any = net  # ``memory_format`` is documented, and torch's own types do not know it
    placed: AnyNet = loose.to(device=device, memory_format=torch.channels_last)
    return placed


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16; CUDA keeps float32 (``deterministic``)."""
    if device.type != "cpu":
        return False
    # not public, and what torch's own compiler asks; a torch without them has no such kernels either
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(one()) for one in found if one is not None)
