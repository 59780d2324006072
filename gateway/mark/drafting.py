"""One frame before its texture: checked, its free region found, its lettering placed, its limits set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.grids import WORKING_SIDE, to_tensor, working_shape
from gateway.mark.methods.method import Needs
from gateway.mark.placement.lettering import Lettering
from gateway.mark.placement.letters import Letterer
from gateway.mark.resample import resize
from gateway.mark.settings import PSNR_FLOOR, MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.surrogates.saliency import saliency
from gateway.mark.types import MarkRequest, ModalityProfile
from gateway.mark.visibility.budget import (
    LIFTS,
    PLAIN_LIFTS,
    Canvas,
    inside_amplitude,
    outside_amplitude,
    peak_outside,
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
)

LEAST_FOREGROUND = 0.01
"""Share of what is seen below which there is no anatomy."""
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
        return self.note != ""


class Drafter:
    """Makes drafts of frames of one profile.

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
        self._device = device
        self._letterer = Letterer(settings, profile, surrogates if needs.search else (), device, logo)

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
                if error.code == "no-free-area" and reason is not None:
                    raise reason from None
                raise
        lettering, lift = marked
        strokes, region = lettering.strokes, ground.region
        raised = None
        if ground.bare or isinstance(window, CurveMap):
            raised = region & ~self._readable(window, request.image)
            if self._needs.letters:  # else the method places strokes of its own, anywhere in the region
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
        """Whether letters are placed here."""
        return self._settings.tier == "lettered" and self._needs.letters

    def _written(
        self, request: MarkRequest, window: AnyDisplay, display: np.ndarray, ground: Ground
    ) -> tuple[Lettering, np.ndarray]:
        """Return the lettering on a ground and its lift, none where none is placed; raises as ``Letterer.write``."""
        region = ground.region
        if not self._writes:
            if not region.any():
                raise MarkError("no-free-area", "no part of the image is free")
            return Lettering.none(region.shape), np.zeros(region.shape, np.float32)
        readable = region if ground.bare else region & self._readable(window, request.image)
        return self._letterer.write(request, display, region, readable, bare=ground.bare)

    def _readable(self, window: AnyDisplay, stored: np.ndarray) -> np.ndarray:
        """Return (H, W) bool: pixels whose change the primary display shows, in every channel."""
        seen = window.readable(stored)
        return np.asarray(seen.all(axis=2) if seen.ndim == 3 else seen)

    def _saliency(self, display: np.ndarray) -> np.ndarray:
        """Return (H, W) saliency of a display image; without surrogates local detail stands in for it."""
        if not self._surrogates:
            return local_detail(luminance(display))
        small = resize(to_tensor(display, self._device), *working_shape(display.shape[:2], WORKING_SIDE))
        found = saliency(small, self._surrogates, self._profile.tasks)
        return resize(torch.from_numpy(found)[:, None], *display.shape[:2])[0, 0].numpy()
