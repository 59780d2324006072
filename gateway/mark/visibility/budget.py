"""How much each pixel may change, and the way from a change in display units to stored values within the budget.

Visibility: one just noticeable difference (JND) of the grayscale standard display function (DICOM PS3.14) is about
1/582 of the display range for 1 to 350 cd/m2 (mark, budgets); image noise masks more, so the threshold of a pixel
is max(1 JND, k * local noise sd) with k from the profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark.settings import PSNR_FLOOR
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.curve import CurveMap
from gateway.mark.visibility.display import AnyDisplay
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
LIFTS = (OUTLINE_LIFT, FILL_LIFT)
PLAIN_LIFTS = (0.8, 0.8)
"""Both for letters that lie on no anatomy: nothing under them has to be seen, so they may read plainly."""


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
        bool, the letters' edges: shifted more than they are textured.
    units
        largest change outside strokes in stored values; None: ``outside`` says it all.
    raised
        bool, pixels beyond the window: what is written there begins at its nearer end, else it would not be seen.
        None: there are none.
    seen
        bool, what no shutter hides: budgets and figures count it alone. None: everything.
    lifts
        which share of the stroke amplitude shifts outline and fill of a letter; the rest is texture.
    """

    stored: np.ndarray
    display: AnyDisplay
    valid: tuple[int, int]
    reserved: tuple[tuple[int, int], ...]
    region: np.ndarray
    strokes: np.ndarray
    threshold: np.ndarray
    outside: np.ndarray
    inside: float
    lift: np.ndarray
    outline: np.ndarray
    units: float | None = None
    raised: np.ndarray | None = None
    seen: np.ndarray | None = None
    lifts: tuple[float, float] = LIFTS

    @cached_property
    def shown(self) -> np.ndarray:
        """The display image, float32 in 0..1, shape of ``stored``."""
        return self.display.shown(self.stored)

    @cached_property
    def start(self) -> np.ndarray:
        """Stored values int32 that changes begin at: the image's own, but for what is raised."""
        if self.raised is None:
            return self.stored
        planes = (slice(None), slice(None), *([None] * (self.stored.ndim - 2)))
        return np.where(self.raised[planes], self.display.brought_in(self.stored), self.stored)

    @property
    def is_bare(self) -> bool:
        """Whether the mark lies on no anatomy."""
        return self.lifts == PLAIN_LIFTS

    @property
    def penalty(self) -> float:
        """By how many dB a floor rises over the whole array where it is to hold over what is seen alone."""
        return 0.0 if self.seen is None else float(-10.0 * np.log10(self.seen.mean()))

    def psnr_of(self, marked: np.ndarray) -> float:
        """Return the display PSNR in dB of other stored values, over what is seen."""
        found = psnr(self.shown, self.display.shown(marked))
        return found if found == PSNR_CAP else found - self.penalty

    @property
    def amplitude(self) -> np.ndarray:
        """(H, W) float32: what the texture (-1..1) is multiplied with."""
        outline, fill = self.lifts
        return np.where(
            self.strokes, np.where(self.outline, 1.0 - outline, 1.0 - fill) * self.inside, self.outside
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


def units_outside(profile: ModalityProfile, display: AnyDisplay, slope: float | None) -> float | None:
    """Return the largest change outside strokes in stored values where the display is a curve; None: no such limit."""
    if slope is None or profile.peak_units is None or not isinstance(display, CurveMap):
        return None
    return profile.peak_units / abs(slope)


def peak_outside(profile: ModalityProfile, display: AnyDisplay, slope: float | None) -> float:
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
    if slope is None or profile.peak_units is None or isinstance(display, CurveMap):  # a curve has no one step
        return profile.peak
    return min(profile.peak, profile.peak_units / abs(slope * display.step))


def outside_amplitude(threshold: np.ndarray, area: np.ndarray, peak: float, floor: float) -> np.ndarray:
    """Return the (H, W) float32 amplitude outside strokes: the threshold, cut at ``peak``, ``floor`` dB as a whole."""
    amplitude = np.where(area, np.minimum(threshold, peak), 0.0)
    energy = float(np.mean(amplitude**2))
    allowed = 10.0 ** (-floor / 10.0)
    return (amplitude * min(1.0, np.sqrt(allowed / energy)) if energy > 0 else amplitude).astype(np.float32)


def stroke_lift(polarity: np.ndarray, outline: np.ndarray, lifts: tuple[float, float] = LIFTS) -> np.ndarray:
    """Return the (H, W) float32 share of the stroke amplitude that shifts each pixel of the lettering.

    Parameters
    ----------
    polarity
        (H, W) float32, +1 brighter, -1 darker, 0 outside strokes.
    outline
        (H, W) bool, the letters' edges.
    lifts
        as ``Canvas.lifts``.
    """
    return polarity * np.where(outline, np.float32(lifts[0]), np.float32(lifts[1]))


def inside_amplitude(
    strokes: np.ndarray,
    outline: np.ndarray,
    outside: np.ndarray,
    floor: float,
    peak: float,
    lifts: tuple[float, float] = LIFTS,
) -> float:
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
    lifts
        as ``Canvas.lifts``.
    """
    left = 10.0 ** (-floor / 10.0) - float(np.mean(outside**2))
    if not strokes.any() or left <= 0.0:
        return 0.0
    # texture at its limits, half of it each way: mean square of (lift +- texture)
    edge, fill = (lift**2 + (1.0 - lift) ** 2 for lift in lifts)
    square = float(outline.mean()) * edge + float((strokes & ~outline).mean()) * fill
    return min(peak, float(np.sqrt(left / square)))


def apply_change(canvas: Canvas, change: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the stored image int32 with ``change`` (display units, shape of the image) applied, and what was cut.

    Rounded to stored values; outside strokes rounded down where rounding up would cross the threshold; cut to the
    valid range; unchanged where a reserved value would come out, and out of the region.
    """
    planes = (slice(None), slice(None), *([None] * (canvas.stored.ndim - 2)))
    most = np.where(canvas.strokes, np.inf, canvas.threshold)[planes]
    moved = canvas.display.moved(canvas.start, change, most, canvas.units)
    whole = np.where(canvas.region[planes] & (change != 0), moved - canvas.stored, 0)
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

    def keeps(scaled: np.ndarray, limit: float) -> bool:
        return canvas.psnr_of(apply_change(canvas, scaled)[0]) >= limit

    outside = np.where(strokes, np.float32(0.0), change)
    scale = largest_scale(lambda s: keeps(outside * s, max(floor, PSNR_FLOOR["discreet"])), 1.0)
    result: np.ndarray = outside * scale
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
