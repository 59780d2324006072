"""What is written on one image: the text where there is air, the short word over anatomy; sizes, polarity, search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.grids import WORKING_SIDE, to_tensor, working_shape
from gateway.mark.placement.search import remaining_probability
from gateway.mark.placement.stamps import Stamp, logo_stamp, text_stamp
from gateway.mark.placement.words import (
    IN_AIR,
    ON_ANATOMY,
    Draw,
    Lettering,
    Placement,
    Style,
    draw_placements,
    lay_words,
    place,
    ways_of,
)
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import Curve, MarkRequest, ModalityProfile
from gateway.mark.visibility import budget
from gateway.mark.visibility.budget import inside_amplitude
from gateway.mark.visibility.region import luminance

MAX_REGION_SHARE = 0.45
"""Strokes cover at most this share of the free region, so that what lies under them can be read."""
WORDS_SHARE = 0.16
"""The same for words over anatomy: two of them read, the others carry what misleads."""
LEAST_SHARE = 14.0 / 512.0
"""Least height of a capital letter, as a share of the shorter side."""
LEAST_LETTER = 8
"""Least height of a capital letter in pixels: below it strokes are thinner than two pixels and do not read."""
AIR_SIZES = (2.0, 1.4, 1.0)
"""Letter heights in the air, in least ones: what larger letters leave free takes smaller ones."""
SIZES = (1.0, 0.75, 0.55)
"""The same over anatomy, in the profile's largest one; none is less than the least."""
LOGO_SHARE, LOGO_SIZES = 0.14, (1.0, 0.7, 0.5, 0.35, 0.25)
"""The same of the letters that a logo stands for, and of the shorter side: its strokes are finer."""
MARGIN = 1.0 / 128.0
"""Distance of words from the edge of the image, as a share of the shorter side."""
PLAIN_SHARE = 0.04
"""Share of the image that strokes may cover where there is no anatomy: fewer and stronger ones read better."""
LEAST_PLAIN = 400
"""Pixels of strokes that are allowed in any image: room for one short word."""
TOO_FEW = 0.25
"""Share of the strokes that there might be, below which those on what a curve shows do not make a text."""


class Letterer:
    """Writes on images of one profile; parameters as ``drafting.Drafter``; no surrogates: no search."""

    def __init__(
        self,
        settings: MarkSettings,
        profile: ModalityProfile,
        surrogates: Sequence[Surrogate],
        device: torch.device,
        logo: np.ndarray | None = None,
    ) -> None:
        self._settings, self._profile, self._surrogates = settings, profile, surrogates
        self._device, self._logo = device, logo

    def write(
        self, request: MarkRequest, display: np.ndarray, region: np.ndarray, readable: np.ndarray, *, bare: bool
    ) -> tuple[Lettering, np.ndarray]:
        """Return the lettering and its lift, where it can be read; anywhere in the region where none fits there.

        Raises
        ------
        MarkError
            ``no-free-area``, ``logo-too-fine``, ``surrogate-nan``.
        """
        most = min(most_strokes(self._settings, region), max(LEAST_PLAIN, int(WORDS_SHARE * region.sum())))
        for free in (readable, region):
            lettering = self.in_air(request, free) if bare else self.on_anatomy(request, display, free, most)
            few = TOO_FEW * most if isinstance(request.display, Curve) and free is not region else 0
            if lettering.strokes.sum() > few:  # a steep curve shows next to nothing: letters begin where it moves
                lifts = budget.ON_NOTHING if bare else budget.ON_ANATOMY
                return lettering, lettering.lift(luminance(display), lifts)
        raise MarkError("no-free-area", "no word of the lettering fits into the free area")

    def in_air(self, request: MarkRequest, free: np.ndarray, most: int | None = None) -> Lettering:
        """Return the text on empty ground, and short words where the text does not fit.

        Parameters
        ----------
        request
            the image.
        free
            (H, W) bool, where strokes may lie.
        most
            pixels that strokes may cover; None: few and strong ones, as on an image without anatomy.

        Its strokes are empty where nothing fits.

        Raises
        ------
        MarkError
            ``logo-too-fine``.
        """
        scale = shown_scale(request.aspect)
        least = least_height(free.shape, scale)
        heights = [math.ceil(factor * least) for factor in AIR_SIZES]
        texts = [partial(_text, lines, scale, IN_AIR) for lines in ways_of(self._settings.text)]
        word = (self._settings.word,)
        wanted: list[tuple[int, Draw]] = [(height, text) for height in heights for text in texts]
        wanted += [(height, partial(_text, word, scale, IN_AIR)) for height in heights]
        if self._logo is not None:
            wanted = self._logos(self._logo, free.shape, scale, IN_AIR)
        if most is None:
            most = max(LEAST_PLAIN, int(PLAIN_SHARE * free.size))
        (placement, *_) = self._placements(request)
        return self._laid(request, placement, free, wanted, IN_AIR, most)

    def on_anatomy(self, request: MarkRequest, display: np.ndarray, free: np.ndarray, most: int) -> Lettering:
        """Return short words over anatomy: by slice position in a series, else at the best of several keyed placements.

        Parameters
        ----------
        request
            the image.
        display
            (H, W) or (H, W, 3) float32 in 0..1.
        free
            (H, W) bool, where strokes may lie.
        most
            pixels that strokes may cover.

        Its strokes are empty where nothing fits.

        Raises
        ------
        MarkError
            ``logo-too-fine``, ``surrogate-nan``.
        """
        scale = shown_scale(request.aspect)
        draw = partial(_text, (self._settings.word,), scale, ON_ANATOMY)
        logos = None if self._logo is None else self._logos(self._logo, free.shape, scale, ON_ANATOMY)

        def laid(placement: Placement) -> Lettering:
            heights = heights_down_from(self._profile.letter_height * placement.size, SIZES, free.shape, scale)
            wanted = [(height, draw) for height in heights] if logos is None else logos
            return self._laid(request, placement, free, wanted, ON_ANATOMY, most, luminance(display))

        placements = self._placements(request)
        if request.position is not None or not self._surrogates:
            return laid(placements[0])
        found = [lettering for lettering in map(laid, placements) if lettering.strokes.any()]
        return found[self._best(found, display)] if found else Lettering.none(free.shape)

    def _placements(self, request: MarkRequest) -> list[Placement]:
        """Return the placement of a slice, or those that an image of no series may choose from."""
        if request.position is not None:
            return [place(request.key, request.position)]
        return draw_placements(request.key, self._settings.placements)

    def _laid(
        self,
        request: MarkRequest,
        placement: Placement,
        free: np.ndarray,
        wanted: Sequence[tuple[int, Draw]],
        style: Style,
        most: int,
        gray: np.ndarray | None = None,
    ) -> Lettering:
        scale = shown_scale(request.aspect)
        edge = math.ceil(MARGIN * min(free.shape))
        inner = np.zeros_like(free)
        inner[edge:-edge, edge:-edge] = free[edge:-edge, edge:-edge]
        return lay_words(inner, wanted, request.key, placement, style, most, scale, gray)

    def _logos(
        self, logo: np.ndarray, shape: tuple[int, ...], scale: tuple[float, float], style: Style
    ) -> list[tuple[int, Draw]]:
        """Return the logo at all heights at which its strokes show; raises ``logo-too-fine`` when there are none."""
        found: list[tuple[int, Draw]] = []
        for height in heights_down_from(LOGO_SHARE, LOGO_SIZES, shape, scale):
            try:
                stamp = logo_stamp(logo, height, scale, rimmed=style.rimmed)
            except MarkError:
                if not found:
                    raise
                break
            found.append((height, partial(_given, stamp)))
        return found

    def _best(self, found: Sequence[Lettering], display: np.ndarray) -> int:
        """Return which of several letterings misleads the surrogates most.

        Raises
        ------
        MarkError
            ``surrogate-nan``.
        """
        shape = working_shape(display.shape[:2], WORKING_SIDE)
        small = resize(to_tensor(display, self._device), *shape)
        changes = [resize(to_tensor(self._change(one, display), self._device), *shape) for one in found]
        images = torch.cat([(small + change).clamp(0.0, 1.0) for change in changes])
        return int(remaining_probability(images, small, self._surrogates, self._profile.tasks).argmin())

    def _change(self, lettering: Lettering, display: np.ndarray) -> np.ndarray:
        """Return the (H, W) float32 change that the letters alone make, in display units."""
        nothing = np.zeros(lettering.strokes.shape, np.float32)
        lift = lettering.lift(luminance(display), budget.ON_ANATOMY)
        floor, peak = self._settings.psnr_floor, self._profile.stroke_peak
        return lift * np.float32(inside_amplitude(lettering.strokes, lift, nothing, floor, peak))


def _text(lines: tuple[str, ...], scale: tuple[float, float], style: Style, height: int, pitch: int) -> Stamp:
    return text_stamp(lines, height, pitch, scale, rimmed=style.rimmed)


def _given(stamp: Stamp, height: int, pitch: int) -> Stamp:
    """Return a stamp that is drawn already."""
    return stamp


def check_words(text: str, word: str) -> None:
    """Raise where an image can hold a text nowhere: its widest word in the least letters is wider than a square image.

    Raises
    ------
    ConfigError
        ``text-too-wide``.
    """
    side = 512  # of an image in which the least letters are as high as they are drawn here
    for lines in (ways_of(text)[-1], (word,)):
        if text_stamp(lines, least_height((side, side)), side).ink.shape[1] > side * (1.0 - 2.0 * MARGIN):
            longest = max(lines, key=len)
            message = f"no image holds the word {longest!r} in letters that read"
            raise ConfigError("text-too-wide", message, "use shorter words")


def shown_scale(aspect: float) -> tuple[float, float]:
    """Return height and width of a pixel as it is shown, its longer side being 1; ``aspect`` is height over width."""
    return aspect / max(aspect, 1.0), 1.0 / max(aspect, 1.0)


def least_height(shape: tuple[int, ...], scale: tuple[float, float] = (1.0, 1.0)) -> int:
    """Return the least height of a capital letter in an image of ``shape`` (rows, columns), pixels of square shape."""
    return max(LEAST_LETTER, math.ceil(LEAST_SHARE * _shorter(shape, scale)))


def heights_down_from(
    share: float, sizes: Sequence[float], shape: tuple[int, ...], scale: tuple[float, float]
) -> list[int]:
    """Return ``share`` of the shorter side in pixels times each of ``sizes``, none of them under the least height."""
    least, largest = least_height(shape, scale), share * _shorter(shape, scale)
    return sorted({max(least, math.ceil(factor * largest)) for factor in sizes}, reverse=True)


def _shorter(shape: tuple[int, ...], scale: tuple[float, float]) -> float:
    return min(side * step for side, step in zip(shape[:2], scale, strict=True))


def most_strokes(settings: MarkSettings, region: np.ndarray) -> int:
    """Return how many pixels strokes may cover where marks may lie in ``region`` (H, W) bool."""
    return int(min(settings.max_stroke_share * region.size, MAX_REGION_SHARE * float(region.sum())))
