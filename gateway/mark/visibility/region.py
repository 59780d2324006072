"""Where a mark may lie: foreground, and neither padding nor the (dilated) region of interest."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from gateway.errors import MarkError

ROI_SHARE = 0.25
"""Share of the foreground that is taken as region of interest where none is given (before dilation)."""


def luminance(display: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 luminance of a display image (H, W) or (H, W, 3) (Rec. 601 weights)."""
    if display.ndim == 2:
        return display
    return display @ np.array([0.299, 0.587, 0.114], np.float32)


def otsu_threshold(values: np.ndarray) -> float:
    """Return the display value (0..1) that splits ``values`` best into two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts).astype(float)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * gap**2)
    return float(centres[int(np.argmax(between))])


def find_content(display: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool pixels that are clearly brighter than black, specks and all; arguments as below."""
    gray = luminance(display)
    smooth = ndimage.gaussian_filter(gray, max(1.0, min(gray.shape) / 128.0))
    threshold = float(np.clip(0.4 * otsu_threshold(smooth[~padding]), 0.03, 0.12))
    return (smooth > threshold) & ~padding


def find_foreground(display: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool foreground: what is clearly brighter than black, holes filled, specks dropped.

    Parameters
    ----------
    display
        (H, W) or (H, W, 3) float32 in 0..1.
    padding
        (H, W) bool.

    A low threshold (well under Otsu's) keeps dark tissue; energy in air would be wasted and easily cut away.
    """
    mask = ndimage.binary_fill_holes(find_content(display, padding))
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = np.isin(labels, np.flatnonzero(sizes >= max(1.0, 0.01 * mask.size)))
    return mask & ~padding


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return ``mask`` grown by ``radius`` pixels (Euclidean)."""
    if not mask.any():
        return mask.copy()
    return ndimage.distance_transform_edt(~mask) <= radius


def widen(mask: np.ndarray, distance: float) -> np.ndarray:
    """Return ``mask`` grown by ``distance`` pixels (rounded up), square instead of round: faster than ``dilate``."""
    return ndimage.maximum_filter(mask, 2 * math.ceil(distance) + 1)


def local_detail(gray: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 local gradient energy: a stand-in for saliency that needs no network."""
    return ndimage.gaussian_filter(ndimage.gaussian_gradient_magnitude(gray, 1.0), min(gray.shape) / 24.0)


def salient_region(saliency: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool most salient quarter of the foreground.

    Parameters
    ----------
    saliency
        (H, W) float, any unit, from ``objective.saliency``.
    foreground
        (H, W) bool, not empty.
    """
    level = np.quantile(saliency[foreground], 1.0 - ROI_SHARE)
    return foreground & (saliency > level)


def free_region(foreground: np.ndarray, roi: np.ndarray, padding: np.ndarray, min_free: float) -> np.ndarray:
    """Return the (H, W) bool area where a mark may lie.

    Parameters
    ----------
    foreground
        (H, W) bool.
    roi
        (H, W) bool, already dilated.
    padding
        (H, W) bool.
    min_free
        least share of the foreground that must be left.

    Raises
    ------
    MarkError
        ``image-empty`` without foreground, ``no-free-area`` when too little is left.
    """
    size = int(foreground.sum())
    if size < 0.01 * foreground.size:
        raise MarkError("image-empty", "no foreground: nothing brighter than black in the primary window")
    region = foreground & ~roi & ~padding
    share = float(region.sum()) / size
    if share < min_free:
        raise MarkError("no-free-area", f"only {share:.0%} of the foreground is free; {min_free:.0%} are needed")
    return region
