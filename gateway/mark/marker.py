"""``Marker``: frames in, marked frames out, one failure never touching the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.budget import (
    Canvas,
    fit_to_floor,
    inside_amplitude,
    outside_amplitude,
    visibility_threshold,
)
from gateway.mark.device import deterministic, resolve_device
from gateway.mark.display import check_request, display_of, padding_of, valid_range_of
from gateway.mark.lettering import render_strokes
from gateway.mark.optimise import optimise_texture
from gateway.mark.packs import Surrogate, SurrogatePack, load_packs, select_packs
from gateway.mark.profiles import load_profiles
from gateway.mark.quality import measure
from gateway.mark.randomness import keyed
from gateway.mark.region import dilate, find_foreground, free_region, local_detail, luminance, salient_region
from gateway.mark.resample import resize
from gateway.mark.saliency import saliency
from gateway.mark.settings import PSNR_FLOOR, MarkSettings
from gateway.mark.types import MarkedImage, MarkRequest, ModalityProfile

WORKING_SIDE = 256
"""Longest side (pixels) at which textures are optimised; larger images get the texture in larger blocks."""
GPU_BATCH = 8
"""Images computed together on CUDA; batches are always filled up to it, so the batch size cannot change a result."""
MAX_REGION_SHARE = 0.4
"""Strokes cover at most this share of the free region, so that what lies under them can be read."""
LEAST_FILL = 0.25
"""Smaller letters are tried where the usual ones fill less than this share of what strokes may cover."""
ROI_MARGIN = 1.0 / 64.0
"""Dilation of the region of interest, as a share of the shorter side."""

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


@dataclass(frozen=True)
class _Draft:
    """One frame on its way: all that is known before the texture."""

    request: MarkRequest
    canvas: Canvas
    roi: np.ndarray
    untouchable: np.ndarray


class Marker:
    """Marks frames with fixed settings; loads each surrogate pack once.

    Args:
        settings: tier, steps, device and so on.
        packs: surrogate packs to choose from; None: the installed ones.
        profiles: modality profiles by name; None: the installed ones, read when ``profile`` is given by name.

    Raises:
        ConfigError: ``no-device`` when the settings ask for a device that is not there.
    """

    def __init__(
        self,
        settings: MarkSettings,
        packs: Sequence[SurrogatePack] | None = None,
        profiles: Mapping[str, ModalityProfile] | None = None,
    ) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._batch = 1 if self.device.type == "cpu" else GPU_BATCH
        self._packs = list(load_packs().values()) if packs is None else list(packs)
        self._profiles = profiles
        self._loaded: dict[str, tuple[Surrogate, ...]] = {}

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return the warnings of the packs that this profile would use; to be logged at start."""
        names = self.settings.surrogates or [name for names in profile.packs.values() for name in names]
        return [pack.licence_warning for pack in self._packs if pack.name in names and pack.licence_warning]

    def mark(
        self,
        requests: Sequence[MarkRequest],
        profile: ModalityProfile | str,
        progress: Progress | None = None,
    ) -> list[MarkedImage | MarkError]:
        """Return one result per request, in order; what cannot be marked is returned as its ``MarkError``.

        Args:
            requests: frames of one kind, any sizes.
            profile: their profile, or its name.
            progress: called after every frame.

        Frames of one shape are computed together on CUDA, one by one on CPU; either way the same request gives the
        same stored values whatever else is in the batch (on one device with one set of libraries).

        Error codes: ``bad-request``, ``wrong-channels``, ``image-too-small``, ``image-empty``, ``no-free-area``,
        ``no-surrogate``, ``weights-corrupt``, ``surrogate-nan``, ``over-budget``, ``device-failed``.

        Raises:
            ConfigError: ``no-profile`` when ``profile`` is a name that is not installed.
        """
        kind = self._profile(profile)
        results: list[MarkedImage | MarkError | None] = [None] * len(requests)
        done = 0
        with deterministic():
            for group in self._groups(requests):
                for index, result in zip(group, self._mark_group([requests[i] for i in group], kind), strict=True):
                    results[index] = result
                    done += 1
                    if progress is not None:
                        progress(done, len(requests))
        return results  # type: ignore[return-value]  # every place is filled: groups cover all indexes

    def _profile(self, profile: ModalityProfile | str) -> ModalityProfile:
        if isinstance(profile, ModalityProfile):
            return profile
        offered = load_profiles() if self._profiles is None else self._profiles
        if profile not in offered:
            names = ", ".join(sorted(offered))
            raise ConfigError("no-profile", f"no modality profile {profile!r}", f"there are {names}")
        return offered[profile]

    def _groups(self, requests: Sequence[MarkRequest]) -> list[list[int]]:
        """Return indexes to be computed together: frames of one shape, at most a batch of them (1 on CPU)."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, request in enumerate(requests):
            shapes.setdefault(request.image.shape, []).append(index)
        batch = self._batch
        return [same[i : i + batch] for same in shapes.values() for i in range(0, len(same), batch)]

    def _mark_group(self, requests: Sequence[MarkRequest], profile: ModalityProfile) -> list[MarkedImage | MarkError]:
        """Mark frames of one shape: drafts and roundings one by one, textures as one batch."""
        drafts = [_attempt(self._draft, request, profile) for request in requests]
        good = [draft for draft in drafts if isinstance(draft, _Draft)]
        textures = iter(self._textures(good, profile)) if good else iter(())
        results: list[MarkedImage | MarkError] = []
        for draft in drafts:
            texture = draft if isinstance(draft, MarkError) else next(textures)
            results.append(
                texture if isinstance(texture, MarkError) else _attempt(self._finish, draft, texture, profile)
            )
        return results

    def _surrogates(self, profile: ModalityProfile, channels: int) -> tuple[Surrogate, ...]:
        """Return the networks for this profile and channel count that have a head for one of its tasks."""
        names = self.settings.surrogates or profile.packs[channels]
        members: list[Surrogate] = []
        for pack in select_packs(self._packs, names, channels):
            if pack.name not in self._loaded:
                self._loaded[pack.name] = pack.load(self.device)
            members += self._loaded[pack.name]
        fitting = tuple(member for member in members if member.asked(profile.tasks))
        if not fitting:
            raise MarkError("no-surrogate", f"no surrogate knows a task of profile {profile.name}")
        return fitting

    def _draft(self, request: MarkRequest, profile: ModalityProfile) -> _Draft:
        """Check a request and decide where and how strongly its image may change."""
        check_request(request)
        channels = 1 if request.image.ndim == 2 else 3
        if channels not in profile.packs:
            raise MarkError("wrong-channels", f"profile {profile.name} does not take images of {channels} channel(s)")
        padding = padding_of(request)
        window = display_of(request, padding)
        display = window.shown(request.image)
        foreground = find_foreground(display, padding)
        shorter = min(display.shape[:2])
        roi = request.roi
        if roi is None and foreground.any():
            roi = salient_region(self._saliency(display, profile, channels), foreground)
        roi = dilate(np.zeros_like(padding) if roi is None else roi, ROI_MARGIN * shorter)
        region = free_region(foreground, roi, padding, self.settings.min_free_area)
        threshold = visibility_threshold(display, profile.noise_factor)
        strokes = np.zeros_like(region)
        if self.settings.tier == "lettered":
            strokes = self._strokes(request, region, profile.letter_height * shorter)
        floor = self.settings.psnr_floor
        outside = outside_amplitude(threshold, region & ~strokes, profile.peak, max(floor, PSNR_FLOOR["discreet"]))
        canvas = Canvas(
            stored=request.image.astype(np.int32),
            display=window,
            valid=valid_range_of(request),
            padding_value=request.padding_value,
            region=region,
            strokes=strokes,
            threshold=threshold,
            outside=outside,
            inside=inside_amplitude(strokes, outside, floor, profile.stroke_peak),
            polarity=1 if float(luminance(display)[region].mean()) < 0.5 else -1,
        )
        return _Draft(request, canvas, roi, roi | padding)

    def _strokes(self, request: MarkRequest, region: np.ndarray, height: float) -> np.ndarray:
        """Return (H, W) bool lettering in the region; smaller letters where hardly any of the usual ones fit.

        Raises:
            MarkError: ``no-free-area`` when not even small letters fit.
        """
        most = int(min(self.settings.max_stroke_share * region.size, MAX_REGION_SHARE * float(region.sum())))
        best = np.zeros_like(region)
        for factor in (1.0, 0.65, 0.4):
            size = max(7.0, factor * height)
            strokes = render_strokes(self.settings.text, request.key, request.position, size, region, most)
            if strokes.sum() > best.sum():
                best = strokes
            if best.sum() >= LEAST_FILL * most:
                return best
        if not best.any():
            raise MarkError("no-free-area", "no letter of the lettering fits into the free area")
        return best

    def _saliency(self, display: np.ndarray, profile: ModalityProfile, channels: int) -> np.ndarray:
        """Return (H, W) saliency of a display image; without optimisation (0 steps) local detail stands in for it."""
        if self.settings.steps == 0:
            return local_detail(luminance(display))
        clean = _to_tensor(display, self.device)
        small = resize(clean, *_working_shape(display.shape[:2]))
        found = saliency(small, self._surrogates(profile, channels), profile.tasks)
        return resize(torch.from_numpy(found)[:, None], *display.shape[:2])[0, 0].numpy()

    def _textures(self, drafts: Sequence[_Draft], profile: ModalityProfile) -> list[np.ndarray | MarkError]:
        """Return a texture per draft, or why there is none; halves the batch when the device's memory is full."""
        size = self._batch
        while True:
            try:
                parts = [drafts[i : i + size] for i in range(0, len(drafts), size)]
                return [one for part in parts for one in self._texture_batch(part, profile, size)]
            except MarkError as error:
                if len(drafts) == 1:
                    return [error]
                return [one for draft in drafts for one in self._textures([draft], profile)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    return [MarkError("device-failed", f"out of memory on {self.device}: {error}")] * len(drafts)
                size //= 2

    def _texture_batch(self, drafts: Sequence[_Draft], profile: ModalityProfile, size: int) -> list[np.ndarray]:
        """Return the textures of at most ``size`` drafts of one shape, computed as a batch of exactly ``size``."""
        filled = [*drafts, *[drafts[-1]] * (size - len(drafts))]
        height, width = drafts[0].canvas.stored.shape[:2]
        shape = _working_shape((height, width))

        def batch(arrays: Sequence[np.ndarray]) -> torch.Tensor:
            return torch.cat([resize(_to_tensor(array, self.device), *shape) for array in arrays])

        clean = batch([draft.canvas.display.shown(draft.canvas.stored) for draft in filled])
        texture = optimise_texture(
            clean,
            batch([draft.canvas.amplitude for draft in filled]),
            batch([draft.canvas.offset for draft in filled]),
            self._surrogates(profile, clean.shape[1]) if self.settings.steps else (),
            profile.tasks,
            [keyed(draft.request.key, "texture", draft.request.position) for draft in filled],
            self.settings.steps,
        )
        # Nearest neighbour: blocks keep their full amplitude, and a classifier's resize gives the texture back.
        rows = (np.arange(height) * 2 + 1) * shape[0] // (2 * height)
        columns = (np.arange(width) * 2 + 1) * shape[1] // (2 * width)
        whole = texture.detach().cpu().numpy()[:, :, rows][:, :, :, columns]
        planes = [one[0] if one.shape[0] == 1 else one.transpose(1, 2, 0) for one in whole[: len(drafts)]]
        return [np.ascontiguousarray(plane) for plane in planes]

    def _finish(self, draft: _Draft, texture: np.ndarray, profile: ModalityProfile) -> MarkedImage:
        """Round a texture into stored values within the budget, and measure."""
        canvas, request = draft.canvas, draft.request
        marked, cut = fit_to_floor(canvas, texture, self.settings.psnr_floor, profile.stroke_peak)
        quality = measure(canvas, marked, draft.untouchable, request.other_windows, cut)
        residual = (marked - canvas.stored).astype(np.int32)
        image = marked.astype(request.image.dtype)
        return MarkedImage(image, residual, canvas.strokes, canvas.region, draft.roi, quality)


def _attempt(function: Callable[..., object], *arguments: object) -> object:
    """Return the function's result, or the ``MarkError`` that it raised."""
    try:
        return function(*arguments)
    except MarkError as error:
        return error


def _to_tensor(display: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return (1, C, H, W) float32 from (H, W) or (H, W, 3)."""
    planes = display[None] if display.ndim == 2 else display.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None].to(device)


def _working_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the (h, w) at which a texture is optimised: the image's own, longest side at most ``WORKING_SIDE``."""
    scale = min(1.0, WORKING_SIDE / max(shape))
    return max(32, round(shape[0] * scale)), max(32, round(shape[1] * scale))
