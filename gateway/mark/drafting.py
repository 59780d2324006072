"""One frame before its texture: checked, its free region found, its lettering placed, its limits set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from gateway.errors import MarkError
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
from gateway.mark.settings import PSNR_FLOOR, MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.surrogates.saliency import saliency
from gateway.mark.types import Curve, MarkRequest, ModalityProfile
from gateway.mark.visibility.budget import (
    LIFTS,
    PLAIN_LIFTS,
    Canvas,
    inside_amplitude,
    outside_amplitude,
    peak_outside,
    stroke_lift,
    units_outside,
    visibility_threshold,
)
from gateway.mark.visibility.curve import CurveMap
from gateway.mark.visibility.display import (
    AnyDisplay,
    DisplayMap,
    check_request,
    display_of,
    untouchable_of,
    valid_range_of,
)
from gateway.mark.visibility.ground import AIR, PAGE, empty_ground, text_of
from gateway.mark.visibility.region import (
    dilate,
    find_foreground,
    free_region,
    local_detail,
    luminance,
    salient_region,
    widen,
)

WORKING_SIDE = 256
"""Longest side (pixels) at which saliency and placements are computed; that of textures is the profile's."""
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
LEAST_FOREGROUND = 0.01
"""Share of what is seen below which there is no anatomy."""
ROI_MARGIN = 1.0 / 64.0
"""Dilation of the region of interest, as a share of the shorter side."""


@dataclass(frozen=True)
class Draft:
    """One frame on its way: all that is known before the texture.

    Attributes
    ----------
    request
        what is to be marked.
    canvas
        the image and everything that limits its mark.
    foreground
        (H, W) bool, what is clearly brighter than black.
    roi
        (H, W) bool, region of interest as given or found, dilated.
    untouchable
        (H, W) bool, region of interest, padding and what a shutter hides.
    note
        as ``MarkedImage.note``.
    """

    request: MarkRequest
    canvas: Canvas
    foreground: np.ndarray
    roi: np.ndarray
    untouchable: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Ground:
    """What letters and texture lie on, and how they are drawn there.

    Attributes
    ----------
    region
        (H, W) bool, where a mark may lie.
    roi
        (H, W) bool, what stays as it is: the region of interest, dilated, or the text of a page.
    note
        as ``MarkedImage.note``; empty: anatomy.
    """

    region: np.ndarray
    roi: np.ndarray
    note: str = ""

    @property
    def bare(self) -> bool:
        """Whether there is no anatomy: letters read plainly there, in whole words, and begin within the window."""
        return self.note != ""


class Drafter:
    """Makes drafts of frames of one profile.

    Parameters
    ----------
    settings
        tier, text, steps and so on.
    profile
        the frames' modality profile.
    surrogates
        the networks to mislead; may be empty when there are no steps: then local detail stands in for
        saliency, and no placement is searched.
    device
        of the surrogates.
    logo
        (h, w) bool ink that is drawn instead of the text; or None.
    """

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

    def draft(self, request: MarkRequest) -> Draft:
        """Check a request and decide where and how strongly its image may change.

        Raises
        ------
        MarkError
            ``bad-request``, ``wrong-channels``, ``image-too-small``, ``image-empty``, ``no-free-area``,
            ``surrogate-nan``, ``logo-too-fine``.
        """
        check_request(request)
        skipped = untouchable_of(request)
        window = display_of(request, skipped)
        display = window.shown(request.image)
        if skipped.all():
            raise MarkError("image-empty", "all of the image is padding or hidden, and what is there is no even ground")
        foreground = find_foreground(display, skipped)
        seen = None if request.hidden is None else ~request.hidden
        marked, reason = None, None
        try:
            ground = self._ground(request, display, foreground, skipped)
            marked = self._written(request, window, display, ground)
        except MarkError as error:
            if error.code != "no-free-area" or request.roi is not None:
                raise
            reason = error
        if marked is None:  # the anatomy is too small for a letter: it stays as it is
            kept = dilate(foreground, ROI_MARGIN * min(display.shape[:2]))
            ground = Ground(empty_ground(display, skipped, kept), kept & ~skipped, AIR)
            try:
                marked = self._written(request, window, display, ground)
            except MarkError as error:
                raise (reason if error.code == "no-free-area" else error) from None
        lettering, lift = marked
        strokes, region = lettering.strokes, ground.region
        raised = None
        if ground.bare or isinstance(window, CurveMap):
            raised = region & ~self._readable(window, request.image)
            if self._settings.mode != "paper":  # that one places its own strokes
                raised &= strokes
        # where the window shows nothing, the noise that hides a change is that of the values beyond it
        shades = window.raw(request.image) if ground.bare and isinstance(window, DisplayMap) else display
        threshold = visibility_threshold(shades, self._profile.noise_factor)
        canvas = Canvas(
            stored=request.image.astype(np.int32),
            display=window,
            valid=valid_range_of(request),
            reserved=request.reserved,
            region=region,
            strokes=strokes,
            threshold=threshold,
            outside=np.zeros(region.shape, np.float32),
            inside=0.0,
            lift=lift,
            outline=lettering.outline,
            units=units_outside(self._profile, window, request.slope),
            raised=raised,
            seen=seen,
            lifts=PLAIN_LIFTS if ground.bare else LIFTS,
        )
        floor = self._settings.psnr_floor + canvas.penalty
        limit = max(self._settings.psnr_floor, PSNR_FLOOR["discreet"]) + canvas.penalty
        if not (ground.bare and self._settings.tier == "lettered"):  # the empty ground bears letters and nothing else
            peak = peak_outside(self._profile, window, request.slope)
            canvas = replace(canvas, outside=outside_amplitude(threshold, region & ~strokes, peak, limit))
        inside = inside_amplitude(
            strokes, lettering.outline, canvas.outside, floor, self._profile.stroke_peak, canvas.lifts
        )
        roi = ground.roi if seen is None else ground.roi & seen
        return Draft(request, replace(canvas, inside=inside), foreground, roi, ground.roi | skipped, ground.note)

    def _ground(self, request: MarkRequest, display: np.ndarray, foreground: np.ndarray, skipped: np.ndarray) -> Ground:
        """Return where the mark goes: on the anatomy, or where there is none (air alone, a page of text) beside it.

        Raises
        ------
        MarkError
            ``no-free-area``, ``surrogate-nan``.
        """
        shorter = min(display.shape[:2])
        roi = request.roi
        text = text_of(luminance(display), request.image, skipped)
        if text is not None or foreground.sum() < LEAST_FOREGROUND * (~skipped).sum():
            kept = dilate(np.zeros_like(skipped) if roi is None else roi, ROI_MARGIN * shorter)
            kept = kept if text is None else kept | text
            is_page = text is not None
            return Ground(empty_ground(display, skipped, kept, is_page=is_page), kept, PAGE if is_page else AIR)
        if roi is None and foreground.any():
            roi = salient_region(self._saliency(display), foreground)
        roi = dilate(np.zeros_like(skipped) if roi is None else roi, ROI_MARGIN * shorter)
        return Ground(free_region(foreground, roi, skipped, self._settings.min_free_area), roi)

    @property
    def _writes(self) -> bool:
        """Whether letters are placed here; the paper's method places its own."""
        return self._settings.tier == "lettered" and self._settings.mode != "paper"

    def _written(
        self, request: MarkRequest, window: AnyDisplay, display: np.ndarray, ground: Ground
    ) -> tuple[Lettering, np.ndarray]:
        """Return the lettering on a ground and its lift; none where none is placed here; raises as ``_letters``."""
        region = ground.region
        if not self._writes:
            if not region.any():
                raise MarkError("no-free-area", "no part of the image is free")
            return Lettering.none(region.shape), np.zeros(region.shape, np.float32)
        readable = region if ground.bare else region & self._readable(window, request.image)
        return self._letters(request, display, ground, readable)

    def _readable(self, window: AnyDisplay, stored: np.ndarray) -> np.ndarray:
        """Return (H, W) bool: pixels whose change the primary display shows, in every channel."""
        seen = window.readable(stored)
        return seen.all(axis=2) if seen.ndim == 3 else seen

    def _letters(
        self, request: MarkRequest, display: np.ndarray, ground: Ground, readable: np.ndarray
    ) -> tuple[Lettering, np.ndarray]:
        """Return the lettering and its lift, where it can be read; anywhere in the region where none fits there.

        Raises
        ------
        MarkError
            ``no-free-area``, ``logo-too-fine``, ``surrogate-nan``.
        """
        for free in (readable, ground.region):
            is_last = free is ground.region
            try:
                placement, lettering = self._placed(request, display, free, ground.bare)
            except MarkError as error:
                if error.code != "no-free-area" or is_last:
                    raise
                continue
            few = TOO_FEW * most_strokes(self._settings, ground.region)
            if isinstance(request.display, Curve) and not is_last and lettering.strokes.sum() < few:
                continue  # a steep curve shows next to nothing: letters begin where it begins to move
            polarity = lettering.polarity(luminance(display), placement.turning_point)
            return lettering, stroke_lift(polarity, lettering.outline, PLAIN_LIFTS if ground.bare else LIFTS)
        raise AssertionError("the loop returns or raises")

    def _placed(
        self, request: MarkRequest, display: np.ndarray, region: np.ndarray, bare: bool
    ) -> tuple[Placement, Lettering]:
        """Return placement and lettering: by slice position in a series, else the best of several keyed placements.

        Where the one by slice position leaves no room for a letter, it is the first keyed one that does; in mode
        ``generator``, which has no time for a search, and where there is no anatomy always that.

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
        fixed = request.position is not None or not self._surrogates or self._settings.mode == "generator"
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
        changes = [self._lettered(found, placement, _to_display(small)) for placement, found in fitting]
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

    def _saliency(self, display: np.ndarray) -> np.ndarray:
        """Return (H, W) saliency of a display image; without surrogates local detail stands in for it."""
        if not self._surrogates:
            return local_detail(luminance(display))
        small = resize(to_tensor(display, self._device), *working_shape(display.shape[:2], WORKING_SIDE))
        found = saliency(small, self._surrogates, self._profile.tasks)
        return resize(torch.from_numpy(found)[:, None], *display.shape[:2])[0, 0].numpy()


def most_strokes(settings: MarkSettings, region: np.ndarray) -> int:
    """Return how many pixels strokes may cover where marks may lie in ``region`` (H, W) bool."""
    return int(min(settings.max_stroke_share * region.size, MAX_REGION_SHARE * float(region.sum())))


def to_tensor(display: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return (1, C, H, W) float32 from (H, W) or (H, W, 3)."""
    planes = display[None] if display.ndim == 2 else display.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None].to(device)


def _to_display(image: torch.Tensor) -> np.ndarray:
    """Return (h, w) or (h, w, 3) float32 from (1, C, h, w)."""
    planes = image[0].cpu().numpy()
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def working_shape(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the (h, w) at which something is computed: the image's own, longest side at most ``side``."""
    scale = min(1.0, side / max(shape))
    return max(32, round(shape[0] * scale)), max(32, round(shape[1] * scale))


def nearest(length: int, wanted: int) -> np.ndarray:
    """Return the (wanted,) int indexes that resample an axis of ``length`` to its nearest neighbours."""
    return (np.arange(wanted) * 2 + 1) * length // (2 * wanted)


def shrink(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an (H, W) mask at another (h, w), nearest neighbour."""
    return mask[nearest(mask.shape[0], shape[0])][:, nearest(mask.shape[1], shape[1])]
