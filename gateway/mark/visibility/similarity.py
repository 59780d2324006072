"""Structural similarity of two display images, at one scale and at several."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang, Simoncelli, Bovik 2003)."""
WINDOW = 11
"""Side in pixels of the Gaussian window (sd 1.5) at each of those scales."""
C1, C2 = 0.01**2, 0.03**2  # stabilising constants for a range of 1 (Wang et al. 2004)


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean structural similarity of two (H, W) display images (Wang et al. 2004; 7x7 windows, range 1)."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    count = 49.0
    unbiased = count / (count - 1.0)
    mean_a, mean_b = ndimage.uniform_filter(a, 7), ndimage.uniform_filter(b, 7)
    var_a = unbiased * (ndimage.uniform_filter(a * a, 7) - mean_a**2)
    var_b = unbiased * (ndimage.uniform_filter(b * b, 7) - mean_b**2)
    both = unbiased * (ndimage.uniform_filter(a * b, 7) - mean_a * mean_b)
    value = ((2 * mean_a * mean_b + C1) * (2 * both + C2)) / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2))
    return float(value[3:-3, 3:-3].mean())


def scales_of(shape: tuple[int, ...]) -> int:
    """Return how many scales (1 to 5) an image of this (H, W) is large enough for.

    A scale counts while the window fits into it: five from 176 pixels on the shorter side, four from 88, and so on.

    Raises
    ------
    ValueError
        the shorter side is below 11 pixels.
    """
    if min(shape) < WINDOW:
        raise ValueError(f"multi-scale similarity needs at least {WINDOW} pixels on each side, not {min(shape)}")
    return sum(min(shape) >> scale >= WINDOW for scale in range(len(SCALE_WEIGHTS)))


def ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the multi-scale structural similarity (Wang, Simoncelli, Bovik 2003) of two display images, 0..1.

    Parameters
    ----------
    first
        (H, W) float in 0..1, at least 11 pixels on each side.
    second
        the same.

    Contrast and structure at every scale, luminance at the coarsest; means over the pixels whose whole window lies in
    the image; halved between scales by means of 2x2 (an odd last row or column is left out). Images too small for five
    scales get as many as fit (``scales_of``), with the exponents of those scaled to the same sum.

    Raises
    ------
    ValueError
        images of different shapes or below 11 pixels.
    """
    if first.shape != second.shape:
        raise ValueError(f"images of shapes {first.shape} and {second.shape} cannot be compared")
    weights = np.array(SCALE_WEIGHTS[: scales_of(first.shape)])
    weights *= sum(SCALE_WEIGHTS) / weights.sum()
    a, b = first.astype(np.float32), second.astype(np.float32)
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            a, b = _halved(a), _halved(b)
        luminance, structure = _terms(a, b)
        value = (luminance * structure).mean() if scale == len(weights) - 1 else structure.mean()
        product *= max(float(value), 0.0) ** weight  # a negative value has no real power
    return product


def _terms(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The luminance term, and the product of the contrast and structure terms, at each whole window."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    spread = _blurred(a * a) - mean_a**2 + _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * both + C2) / (spread + C2)


def _blurred(plane: np.ndarray) -> np.ndarray:
    """Gaussian means over the windows that lie in the plane as a whole."""
    margin = WINDOW // 2
    kernel = np.exp(-(np.arange(-margin, margin + 1) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    return ndimage.correlate1d(ndimage.correlate1d(plane, kernel, 0), kernel, 1)[margin:-margin, margin:-margin]


def _halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return plane[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
