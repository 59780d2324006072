"""Where and how the lettering of one image is drawn: placement, sizes, polarity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from gateway.errors import MarkError
from gateway.mark.grids import WORKING_SIDE, shrink, to_display, to_tensor, working_shape
from gateway.mark.placement.lettering import (
    Lettering,
    Placement,
    draw_placements,
    logo_stamp,
    place,
    render_lettering,
    render_stamp,
    shown_scale,
)
from gateway.mark.placement.search import remaining_probability
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import Curve, MarkRequest, ModalityProfile
from gateway.mark.visibility.budget import LIFTS, PLAIN_LIFTS, inside_amplitude, stroke_lift
from gateway.mark.visibility.region import luminance, widen

MAX_REGION_SHARE = 0.45
"""Strokes cover at most this share of the free region, so that what lies under them can be read."""
LETTER_SIZES = (1.0, 0.65, 0.65, 0.45, 0.45)
"""Factors of the profile's letter height, tried one after the other, each elsewhere, while there is room."""
ENOUGH = 0.95
"""No smaller letters are added where strokes cover this share of what they may."""
LETTER_GAP = 0.2
"""Distance between letters of different sizes, as a share of the smaller letter height."""
LEAST_LETTER = 12.0
"""Least height of a capital letter in pixels: below it strokes are thinner than two pixels and do not read."""
PLAIN_SIZES = (1.0, 0.65, 0.45, 0.3, 0.2)
"""The same where there is no anatomy: a page leaves little room between its lines."""
PLAIN_SHARE = 0.04
"""Share of the image that strokes may cover where there is no anatomy: fewer and stronger ones read better."""
LEAST_PLAIN = 400
"""Pixels of strokes that are allowed there in any image: room for one short word."""
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
        for free in (readable, region):
            is_last = free is region
            try:
                placement, lettering = self._placed(request, display, free, bare)
            except MarkError as error:
                if error.code != "no-free-area" or is_last:
                    raise
                continue
            few = TOO_FEW * most_strokes(self._settings, region)
            if isinstance(request.display, Curve) and not is_last and lettering.strokes.sum() < few:
                continue  # a steep curve shows next to nothing: letters begin where it begins to move
            polarity = lettering.polarity(luminance(display), placement.turning_point)
            return lettering, stroke_lift(polarity, lettering.outline, PLAIN_LIFTS if bare else LIFTS)
        raise AssertionError("the loop returns or raises")

    def _placed(
        self, request: MarkRequest, display: np.ndarray, region: np.ndarray, bare: bool
    ) -> tuple[Placement, Lettering]:
        """Return placement and lettering: by slice position in a series, else the best of several keyed placements.

        Where the one by slice position leaves no room for a letter, it is the first keyed one that does; without
        surrogates to judge them, and where there is no anatomy, always that.

        Raises
        ------
        MarkError
            ``no-free-area`` when no letter fits anywhere.
        """
        placements = draw_placements(request.key, self._settings.placements)
        if request.position is not None:
            placements.insert(0, place(request.key, request.position))
        share = 1.0 if request.hidden is None else float((~request.hidden).mean())
        height = self._profile.letter_height * math.sqrt(share)  # of what is seen
        scale = shown_scale(request.aspect)
        lay = partial(self._lettering, request.key, height=height, scale=scale, bare=bare)
        fixed = request.position is not None or not self._surrogates
        if bare:  # whole words, but for a text too long for the image
            try:
                return next(self._fitting(partial(lay, whole=True), placements, region))
            except MarkError as error:
                if error.code != "no-free-area":
                    raise
        if fixed or bare:
            return next(self._fitting(lay, placements, region))
        shape = working_shape(region.shape, WORKING_SIDE)
        small = resize(to_tensor(display, self._device), *shape)
        fitting = list(self._fitting(lay, placements, shrink(region, shape)))
        changes = [self._lettered(found, placement, to_display(small)) for placement, found in fitting]
        images = (small + torch.from_numpy(np.stack(changes))[:, None].to(self._device)).clamp(0.0, 1.0)
        best = fitting[int(remaining_probability(images, small, self._surrogates, self._profile.tasks).argmin())][0]
        return best, lay(best, region)

    def _fitting(
        self,
        lay: Callable[[Placement, np.ndarray], Lettering],
        placements: Sequence[Placement],
        free: np.ndarray,
    ) -> Iterator[tuple[Placement, Lettering]]:
        """Yield the placements that have room for letters, and the lettering; at least one.

        Raises
        ------
        MarkError
            ``no-free-area`` when there is none.
        """
        reason: MarkError | None = None
        count = 0
        for placement in placements:
            try:
                yield placement, lay(placement, free)
                count += 1
            except MarkError as error:
                reason = error
        if not count and reason is not None:
            raise reason

    def _lettered(self, lettering: Lettering, placement: Placement, display: np.ndarray) -> np.ndarray:
        """Return the (h, w) float32 change that the letters alone make, in display units."""
        nothing = np.zeros(lettering.strokes.shape, np.float32)
        amplitude = inside_amplitude(
            lettering.strokes, lettering.outline, nothing, self._settings.psnr_floor, self._profile.stroke_peak
        )
        polarity = lettering.polarity(luminance(display), placement.turning_point)
        return stroke_lift(polarity, lettering.outline) * np.float32(amplitude)

    def _lettering(
        self,
        key: bytes,
        placement: Placement,
        region: np.ndarray,
        *,
        height: float,
        scale: tuple[float, float],
        bare: bool,
        whole: bool = False,
    ) -> Lettering:
        """Return lettering in the region; smaller letters fill the room that larger ones leave.

        ``height`` of the first ones as a share of the shorter side.

        Raises
        ------
        MarkError
            ``no-free-area`` when not even small letters fit, ``logo-too-fine`` for a logo at its usual size.
        """
        shorter = min(side * step for side, step in zip(region.shape, scale, strict=True))
        height = max(height * placement.size * shorter, LEAST_LETTER)
        most = most_strokes(self._settings, region)
        if bare:
            most = min(most, max(LEAST_PLAIN, int(PLAIN_SHARE * region.size)))
        lettering = Lettering.none(region.shape)
        for number, factor in enumerate(PLAIN_SIZES if bare else LETTER_SIZES):
            size = max(LEAST_LETTER, factor * height)
            try:
                stamp = render_stamp(self._settings.text, size) if self._logo is None else logo_stamp(self._logo, size)
            except MarkError:  # too fine when this small: what is there already has to do
                if not lettering.strokes.any():
                    raise
                break
            free = region & ~widen(lettering.strokes, LETTER_GAP * size / min(scale))
            left = most - int(lettering.strokes.sum())
            found = render_lettering(stamp, key, placement.moved(number), size, free, left, scale, whole=whole)
            lettering = lettering.joined(found)
            if lettering.strokes.sum() >= ENOUGH * most or size == LEAST_LETTER:
                break
        if not lettering.strokes.any():
            raise MarkError("no-free-area", "no letter of the lettering fits into the free area")
        return lettering


def most_strokes(settings: MarkSettings, region: np.ndarray) -> int:
    """Return how many pixels strokes may cover where marks may lie in ``region`` (H, W) bool."""
    return int(min(settings.max_stroke_share * region.size, MAX_REGION_SHARE * float(region.sum())))
