"""How much each pixel may change, and the way from a change in display units to stored values within the budget.

Visibility: one just noticeable difference (JND) of the grayscale standard display function (DICOM PS3.14) is about
1/582 of the display range for 1 to 350 cd/m2 (mark, budgets); image noise masks more, so the threshold of a pixel
is max(1 JND, k * local noise sd) with k from the profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark.settings import PSNR_FLOOR
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.display import DisplayMap
from gateway.mark.visibility.region import luminance

JND = 1.0 / 582.0
"""One just noticeable difference in display units."""
PSNR_CAP = 100.0
"""Reported where nothing changed."""
OUTLINE_LIFT = 0.5
"""Share of the stroke amplitude by which a letter's outline is lifted one way, the rest of it is texture: at half, no
texture turns the outline the other way, and such an edge is what makes a letter read."""
FILL_LIFT = 0.3
"""The same for what lies inside the outline."""


@dataclass(frozen=True)
class Canvas:
    """One image with everything that limits its mark; arrays share (H, W).

    Attributes
    ----------
    stored
        (H, W) or (H, W, 3) int32 stored values.
    display
        the primary window.
    valid
        lowest and highest stored value allowed.
    reserved
        (low, high) of stored values, inclusive, that no pixel may take.
    region
        bool, where a mark may lie.
    strokes
        bool, inside ``region``.
    threshold
        float32, masked threshold of visibility in display units.
    outside
        float32, amplitude outside strokes in display units (0 out of the region and inside strokes).
    inside
        amplitude inside strokes in display units.
    lift
        float32 in -1..1, by which share of ``inside`` a pixel of a letter is shifted (``stroke_lift``).
    outline
        bool, the letters' edges: shifted, without texture.
    """

    stored: np.ndarray
    display: DisplayMap
    valid: tuple[int, int]
    reserved: tuple[tuple[int, int], ...]
    region: np.ndarray
    strokes: np.ndarray
    threshold: np.ndarray
    outside: np.ndarray
    inside: float
    lift: np.ndarray
    outline: np.ndarray

    @property
    def amplitude(self) -> np.ndarray:
        """(H, W) float32: what the texture (-1..1) is multiplied with."""
        return np.where(
            self.strokes, np.where(self.outline, 1.0 - OUTLINE_LIFT, 1.0 - FILL_LIFT) * self.inside, self.outside
        ).astype(np.float32)

    @property
    def offset(self) -> np.ndarray:
        """(H, W) float32: what is added whatever the texture."""
        return self.lift * np.float32(self.inside)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Return the PSNR in dB of two display images of one shape (peak 1.0), at most ``PSNR_CAP``."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return PSNR_CAP if error <= 10.0 ** (-PSNR_CAP / 10.0) else float(-10.0 * np.log10(error))


def visibility_threshold(display: np.ndarray, factor: float) -> np.ndarray:
    """Return the (H, W) float32 masked threshold max(1 JND, factor * local noise sd).

    Parameters
    ----------
    display
        (H, W) or (H, W, 3) float32 in 0..1.
    factor
        k of the profile.

    Noise is what a Gaussian of 1.5 pixels takes away, its sd over 7x7 pixels; of that the 5x5 minimum, so that the
    edge of a flat area does not count as noise.
    """
    gray = luminance(display)
    residue = gray - ndimage.gaussian_filter(gray, 1.5)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(residue.astype(np.float64) ** 2, 7), 0.0))
    return np.maximum(JND, factor * ndimage.minimum_filter(deviation, 5)).astype(np.float32)


def peak_outside(profile: ModalityProfile, display: DisplayMap, slope: float | None) -> float:
    """Return the largest change outside strokes in display units, whatever the noise.

    Parameters
    ----------
    profile
        its ``peak`` holds always, its ``peak_units`` where ``slope`` is known.
    display
        the primary window.
    slope
        modality units per stored value, or None.
    """
    if slope is None or profile.peak_units is None:
        return profile.peak
    return min(profile.peak, profile.peak_units / abs(slope * display.step))


def outside_amplitude(threshold: np.ndarray, area: np.ndarray, peak: float, floor: float) -> np.ndarray:
    """Return the (H, W) float32 amplitude outside strokes: the threshold, cut at ``peak``, ``floor`` dB as a whole."""
    amplitude = np.where(area, np.minimum(threshold, peak), 0.0)
    energy = float(np.mean(amplitude**2))
    allowed = 10.0 ** (-floor / 10.0)
    return (amplitude * min(1.0, np.sqrt(allowed / energy)) if energy > 0 else amplitude).astype(np.float32)


def stroke_lift(polarity: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Return the (H, W) float32 share of the stroke amplitude that shifts each pixel of the lettering.

    Parameters
    ----------
    polarity
        (H, W) float32, +1 brighter, -1 darker, 0 outside strokes.
    outline
        (H, W) bool, the letters' edges.
    """
    return polarity * np.where(outline, np.float32(OUTLINE_LIFT), np.float32(FILL_LIFT))


def inside_amplitude(strokes: np.ndarray, outline: np.ndarray, outside: np.ndarray, floor: float, peak: float) -> float:
    """Return the amplitude inside strokes that spends the PSNR budget, at most ``peak`` (display units).

    Parameters
    ----------
    strokes
        (H, W) bool.
    outline
        (H, W) bool, inside ``strokes``.
    outside
        (H, W) float32, amplitude elsewhere.
    floor
        display PSNR in dB.
    peak
        the profile's largest change inside strokes.
    """
    left = 10.0 ** (-floor / 10.0) - float(np.mean(outside**2))
    if not strokes.any() or left <= 0.0:
        return 0.0
    # texture at its limits, half of it each way: mean square of (lift +- texture)
    edge, fill = (lift**2 + (1.0 - lift) ** 2 for lift in (OUTLINE_LIFT, FILL_LIFT))
    square = float(outline.mean()) * edge + float((strokes & ~outline).mean()) * fill
    return min(peak, float(np.sqrt(left / square)))


def apply_change(canvas: Canvas, change: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the stored image int32 with ``change`` (display units, shape of the image) applied, and what was cut.

    Rounded to stored values; outside strokes rounded down where rounding up would cross the threshold; cut to the
    valid range; unchanged where a reserved value would come out, and out of the region.
    """
    planes = (slice(None), slice(None), *([None] * (canvas.stored.ndim - 2)))
    step = canvas.display.step
    whole = np.rint(change * step).astype(np.int32)
    limit = np.floor(canvas.threshold * abs(step)).astype(np.int32)
    limit = np.where(canvas.strokes, np.int32(2**24), limit)[planes]
    whole = np.where(canvas.region[planes], np.clip(whole, -limit, limit), 0)
    result = np.clip(canvas.stored + whole, *canvas.valid)
    # A pixel may already lie outside the valid range (broken files): then the nearest that can be done is nothing.
    broken = (canvas.stored < canvas.valid[0]) | (canvas.stored > canvas.valid[1])
    result = np.where(broken, canvas.stored, result)
    for low, high in canvas.reserved:
        result = np.where((result >= low) & (result <= high) & (whole != 0), canvas.stored, result)
    cut = result != canvas.stored + whole
    return result, int((cut.any(axis=2) if cut.ndim == 3 else cut).sum())


def fit_to_floor(canvas: Canvas, texture: np.ndarray, floor: float, peak: float) -> tuple[np.ndarray, int]:
    """Return the marked stored image (int32) that spends the PSNR budget and keeps it after rounding; and what was cut.

    What lies outside strokes keeps the discreet tier's floor by itself, then the strokes spend what is left.

    Parameters
    ----------
    canvas
        the image and its limits.
    texture
        shape of the image, float32 in -1..1.
    floor
        display PSNR in dB.
    peak
        largest change inside strokes, display units.

    Raises
    ------
    MarkError
        ``over-budget`` when no change keeps the floor, or all of the mark rounds to nothing.
    """
    planes = (slice(None), slice(None), *([None] * (canvas.stored.ndim - 2)))
    strokes = canvas.strokes[planes]
    change = canvas.offset[planes] + canvas.amplitude[planes] * texture
    before = canvas.display.shown(canvas.stored)

    def keeps(scaled: np.ndarray, limit: float) -> bool:
        return psnr(before, canvas.display.shown(apply_change(canvas, scaled)[0])) >= limit

    outside = np.where(strokes, np.float32(0.0), change)
    scale = largest_scale(lambda s: keeps(outside * s, max(floor, PSNR_FLOOR["discreet"])), 1.0)
    result = outside * scale
    if canvas.inside > 0:
        inside = np.where(strokes, change, np.float32(0.0))
        # Pixels at the ends of the window cost less than was planned: up to the peak, that is spent too.
        high = min(1.5, peak / canvas.inside)
        result = result + inside * largest_scale(lambda s: keeps(outside * scale + inside * s, floor), high)
    marked, cut = apply_change(canvas, result)
    if np.array_equal(marked, canvas.stored):
        raise MarkError("over-budget", f"no mark keeps {floor:g} dB display PSNR: the window has too few stored values")
    return marked, cut


def largest_scale(keeps: Callable[[np.float32], bool], high: float) -> np.float32:
    """Return the largest scale up to ``high`` that keeps a limit, by bisection; 0 when none does."""
    low, top = np.float32(0.0), np.float32(high)
    if keeps(top):
        return top
    for _ in range(8):
        middle = (low + top) / np.float32(2.0)
        low, top = (middle, top) if keeps(middle) else (low, middle)
    return low
