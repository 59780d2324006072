"""Separable resampling as two matrix products: resize, crop, shift, scale and flip in one differentiable step.

Why not ``torch.nn.functional.interpolate``: its backward pass on CUDA adds in an unordered way, so two runs differ in
the last bit and with them the stored values. A matrix product is deterministic, takes a window per image of a batch,
and costs less than one convolution of the networks behind it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

STRIP = 16
"""Lines that are computed together where most of a matrix is 0."""


def resample_matrix(n_in: int, n_out: int, start: Tensor, stop: Tensor) -> Tensor:
    """Return the (B, n_out, n_in) float32 matrices that sample ``n_out`` pixels from the window [start, stop].

    Parameters
    ----------
    n_in
        source length in pixels.
    n_out
        target length in pixels.
    start
        (B,) float, left edge of the window in source pixels (0 = outer edge of the first pixel).
    stop
        (B,) float, right edge; smaller than ``start`` flips the axis.

    The kernel is a triangle as wide as one target pixel (at least one source pixel), so that making an image smaller
    does not alias; positions outside the source repeat its edge.
    """
    index = torch.arange(n_out, dtype=torch.float32, device=start.device) + 0.5
    width = (stop - start)[:, None] / n_out
    centre = (start[:, None] + index[None, :] * width).clamp(0.5, n_in - 0.5)
    support = width.abs().clamp(min=1.0)[:, :, None]
    source = torch.arange(n_in, dtype=torch.float32, device=start.device) + 0.5
    weights = (1.0 - (source[None, None, :] - centre[:, :, None]).abs() / support).clamp(min=0.0)
    return weights / weights.sum(dim=2, keepdim=True)


def apply_separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ image @ columns^T`` for every image and channel.

    Parameters
    ----------
    images
        (B, C, H, W) float.
    rows
        (B or 1, h, H) float from ``resample_matrix``.
    columns
        (B or 1, w, W) float.
    """
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Return images (B, C, H, W) resampled to (B, C, height, width); the input itself where nothing changes."""
    if images.shape[2:] == (height, width):
        return images
    rows, columns = (_whole(*pair, images.device) for pair in zip(images.shape[2:], (height, width), strict=True))
    if images.requires_grad or images.device.type != "cpu":
        return apply_separable(images, rows, columns)
    return _banded(_banded(images, rows[0]).transpose(2, 3), columns[0]).transpose(2, 3).contiguous()


@lru_cache(maxsize=32)
def _whole(n_in: int, n_out: int, device: torch.device) -> Tensor:
    """Return the (1, n_out, n_in) matrix that samples the whole of an axis."""
    zero = torch.zeros(1, device=device)
    return resample_matrix(n_in, n_out, zero, zero + n_in)


def _banded(images: Tensor, matrix: Tensor) -> Tensor:
    """Return ``matrix`` (h, H) times each (B, C, H, W) image, without most of the matrix's zeros."""
    n_out, n_in = matrix.shape
    reach = 1 + max(1, -(-n_in // n_out))
    result = torch.empty((*images.shape[:2], n_out, images.shape[3]))
    for first in range(0, n_out, STRIP):
        last = min(n_out, first + STRIP)
        low, high = max(0, first * n_in // n_out - reach), min(n_in, last * n_in // n_out + 1 + reach)
        result[:, :, first:last] = matrix[first:last, low:high] @ images[:, :, low:high]
    return result
