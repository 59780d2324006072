"""Where a mark may lie: foreground, and neither padding nor the (dilated) region of interest."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark.visibility.filters import gaussian, gradient, grow


def luminance(display: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 luminance of a display image (H, W) or (H, W, 3) (Rec. 601 weights)."""
    if display.ndim == 2:
        return display
    return display @ np.array([0.299, 0.587, 0.114], np.float32)


def otsu_threshold(values: np.ndarray) -> float:
    """Return the display value (0..1) that splits ``values`` best into two classes (Otsu 1979)."""
    bins = np.minimum(values * np.float32(256.0), np.float32(255.0)).astype(np.uint8)
    counts = np.bincount(bins.ravel(), minlength=256)
    centres = (np.arange(256) + 0.5) / 256.0
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
    smooth = gaussian(gray, max(1.0, min(gray.shape) / 128.0))
    threshold = float(np.clip(0.4 * otsu_threshold(smooth[~padding] if padding.any() else smooth), 0.03, 0.12))
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
    mask = ~border_pieces(~find_content(display, padding))
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = (sizes >= max(1.0, 0.01 * mask.size))[labels]
    return mask & ~padding


def border_pieces(mask: np.ndarray) -> np.ndarray:
    """Return those pieces of an (H, W) bool mask that reach the border: all but the holes in what is not of it."""
    labels, count = ndimage.label(mask)
    found = np.zeros(count + 1, bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        found[line] = True
    found[0] = False
    return np.asarray(found[labels])


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return ``mask`` grown by ``radius`` pixels (Euclidean)."""
    return grow(mask, radius)


def widen(mask: np.ndarray, distance: float) -> np.ndarray:
    """Return ``mask`` grown by ``distance`` pixels (rounded up), square instead of round: faster than ``dilate``."""
    return ndimage.maximum_filter(mask, 2 * math.ceil(distance) + 1)


def local_detail(gray: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 local gradient energy: a stand-in for saliency that needs no network."""
    return gaussian(gradient(gray, 1.0), min(gray.shape) / 24.0)


def salient_region(saliency: np.ndarray, foreground: np.ndarray, share: float) -> np.ndarray:
    """Return the (H, W) bool most salient share of the foreground.

    Parameters
    ----------
    saliency
        (H, W) float, any unit, from ``objective.saliency``.
    foreground
        (H, W) bool, not empty.
    share
        of the foreground, 0 to 1.
    """
    level = np.quantile(saliency[foreground], 1.0 - share)
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
    size = int(np.count_nonzero(foreground))
    if size < 0.01 * foreground.size:
        raise MarkError("image-empty", "no foreground: nothing brighter than black in the primary window")
    region = foreground & ~roi & ~padding
    share = np.count_nonzero(region) / size
    if share < min_free:
        raise MarkError("no-free-area", f"only {share:.0%} of the foreground is free; {min_free:.0%} are needed")
    return region
