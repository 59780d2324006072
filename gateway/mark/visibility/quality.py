"""Figures of one marked image, measured on the stored values that leave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gateway.mark.types import Bias, Curve, Details, JndFigures, Quality
from gateway.mark.visibility.budget import Canvas
from gateway.mark.visibility.display import map_of
from gateway.mark.visibility.jnd import SCREENS, Screen
from gateway.mark.visibility.region import luminance
from gateway.mark.visibility.similarity import ms_ssim, ssim

PRIMARY = "primary"
"""Name of the primary window in ``Quality.jnd``."""


def visible_pixels(before: np.ndarray, after: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool pixels that change by more than the masked threshold of visibility, in any channel.

    Parameters
    ----------
    before
        (H, W) or (H, W, 3) float32 display values in 0..1.
    after
        the same of the marked image.
    threshold
        (H, W) float32, display units, from ``threshold.visibility_threshold``.
    """
    return _largest(np.abs(after - before)) > threshold + 1e-6


def jnd_figures(before: np.ndarray, after: np.ndarray, strokes: np.ndarray, screen: Screen) -> JndFigures:
    """Return what a change is in JND on a screen, inside and outside strokes, whatever noise hides of it.

    Parameters
    ----------
    before
        (H, W) or (H, W, 3) float32 display values in 0..1.
    after
        the same of the marked image.
    strokes
        (H, W) bool.
    screen
        what shows the images.
    """
    changed = before != after
    jnds = np.zeros(before.shape, np.float32)
    jnds[changed] = screen.difference(before[changed], after[changed])
    jnds = _largest(jnds)
    above, outside = jnds > 1.0, jnds[~strokes]
    return JndFigures(
        over_jnd_inside=float((above & strokes).mean()),
        over_jnd_outside=float((above & ~strokes).mean()),
        percentile99=float(np.percentile(jnds, 99.0)),
        peak=float(jnds.max()),
        peak_outside=float(outside.max(initial=0.0)),
    )


def bias_of(
    residual: np.ndarray, foreground: np.ndarray, region: np.ndarray, slope: float | None = None, unit: str = ""
) -> Bias:
    """Return the mean signed change over foreground and region; 0 over an empty one.

    Parameters
    ----------
    residual
        (H, W) or (H, W, 3) int, marked minus original stored values; channels are averaged.
    foreground
        (H, W) bool.
    region
        (H, W) bool.
    slope
        modality units per stored value; None: not known, the result is in stored values.
    unit
        name of the modality's unit, e.g. ``HU``; without one too the result is in stored values.
    """
    known = slope is not None and unit != ""
    factor = slope if slope is not None and known else 1.0
    over_foreground, over_region = (
        factor * float(residual[mask].mean()) if mask.any() else 0.0 for mask in (foreground, region)
    )
    return Bias(over_foreground, over_region, unit if known else "stored value")


def measure(
    canvas: Canvas,
    marked: np.ndarray,
    untouchable: np.ndarray,
    other_windows: Mapping[str, tuple[float, float] | Curve],
    saturated: int,
    foreground: np.ndarray | None = None,
    slope: float | None = None,
    unit: str = "",
) -> Quality:
    """Return the quality of ``marked`` (stored values) against the canvas's image; what is only reported, when asked.

    Parameters
    ----------
    canvas
        the image and its limits.
    marked
        stored values, shape of the image; kept, in this type, until somebody asks for what is reported.
    untouchable
        (H, W) bool, region of interest and padding.
    other_windows
        name -> (low, high) in stored values, or a curve.
    saturated
        pixels cut by the valid range or the padding value.
    foreground
        (H, W) bool, for the bias; None: the canvas's region.
    slope
        modality units per stored value; None: not known.
    unit
        the modality's unit, e.g. ``HU``; empty: there is none.
    """
    windows = {name: map_of(one, canvas.display.inverted) for name, one in other_windows.items()}
    # the canvas itself is four times as large, and is not kept
    display, strokes, region, seen = canvas.display, canvas.strokes, canvas.region, canvas.seen
    stored = canvas.stored.astype(marked.dtype, copy=False)
    before, after = canvas.shown, canvas.display.shown(marked)
    visible = visible_pixels(before, after, canvas.threshold)
    share = 1.0 if seen is None else float(seen.mean())
    changed = marked != stored
    changed = changed.any(axis=2) if changed.ndim == 3 else changed
    body = region if foreground is None else foreground

    def details() -> Details:
        """Measure what takes longest."""
        shown = {PRIMARY: (display.shown(stored), display.shown(marked))}
        shown.update({name: (window.shown(stored), window.shown(marked)) for name, window in windows.items()})
        grays = luminance(shown[PRIMARY][0]), luminance(shown[PRIMARY][1])
        # what a shutter hides is equal in both, and counts 1 there
        similar, similar_at_scales = (1.0 - (1.0 - one(*grays)) / share for one in (ssim, ms_ssim))
        return Details(
            similar,
            similar_at_scales,
            {name: _on_screens(*pair, strokes, seen) for name, pair in shown.items()},
            bias_of(marked.astype(np.int64) - stored, body, region, slope, unit),
        )

    return Quality(
        psnr=canvas.counted_psnr(before, after),
        psnr_windows={
            name: round(canvas.counted_psnr(window.shown(stored), window.shown(marked)), 3)
            for name, window in windows.items()
        },
        stroke_share=float(canvas.strokes.mean()) / share,
        above_threshold=float((visible & ~canvas.strokes).mean()) / share,
        roi_difference=largest_difference(stored, marked, changed & untouchable),
        saturated=saturated,
        later=details,
    )


def largest_difference(stored: np.ndarray, marked: np.ndarray, mask: np.ndarray) -> int:
    """Return the largest absolute difference of two images of stored values where ``mask`` (H, W) bool; else 0."""
    if not mask.any():
        return 0
    return int(np.abs(marked[mask].astype(np.int64) - stored[mask]).max())


def _on_screens(
    before: np.ndarray, after: np.ndarray, strokes: np.ndarray, seen: np.ndarray | None
) -> dict[str, JndFigures]:
    if seen is not None:  # a column of what is seen
        before, after, strokes = before[seen][:, None], after[seen][:, None], strokes[seen][:, None]
    return {screen.name: jnd_figures(before, after, strokes, screen) for screen in SCREENS}


def _largest(change: np.ndarray) -> np.ndarray:
    """(H, W): over channels, the largest."""
    return change.max(axis=2) if change.ndim == 3 else change
