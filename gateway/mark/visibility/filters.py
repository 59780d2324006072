"""Filters of whole planes: what ``scipy.ndimage`` gives (planes mirrored at their edges), in a fraction of its time.

Windows of one weight are sums (or extremes) of shifted planes, doubled until they are wide enough; Gaussian windows are
products with a small band matrix, strip by strip; growth by a disc is a union of shifted planes. Shifts are taken in
the plane as one row of numbers, with margins wide enough that no line reaches into the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

STRIP = 16
"""Lines that one product with a band matrix gives."""
TRUNCATE = 4.0
"""Standard deviations at which a Gaussian window ends, as in ``scipy.ndimage``."""

Join = Callable[..., np.ndarray]
"""``np.add`` or the like: two planes and ``out``."""


def mirrored(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return an (H, W) plane with so many more rows and columns on each side, mirrored with the edge repeated."""
    height, width = plane.shape
    if rows > height or columns > width:
        return np.pad(plane, ((rows, rows), (columns, columns)), mode="symmetric")
    wide = np.empty((height + 2 * rows, width + 2 * columns), plane.dtype)
    middle = wide[rows : rows + height]
    middle[:, columns : columns + width] = plane
    if columns:
        middle[:, :columns] = plane[:, columns - 1 :: -1] if columns == width else plane[:, :columns][:, ::-1]
        middle[:, columns + width :] = plane[:, width - columns :][:, ::-1]
    if rows:
        wide[:rows] = middle[:rows][::-1]
        wide[rows + height :] = middle[height - rows :][::-1]
    return wide


def joined(row: np.ndarray, count: int, step: int, join: Join) -> np.ndarray:
    """Return (n - (count - 1) * step,) values, each joined from ``count`` of ``row`` (n,) that lie ``step`` apart."""
    length = row.size - (count - 1) * step
    block, size, done = row, 1, 0
    parts: list[np.ndarray] = []
    while done < count:
        if count & size:
            parts.append(block[done * step : done * step + length])
            done += size
        if done < count:
            block = join(block[: block.size - size * step], block[size * step :])
            size *= 2
    result = parts[0]
    for part in parts[1:]:
        result = join(result, part)
    return result


def windows(plane: np.ndarray, side: int, join: Join) -> np.ndarray:
    """Return (H, W): of each pixel the ``side`` x ``side`` values around it joined, ``side`` odd."""
    height, width = plane.shape
    wide = mirrored(plane, side // 2, side // 2)
    step = wide.shape[1]
    found = joined(joined(wide.ravel(), side, step, join), side, 1, join)
    whole = np.empty(height * step, plane.dtype)
    whole[: found.size] = found
    return np.ascontiguousarray(whole.reshape(height, step)[:, :width])


def box_mean(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the (H, W) float32 mean over squares of ``side`` (odd) pixels; ``ndimage.uniform_filter`` within 1e-5."""
    return windows(np.asarray(plane, np.float32), side, np.add) * np.float32(1.0 / side**2)


def largest(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the (H, W) largest value in squares of ``side`` (odd) pixels; ``ndimage.maximum_filter``."""
    return windows(plane, side, np.maximum)


def least(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the (H, W) least value in squares of ``side`` (odd) pixels; ``ndimage.minimum_filter``."""
    return windows(plane, side, np.minimum)


def gaussian(plane: np.ndarray, deviation: float) -> np.ndarray:
    """Return the (H, W) float32 Gaussian mean of a plane; ``ndimage.gaussian_filter`` within 1e-5 of its range."""
    band = _band(deviation, (0,))
    return _across(_down(_tensor(plane), band)[0], band).numpy()


def gradient(plane: np.ndarray, deviation: float) -> np.ndarray:
    """Return the (H, W) float32 size of a plane's smoothed gradient; ``ndimage.gaussian_gradient_magnitude``."""
    both = _band(deviation, (0, 1))
    smooth, steep = _down(_tensor(plane), both)
    down, across = _across(steep, both[:1]), _across(smooth, both[1:])
    return torch.sqrt(down.square_().add_(across.square_())).numpy()


def _tensor(plane: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))


@cache
def _band(deviation: float, orders: tuple[int, ...]) -> Tensor:
    """Return (orders, STRIP, STRIP + 2 * reach) float32: windows of a strip's lines, as derivatives of these orders."""
    reach = int(TRUNCATE * deviation + 0.5)
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / deviation) ** 2)
    weights /= weights.sum()
    band = np.zeros((len(orders), STRIP, STRIP + 2 * reach), np.float32)
    for number, order in enumerate(orders):
        for line in range(STRIP):
            band[number, line, line : line + 2 * reach + 1] = weights * (at / deviation**2 if order else 1.0)
    return torch.from_numpy(band)


def _down(plane: Tensor, band: Tensor) -> Tensor:
    """Return (k, H, W): the (H, W) plane's columns through each of k windows."""
    count, _, length = band.shape
    (height, width), reach = plane.shape, (length - STRIP) // 2
    strips = -(-height // STRIP)
    wide = torch.zeros((strips * STRIP + 2 * reach, width))
    wide[: height + 2 * reach] = torch.from_numpy(mirrored(plane.numpy(), reach, 0))
    cut = wide.as_strided((strips, length, width), (STRIP * width, width, 1))
    found = torch.matmul(band.reshape(count * STRIP, length), cut)
    if count == 1:
        return found.reshape(1, strips * STRIP, width)[:, :height]
    return found.view(strips, count, STRIP, width).transpose(0, 1).reshape(count, strips * STRIP, width)[:, :height]


def _across(plane: Tensor, band: Tensor) -> Tensor:
    """Return (H, W): the (H, W) plane's rows through one window."""
    (height, width), length = plane.shape, band.shape[2]
    reach, strips = (length - STRIP) // 2, -(-width // STRIP)
    wide = torch.zeros((height, strips * STRIP + 2 * reach))
    wide[:, : width + 2 * reach] = torch.from_numpy(mirrored(plane.numpy(), 0, reach))
    cut = wide.as_strided((strips, height, length), (STRIP, wide.shape[1], 1))
    found = torch.matmul(cut, band[0].T)
    return found.transpose(0, 1).reshape(height, strips * STRIP)[:, :width].contiguous()


def grow(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return an (H, W) bool mask grown by all pixels no further than ``radius`` from it (Euclidean)."""
    reach = math.floor(radius)
    return _grown(mask, [math.isqrt(math.floor(radius**2) - away**2) for away in range(reach + 1)])


def grow_steps(mask: np.ndarray, steps: int) -> np.ndarray:
    """Return an (H, W) bool mask grown by ``steps`` pixels up, down, left and right, not across corners."""
    return _grown(mask, [steps - away for away in range(steps + 1)])


def _grown(mask: np.ndarray, half_widths: list[int]) -> np.ndarray:
    """Return the mask joined with itself moved: so many rows up and down, by up to ``half_widths`` of that sideways."""
    reach, (height, width) = len(half_widths) - 1, mask.shape
    if not mask.any():
        return mask.copy()
    step = width + reach  # what a line lacks on its right the next one has on its left
    wide = np.zeros((height + 2 * reach + 2, step), bool)
    wide[reach + 1 : reach + 1 + height, :width] = mask
    row = wide.ravel()
    first, length = (reach + 1) * step, height * step
    line = row.copy()
    result = np.zeros(length, bool)
    for half_width in range(reach + 1):
        if half_width:
            line[half_width:] |= row[:-half_width]
            line[:-half_width] |= row[half_width:]
        for away, wanted in enumerate(half_widths):
            if wanted == half_width:
                for begin in {first - away * step, first + away * step}:
                    np.logical_or(result, line[begin : begin + length], out=result)
    return np.ascontiguousarray(result.reshape(height, step)[:, :width])
