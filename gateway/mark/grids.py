"""Grids that things are computed on: sizes, look-ups between them, and the axes of tensors and images."""

from __future__ import annotations

import numpy as np
import torch

WORKING_SIDE = 256
"""Longest side (pixels) at which saliency and placements are computed; that of textures is the profile's."""


def to_tensor(display: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return (1, C, H, W) float32 from (H, W) or (H, W, 3)."""
    planes = display[None] if display.ndim == 2 else display.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None].to(device)


def to_display(image: torch.Tensor) -> np.ndarray:
    """Return (h, w) or (h, w, 3) float32 from (1, C, h, w)."""
    planes = image[0].cpu().numpy()
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def working_shape(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the (h, w) at which something is computed: the image's own, longest side at most ``side``."""
    scale = min(1.0, side / max(shape))
    return max(32, round(shape[0] * scale)), max(32, round(shape[1] * scale))


def nearest(length: int, wanted: int) -> np.ndarray:
    """Return the (wanted,) int indexes that resample an axis of ``length`` to its nearest neighbours."""
    return (np.arange(wanted) * 2 + 1) * length // (2 * wanted)


def shrink(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an (H, W) mask at another (h, w), nearest neighbour."""
    return mask[nearest(mask.shape[0], shape[0])][:, nearest(mask.shape[1], shape[1])]
