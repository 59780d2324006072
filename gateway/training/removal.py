"""What an adversary may do to a marked image, as steps that gradients pass: a mark is trained to survive them.

Resize down and up, blur, fewer grey levels, and the lossy step of JPEG (the quantised 8x8 DCT of ITU-T T.81, every
channel for itself, without chroma subsampling). Rounding lets the gradient through as it is (straight-through
estimator, Bengio et al. 2013). All draws come from the caller's random generator.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gateway.mark.resample import resize

UNTOUCHED = 0.4
"""Share of draws that leave the images as they are: most copies are not attacked."""
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation of luminance, ITU-T T.81 table K.1 (quality 50 in the usual scaling)."""


def random_removal(images: Tensor, random: np.random.Generator) -> Tensor:
    """Return images (B, C, h, w) in 0..1 after one removal drawn for all of them, or as they are."""
    choice = random.uniform()
    if choice < UNTOUCHED:
        return images
    share = (choice - UNTOUCHED) / (1.0 - UNTOUCHED)
    if share < 0.25:
        return shrink_and_grow(images, random.uniform(0.4, 0.9))
    if share < 0.5:
        return blur(images, random.uniform(0.5, 1.6))
    if share < 0.65:
        return fewer_levels(images, int(random.integers(16, 128)))
    return jpeg_like(images, random.uniform(40.0, 95.0))


def shrink_and_grow(images: Tensor, factor: float) -> Tensor:
    """Return images (B, C, h, w) scaled to ``factor`` (0 to 1) of their sides and back."""
    height, width = images.shape[2:]
    small = resize(images, max(1, round(factor * height)), max(1, round(factor * width)))
    return resize(small, height, width)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Return images (B, C, h, w) after a Gaussian filter of ``sigma`` pixels."""
    radius = math.ceil(3.0 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=images.device) / sigma) ** 2)
    weights = (weights / weights.sum()).to(images.dtype)
    count, channels, height, width = images.shape
    planes = images.reshape(count * channels, 1, height, width)
    padded = functional.pad(planes, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, weights[None, None, :, None])
    return functional.conv2d(rows, weights[None, None, None, :]).reshape(images.shape)


def fewer_levels(images: Tensor, levels: int) -> Tensor:
    """Return images in 0..1 rounded to ``levels`` grey levels."""
    return _rounded(images * (levels - 1)) / (levels - 1)


def jpeg_like(images: Tensor, quality: float) -> Tensor:
    """Return images (B, C, h, w) in 0..1 after the quantised DCT of JPEG at ``quality`` (1 to 100)."""
    count, channels, height, width = images.shape
    scale = 50.0 / quality if quality < 50.0 else 2.0 - quality / 50.0
    basis, table = (one.to(images) for one in _dct())
    steps = (table * scale).clamp(min=1.0)
    padded = functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate") * 255.0 - 128.0
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.reshape(count, channels, rows, 8, columns, 8).transpose(3, 4)
    coefficients = _rounded(basis @ blocks @ basis.T / steps) * steps
    back = (basis.T @ coefficients @ basis).transpose(3, 4).reshape(padded.shape)
    return ((back + 128.0) / 255.0)[:, :, :height, :width].clamp(0.0, 1.0)


def _rounded(values: Tensor) -> Tensor:
    """Return whole numbers; the gradient is that of the values themselves."""
    return values + (values.round() - values).detach()


@cache
def _dct() -> tuple[Tensor, Tensor]:
    """Return the (8, 8) orthonormal DCT-II matrix and the (8, 8) quantisation table, both float32."""
    k, n = np.mgrid[:8, :8]
    basis = np.sqrt(0.25) * np.cos(math.pi * (2 * n + 1) * k / 16.0)
    basis[0] = np.sqrt(0.125)
    return torch.from_numpy(basis.astype(np.float32)), torch.tensor(_LUMINANCE, dtype=torch.float32)
