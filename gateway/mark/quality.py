"""Figures of one marked image, measured on the stored values that leave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from gateway.mark.budget import Canvas, psnr
from gateway.mark.display import DisplayMap
from gateway.mark.region import luminance
from gateway.mark.types import Quality


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean structural similarity of two (H, W) display images (Wang et al. 2004; 7x7 windows, range 1)."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    count = 49.0
    unbiased = count / (count - 1.0)
    mean_a, mean_b = ndimage.uniform_filter(a, 7), ndimage.uniform_filter(b, 7)
    var_a = unbiased * (ndimage.uniform_filter(a * a, 7) - mean_a**2)
    var_b = unbiased * (ndimage.uniform_filter(b * b, 7) - mean_b**2)
    both = unbiased * (ndimage.uniform_filter(a * b, 7) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(value[3:-3, 3:-3].mean())


def measure(
    canvas: Canvas,
    marked: np.ndarray,
    untouchable: np.ndarray,
    other_windows: Mapping[str, tuple[float, float]],
    saturated: int,
) -> Quality:
    """Return the quality of ``marked`` (stored values) against the canvas's image.

    Args:
        canvas: the image and its limits.
        marked: stored values, shape of the image.
        untouchable: (H, W) bool, region of interest and padding.
        other_windows: name -> (low, high) in stored values.
        saturated: pixels cut by the valid range or the padding value.
    """
    before, after = canvas.display.shown(canvas.stored), canvas.display.shown(marked)
    step = np.abs(after - before)
    visible = (step.max(axis=2) if step.ndim == 3 else step) > canvas.threshold + 1e-6
    windows = {}
    for name, (low, high) in other_windows.items():
        shown = DisplayMap(low, high, canvas.display.inverted)
        windows[name] = round(psnr(shown.shown(canvas.stored), shown.shown(marked)), 3)
    difference = np.abs(marked.astype(np.int64) - canvas.stored)[untouchable]
    return Quality(
        psnr=psnr(before, after),
        psnr_windows=windows,
        ssim=ssim(luminance(before), luminance(after)),
        stroke_share=float(canvas.strokes.mean()),
        above_threshold=float((visible & ~canvas.strokes).mean()),
        roi_difference=int(difference.max(initial=0)),
        saturated=saturated,
    )
