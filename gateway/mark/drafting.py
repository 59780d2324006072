"""One frame before its texture: checked, its free region found, its lettering placed, its limits set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gateway.config.marking import AIR_TIERS
from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.grids import WORKING_SIDE, to_tensor, working_shape
from gateway.mark.methods.method import Needs
from gateway.mark.placement.letters import Letterer
from gateway.mark.placement.words import Lettering
from gateway.mark.placement.zones import Zones, find_zones
from gateway.mark.resample import resize
from gateway.mark.settings import TEXTURE_FLOOR, MarkSettings
from gateway.mark.surrogates.consensus import Answers
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.surrogates.saliency import saliency
from gateway.mark.types import MarkRequest, ModalityProfile
from gateway.mark.visibility.budget import (
    IN_AIR,
    Canvas,
    inside_amplitude,
    outside_amplitude,
    peak_outside,
    units_outside,
)
from gateway.mark.visibility.curve import CurveMap
from gateway.mark.visibility.display import (
    AnyDisplay,
    DisplayMap,
    check_request,
    display_of,
    padding_of,
    units_of,
    untouchable_of,
    valid_range_of,
)
from gateway.mark.visibility.ground import AIR, PAGE, WORDLESS, empty_ground, text_of
from gateway.mark.visibility.region import (
    dilate,
    find_foreground,
    free_region,
    local_detail,
    luminance,
    salient_region,
)
from gateway.mark.visibility.threshold import step_limit, visibility_threshold

AIR_SHARE = 0.45
"""Strokes cover at most this share of the air: more do not read better."""
LEAST_FOREGROUND = 0.01
"""Share of what is seen below which there is no anatomy."""
PLAIN_COSTS = 1.0
"""The words over anatomy that are drawn plainly stay so many dB over the floor; the others, in which the texture is,
spend what is left: a fifth of the energy over most of the strokes misleads more than all of it in the plain ones."""
ROI_MARGIN = 1.0 / 64.0
"""Dilation of the region of interest, as a share of the shorter side."""


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
        return self.note in (AIR, PAGE)


@dataclass(frozen=True)
class Plan:
    """What is to be done with one image.

    Attributes
    ----------
    tier
        the one that it is marked in.
    ground
        where a mark may lie, letters in the air included.
    lettering
        in the air and over anatomy.
    lift
        (H, W) float32, as ``Canvas.lift``.
    zones
        None: the image shows no anatomy.
    """

    tier: str
    ground: Ground
    lettering: Lettering
    lift: np.ndarray
    zones: Zones | None = None


def _nothing(plane: np.ndarray) -> tuple[Lettering, np.ndarray]:
    """Return no lettering, and its lift."""
    return Lettering.none(plane.shape), np.zeros(plane.shape, np.float32)


def zones_of(
    request: MarkRequest, window: AnyDisplay, profile: ModalityProfile, region: np.ndarray | None = None
) -> Zones:
    """Return the zones of an image, as its mark sees them.

    Parameters
    ----------
    window
        the display that the mark works in (``display_of``).
    region
        (H, W) bool, the region of interest that is given; None: none.
    """
    deep = window.raw(request.image) if isinstance(window, DisplayMap) else window.shown(request.image)
    return find_zones(deep, padding_of(request), profile, request.hidden, region, units_of(request))


class Drafter:
    """Makes the draft of one frame.

    Parameters
    ----------
    settings
        tier, text, steps and so on.
    profile
        the frames' modality profile.
    needs
        what the method that is going to draw on them needs.
    surrogates
        the networks that find saliency and judge placements; may be empty: then local detail stands in for
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
        needs: Needs,
        surrogates: Sequence[Surrogate],
        device: torch.device,
        logo: np.ndarray | None = None,
    ) -> None:
        self._settings, self._profile, self._needs, self._surrogates = settings, profile, needs, surrogates
        self._device, self._answers = device, Answers()
        self._letterer = Letterer(settings, profile, surrogates if needs.search else (), device, logo)

    def draft(self, request: MarkRequest) -> Draft:
        """Check a request and decide where and how strongly its image may change.

        Raises
        ------
        MarkError
            ``bad-request``, ``wrong-channels``, ``image-too-small``, ``image-empty``, ``no-free-area``,
            ``surrogate-nan``, ``logo-too-fine``, ``no-air``.
        """
        check_request(request)
        skipped = untouchable_of(request)
        window = display_of(request, skipped)
        display = window.shown(request.image)
        if skipped.all():
            raise MarkError("image-empty", "all of the image is padding or hidden, and what is there is no even ground")
        foreground = find_foreground(display, skipped)
        plan = self._bare(request, window, display, foreground, skipped)
        if plan is None:
            plan = self._plan(request, window, display, foreground, skipped)
        canvas = self._canvas(request, window, display, plan)
        roi = plan.ground.roi if canvas.seen is None else plan.ground.roi & canvas.seen
        floor = self._settings.floor_of(plan.tier)
        untouchable = plan.ground.roi | skipped
        note = plan.ground.note
        return Draft(
            request, canvas, foreground, roi, untouchable, plan.tier, floor, plan.zones, note, dict(self._answers)
        )

    def _canvas(self, request: MarkRequest, window: AnyDisplay, display: np.ndarray, plan: Plan) -> Canvas:
        """Return the image with the limits of its mark."""
        ground, zones, strokes = plan.ground, plan.zones, plan.lettering.strokes
        seen = None if request.hidden is None else ~request.hidden
        air = None if zones is None else zones.air
        raised = None
        if ground.bare or isinstance(window, CurveMap) or (air is not None and (strokes & air).any()):
            raised = ground.region & ~self._readable(window, request.image)
            if self._needs.letters:  # else the method places strokes of its own, anywhere in the region
                raised &= strokes
            if air is not None and not isinstance(window, CurveMap):
                raised &= air
        # where the window shows nothing, the noise that hides a change is that of the values beyond it
        shades = window.raw(request.image) if ground.bare and isinstance(window, DisplayMap) else display
        threshold = visibility_threshold(shades, self._profile.noise_factor)
        canvas = Canvas(
            stored=request.image.astype(np.int32),
            display=window,
            valid=valid_range_of(request),
            reserved=request.reserved,
            region=ground.region,
            strokes=strokes,
            threshold=step_limit(threshold, window.unit),
            outside=np.zeros(ground.region.shape, np.float32),
            inside=0.0,
            lift=plan.lift,
            units=units_outside(self._profile, window, request.slope),
            raised=raised,
            seen=seen,
            is_bare=ground.bare,
            air=air,
            inside_air=0.0 if air is None else self._profile.air_peak,
            counted=None if zones is None or not zones.air.any() else zones.anatomy,
        )
        floor = self._settings.floor_of(plan.tier) + canvas.penalty
        limit = max(self._settings.floor_of(plan.tier), TEXTURE_FLOOR) + canvas.penalty
        if not ground.bare or plan.tier == "discreet":  # the empty ground bears letters and nothing else
            peak = peak_outside(self._profile, window, request.slope)
            free = ground.region & ~strokes if air is None else ground.region & ~strokes & ~air
            canvas = replace(canvas, outside=outside_amplitude(threshold, free, peak, limit))
        over, peak = strokes & ~canvas.in_air, self._profile.stroke_peak
        plain = over & plan.lettering.plain
        if ground.bare or not plain.any() or not (over & ~plain).any():
            return replace(canvas, inside=inside_amplitude(over, canvas.lift, canvas.outside, floor, peak))
        first = inside_amplitude(plain, canvas.lift, canvas.outside, floor + PLAIN_COSTS, peak)
        spent = canvas.outside + np.where(plain, np.abs(canvas.lift) * np.float32(first), np.float32(0.0))
        rest = inside_amplitude(over & ~plain, canvas.lift, spent, floor, peak)
        return replace(canvas, inside=rest, plain=plain, inside_plain=first)

    def _bare(
        self,
        request: MarkRequest,
        window: AnyDisplay,
        display: np.ndarray,
        foreground: np.ndarray,
        skipped: np.ndarray,
    ) -> Plan | None:
        """Return the plan of an image without anatomy (air alone, a page of text), None for any other.

        Raises
        ------
        MarkError
            ``no-free-area``.
        """
        roi = np.zeros_like(skipped) if request.roi is None else request.roi
        text = text_of(luminance(display), request.image, skipped)
        if text is None and np.count_nonzero(foreground) >= LEAST_FOREGROUND * np.count_nonzero(~skipped):
            return None
        kept = dilate(roi, ROI_MARGIN * min(display.shape[:2]))
        kept = kept if text is None else kept | text
        ground = empty_ground(display, skipped, kept, is_page=text is not None)
        return self._beside(request, window, display, Ground(ground, kept, AIR if text is None else PAGE))

    def _beside(self, request: MarkRequest, window: AnyDisplay, display: np.ndarray, ground: Ground) -> Plan:
        """Return the plan of letters on an empty ground; raises ``no-free-area``, ``logo-too-fine``."""
        tier = self._settings.tier
        if tier == "discreet" or not self._needs.letters:
            if not ground.region.any():
                raise MarkError("no-free-area", "no part of the image is free")
            return Plan(tier, ground, *_nothing(ground.region))
        return Plan(tier, ground, *self._letterer.write(request, display, ground.region, ground.region, bare=True))

    def _plan(
        self,
        request: MarkRequest,
        window: AnyDisplay,
        display: np.ndarray,
        foreground: np.ndarray,
        skipped: np.ndarray,
    ) -> Plan:
        """Return the plan of an image of anatomy.

        Raises
        ------
        MarkError
            ``no-air``, ``no-free-area``, ``surrogate-nan``, ``logo-too-fine``.
        """
        margin = ROI_MARGIN * min(display.shape[:2])
        given = None if request.roi is None else dilate(request.roi, margin)
        zones = zones_of(request, window, self._profile, given)
        letters, lift = self._in_air(request, display, zones)
        tier = self._tier(bool(letters.strokes.any()))
        if tier == "air":
            kept = np.zeros_like(skipped) if given is None else given
            return Plan(tier, Ground(zones.air, kept), letters, lift, zones)
        ground, reason = None, None
        try:
            ground = self._ground(display, foreground & zones.anatomy, skipped, given, margin)
            if given is None:  # what saliency found ends where the anatomy ends
                ground = replace(ground, roi=ground.roi & ~zones.air)
            if tier == "lettered" and self._needs.letters:
                readable = ground.region & self._readable(window, request.image)
                words, over = self._letterer.write(request, display, ground.region, readable, bare=False)
                letters, lift = letters.joined(words), lift + over
        except MarkError as error:
            if error.code != "no-free-area":
                raise
            reason = error
        if tier == "lettered" and self._needs.letters and not letters.strokes.any():  # no whole word fits
            if request.roi is None:
                kept = dilate(foreground, margin)  # the anatomy is too small for one: it stays as it is
                try:
                    beside = Ground(empty_ground(display, skipped, kept), kept & ~skipped, AIR)
                    return self._beside(request, window, display, beside)
                except MarkError as error:
                    if error.code != "no-free-area":
                        raise
            if ground is not None:
                ground = replace(ground, note=WORDLESS)  # nothing visible where no word fits
        if ground is None:
            if not letters.strokes.any():
                raise reason or MarkError("no-free-area", "no part of the image is free")
            ground = Ground(np.zeros_like(skipped), np.zeros_like(skipped) if given is None else given)
        region = ground.region | zones.air if letters.strokes.any() else ground.region
        zones = replace(zones, region=ground.roi & zones.anatomy)
        return Plan(tier, replace(ground, region=region), letters, lift, zones)

    def _in_air(self, request: MarkRequest, display: np.ndarray, zones: Zones) -> tuple[Lettering, np.ndarray]:
        """Return the letters in the air and their lift; none where the tier has none or nothing fits."""
        if self._settings.tier == "discreet" or not self._needs.letters or not zones.air.any():
            return _nothing(zones.air)
        letters = self._letterer.in_air(request, zones.air, int(AIR_SHARE * np.count_nonzero(zones.air)))
        if not letters.strokes.any():
            return _nothing(zones.air)
        return letters, letters.lift(luminance(display), IN_AIR)

    def _tier(self, has_letters: bool) -> str:
        """Return the tier of an image with or without letters in its air; raises ``no-air`` where it is to be held."""
        tier = self._settings.tier
        if has_letters or tier not in AIR_TIERS:
            return tier
        instead = self._settings.without_air or self._profile.without_air
        if instead == "hold":
            raise MarkError(
                "no-air", f"no whole word fits into the air of the image; the tier is {tier!r}", "see without_air"
            )
        return instead

    def _ground(
        self, display: np.ndarray, foreground: np.ndarray, skipped: np.ndarray, given: np.ndarray | None, margin: float
    ) -> Ground:
        """Return where a mark may lie on the anatomy: all but the region of interest, given (dilated) or found.

        Raises
        ------
        MarkError
            ``no-free-area``, ``image-empty``, ``surrogate-nan``.
        """
        roi = given
        if roi is None:
            roi = np.zeros_like(skipped)
            if foreground.any():
                salient = salient_region(self._saliency(display), foreground, self._profile.roi_share)
                roi = dilate(salient, margin)
        return Ground(free_region(foreground, roi, skipped, self._settings.min_free_area), roi)

    def _readable(self, window: AnyDisplay, stored: np.ndarray) -> np.ndarray:
        """Return (H, W) bool: pixels whose change the primary display shows, in every channel."""
        seen = window.readable(stored)
        return np.asarray(seen.all(axis=2) if seen.ndim == 3 else seen)

    def _saliency(self, display: np.ndarray) -> np.ndarray:
        """Return (H, W) saliency of a display image; without surrogates local detail stands in for it."""
        if not self._surrogates:
            return local_detail(luminance(display))
        small = resize(to_tensor(display, self._device), *working_shape(display.shape[:2], WORKING_SIDE))
        found = saliency(small, self._surrogates, self._profile.tasks, self._answers)
        return resize(torch.from_numpy(found)[:, None], *display.shape[:2])[0, 0].numpy()
