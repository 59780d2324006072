"""How much each pixel may change, and the way from a change in display units to stored values within the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gateway.errors import MarkError
from gateway.mark.settings import TEXTURE_FLOOR
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.curve import CurveMap
from gateway.mark.visibility.display import AnyDisplay
from gateway.mark.visibility.quiet import quiet

PSNR_CAP = 100.0
"""Reported where nothing changed."""


@dataclass(frozen=True)
class Lifts:
    """Which share of the stroke amplitude shifts a pixel of a word whatever the texture; the rest of it is texture.

    Attributes
    ----------
    rim, ink
        of words that are drawn plainly: above 0.5 no texture turns them round, so that they read.
    textured_rim, textured_ink
        of the others: letters in their mean only.
    """

    rim: float
    ink: float
    textured_rim: float
    textured_ink: float


ON_ANATOMY = Lifts(1.0, 0.95, 0.5, 0.4)
IN_AIR = Lifts(0.9, 0.9, 0.5, 0.5)
"""In the air beside anatomy."""
ON_NOTHING = Lifts(0.8, 0.8, 0.8, 0.8)
"""On an image without anatomy: nothing under the letters has to be seen, so they may all read plainly."""


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
    plain
        bool, strokes over anatomy that are drawn plainly, with the amplitude ``inside_plain``. None: there are none.
    inside_plain
        theirs, display units.
    lift
        float32 in -1..1, by which share of ``inside`` a pixel of a letter is shifted (``stroke_lift``).
    units
        largest change outside strokes in stored values; None: ``outside`` says it all.
    raised
        bool, pixels beyond the window: what is written there begins at its nearer end, else it would not be seen.
        None: there are none.
    seen
        bool, what no shutter hides: budgets and figures count it alone. None: everything.
    is_bare
        whether the mark lies on no anatomy.
    air
        bool, background: strokes there have the amplitude ``inside_air`` and no budget. None: there is none.
    inside_air
        amplitude inside strokes in the air, display units.
    counted
        bool, the pixels that the PSNR counts: the anatomy that is seen. None: as ``seen``.
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
    units: float | None = None
    raised: np.ndarray | None = None
    seen: np.ndarray | None = None
    is_bare: bool = False
    air: np.ndarray | None = None
    inside_air: float = 0.0
    counted: np.ndarray | None = None
    plain: np.ndarray | None = None
    inside_plain: float = 0.0

    @cached_property
    def in_air(self) -> np.ndarray:
        """(H, W) bool: strokes in the air."""
        return np.zeros_like(self.strokes) if self.air is None else self.strokes & self.air

    @property
    def _pixels(self) -> np.ndarray | None:
        return self.seen if self.counted is None else self.counted

    @property
    def blanked(self) -> np.ndarray:
        """(H, W) bool: what whoever blanks the background would blank; nothing where there are no letters in it."""
        if self.counted is None or not self.in_air.any():
            return np.zeros_like(self.strokes)
        return ~self.counted

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

    @cached_property
    def limit(self) -> Any:
        """How far each stored value may move, as its display understands it."""
        planes = (slice(None), slice(None), *([None] * (self.stored.ndim - 2)))
        return self.display.limit_of(np.where(self.strokes, np.float32(np.inf), self.threshold)[planes], self.units)

    @property
    def penalty(self) -> float:
        """By how many dB a floor rises over the whole array where it is to hold over what counts alone."""
        return 0.0 if self._pixels is None else float(-10.0 * np.log10(self._pixels.mean()))

    def psnr_of(self, marked: np.ndarray) -> float:
        """Return the display PSNR in dB of other stored values, over what counts."""
        return self.counted_psnr(self.shown, self.display.shown(marked))

    def counted_psnr(self, before: np.ndarray, after: np.ndarray) -> float:
        """Return the PSNR in dB of two display images of this image, over what counts."""
        return psnr(before, after, self._pixels)

    @cached_property
    def amplitude(self) -> np.ndarray:
        """(H, W) float32: what the texture (-1..1) is multiplied with."""
        return np.where(self.strokes, (1.0 - np.abs(self.lift)) * self._level, self.outside).astype(np.float32)

    @cached_property
    def offset(self) -> np.ndarray:
        """(H, W) float32: what is added whatever the texture."""
        return np.asarray(self.lift * self._level, np.float32)

    @cached_property
    def _level(self) -> np.ndarray:
        level = np.where(self.in_air, np.float32(self.inside_air), np.float32(self.inside))
        return level if self.plain is None else np.where(self.plain, np.float32(self.inside_plain), level)


def psnr(first: np.ndarray, second: np.ndarray, counted: np.ndarray | None = None) -> float:
    """Return the PSNR in dB of two display images of one shape (peak 1.0), at most ``PSNR_CAP``.

    Parameters
    ----------
    first
        (H, W) or (H, W, 3) float, display values.
    second
        the same.
    counted
        (H, W) bool, the pixels that count; None: all of them.
    """
    difference = np.subtract(second, first, dtype=np.float64)
    size = difference.size
    if counted is not None:
        size = size // counted.size * int(np.count_nonzero(counted))
        difference *= counted if difference.ndim == 2 else counted[:, :, None]
    error = float(np.square(difference, out=difference).sum()) / size if size else 0.0
    return PSNR_CAP if error <= 10.0 ** (-PSNR_CAP / 10.0) else float(-10.0 * np.log10(error))


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


def stroke_lift(polarity: np.ndarray, outline: np.ndarray, plain: np.ndarray, lifts: Lifts) -> np.ndarray:
    """Return the (H, W) float32 share of the stroke amplitude that shifts each pixel of the lettering.

    Parameters
    ----------
    polarity
        (H, W) float32, +1 brighter, -1 darker, 0 outside strokes.
    outline
        (H, W) bool, the letters' rim.
    plain
        (H, W) bool, the words that are drawn plainly.
    lifts
        of the ground that they lie on.
    """
    share = np.where(
        plain,
        np.where(outline, np.float32(lifts.rim), np.float32(lifts.ink)),
        np.where(outline, np.float32(lifts.textured_rim), np.float32(lifts.textured_ink)),
    )
    return polarity * share


def inside_amplitude(strokes: np.ndarray, lift: np.ndarray, outside: np.ndarray, floor: float, peak: float) -> float:
    """Return the amplitude inside strokes that spends the PSNR budget, at most ``peak`` (display units).

    Parameters
    ----------
    strokes
        (H, W) bool.
    lift
        (H, W) float32 in -1..1, from ``stroke_lift``.
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
    shifted = np.abs(lift[strokes].astype(np.float64))
    # texture at its limits, half of it each way: mean square of (lift +- texture)
    square = float(np.sum(shifted**2 + (1.0 - shifted) ** 2)) / strokes.size
    return min(peak, float(np.sqrt(left / square)))


def apply_change(canvas: Canvas, change: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the stored image int32 with ``change`` (display units, shape of the image) applied, and what was cut.

    Rounded to stored values; outside strokes rounded down where rounding up would cross the threshold; cut to the
    valid range; unchanged where a reserved value would come out, and out of the region.
    """
    planes = (slice(None), slice(None), *([None] * (canvas.stored.ndim - 2)))
    moved = canvas.display.moved(canvas.start, change, canvas.limit)
    wanted = np.where(canvas.region[planes] & (change != 0), moved, canvas.stored)
    result = np.clip(wanted, *canvas.valid)
    # A pixel may already lie outside the valid range (broken files): then the nearest that can be done is nothing.
    if canvas.stored.min() < canvas.valid[0] or canvas.stored.max() > canvas.valid[1]:
        broken = (canvas.stored < canvas.valid[0]) | (canvas.stored > canvas.valid[1])
        result = np.where(broken, canvas.stored, result)
    for low, high in canvas.reserved:
        result = np.where((result >= low) & (result <= high) & (wanted != canvas.stored), canvas.stored, result)
    cut = result != wanted
    return result, int(np.count_nonzero(cut.any(axis=2) if cut.ndim == 3 else cut))


def fit_to_floor(canvas: Canvas, texture: np.ndarray, floor: float, peak: float) -> tuple[np.ndarray, int]:
    """Return the marked stored image (int32) that spends the PSNR budget and keeps it after rounding; and what was cut.

    What lies outside strokes keeps ``TEXTURE_FLOOR`` by itself, then the strokes over anatomy spend what is left;
    those in the air are no part of the budget.

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
    air = canvas.in_air[planes]
    strokes = canvas.strokes[planes]
    change = canvas.offset[planes] + canvas.amplitude[planes] * texture

    def keeps(scaled: np.ndarray, limit: float) -> bool:
        return canvas.psnr_of(apply_change(canvas, scaled)[0]) >= limit

    outside = quiet(np.where(strokes, np.float32(0.0), change), canvas.outside, canvas.display.unit)
    scale = largest_scale(lambda s: keeps(outside * s, max(floor, TEXTURE_FLOOR)), 1.0)
    result: np.ndarray = outside * scale
    strongest = max(canvas.inside, canvas.inside_plain)
    if strongest > 0:
        inside = np.where(strokes & ~air, change, np.float32(0.0))
        # Pixels at the ends of the window cost less than was planned: up to the peak, that is spent too.
        high = min(1.5, peak / strongest)
        result = result + inside * largest_scale(lambda s: keeps(outside * scale + inside * s, floor), high)
    result = np.where(air, change, result)
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
