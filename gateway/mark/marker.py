"""``Marker``: frames in, marked frames out, one failure never touching the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.device import deterministic, resolve_device
from gateway.mark.draft import Draft
from gateway.mark.drafting import Drafter
from gateway.mark.grids import to_tensor, working_shape
from gateway.mark.methods.generator_packs import GeneratorPack
from gateway.mark.methods.method import Batch, Method, Setup
from gateway.mark.methods.registry import METHODS
from gateway.mark.placement.logo import load_logo
from gateway.mark.profiles import load_profiles
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.half import halved
from gateway.mark.surrogates.packs import Surrogate, SurrogatePack, load_packs, select_packs
from gateway.mark.surrogates.strength import misled_share
from gateway.mark.threads import FrameThreads
from gateway.mark.types import MarkedImage, MarkRequest, ModalityProfile
from gateway.mark.visibility.display import check_request, padding_of
from gateway.mark.visibility.ground import EMPTY, is_blank, is_empty, left_as_it_is
from gateway.mark.visibility.quality import measure
from gateway.mark.visibility.shutter import Place, cut_out, put_back

GPU_BATCH = 32
"""Images computed together on CUDA; batches are always filled up to it, so the batch size cannot change a result."""

Given = ParamSpec("Given")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


class Marker:
    """Marks frames with fixed settings; loads each surrogate pack once.

    Parameters
    ----------
    settings
        tier, steps, device and so on.
    packs
        surrogate packs to choose from; None: the installed ones.
    profiles
        modality profiles by name; None: the installed ones, read when ``profile`` is given by name.
    generators
        generator packs to choose from in mode ``generator``; None: the installed ones.

    Raises
    ------
    ConfigError
        ``no-device`` when the settings ask for a device that is not there; ``logo-unreadable``,
        ``logo-too-large``, ``logo-empty`` for a logo file that cannot be drawn.
    """

    def __init__(
        self,
        settings: MarkSettings,
        packs: Sequence[SurrogatePack] | None = None,
        profiles: Mapping[str, ModalityProfile] | None = None,
        generators: Sequence[GeneratorPack] | None = None,
    ) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._logo = None if settings.logo is None else load_logo(settings.logo)
        on_cpu = self.device.type == "cpu"
        self._threads = FrameThreads() if on_cpu else None
        self._parallel_map = FrameThreads().map if on_cpu else map  # over parts of one frame
        self._batch = 1 if on_cpu else GPU_BATCH
        self._packs = list(load_packs().values()) if packs is None else list(packs)
        self._profiles = profiles
        self._loaded: dict[str, tuple[Surrogate, ...]] = {}
        chosen = METHODS[settings.mode]
        self._needs = chosen.needs(settings)
        setup = Setup(settings, self.device, self._logo, generators, self._parallel_map)
        self._method: Method[Any] = chosen(setup)

    @property
    def surrogates(self) -> tuple[Surrogate, ...]:
        """The networks that were read so far: those that its marks are made against."""
        return tuple(member for members in self._loaded.values() for member in members)

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return the warnings of the packs that this profile would use; to be logged at start."""
        names = self.settings.surrogates or [name for names in profile.packs.values() for name in names]
        found = [pack.licence_warning for pack in self._packs if pack.name in names and pack.licence_warning]
        return found + self._method.licence_warnings(profile)

    def mark(
        self,
        requests: Sequence[MarkRequest],
        profile: ModalityProfile | str,
        progress: Progress | None = None,
    ) -> list[MarkedImage | MarkError]:
        """Return one result per request, in order; what cannot be marked is returned as its ``MarkError``.

        Parameters
        ----------
        requests
            frames of one kind, any sizes.
        profile
            their profile, or its name.
        progress
            called after every frame.

        On CUDA textures of frames of one shape are computed together; on CPU each frame has a core of its own. Either
        way the same request gives the same stored values whatever else is in the batch (on one device with one set of
        libraries).

        Error codes: ``bad-request``, ``wrong-channels``, ``image-too-small``, ``image-empty``, ``no-free-area``,
        ``no-surrogate``, ``weights-corrupt``, ``surrogate-nan``, ``over-budget``, ``device-failed``, ``logo-too-fine``,
        ``no-generator``, ``generator-nan``, ``self-check-failed``.

        Raises
        ------
        ConfigError
            ``no-profile`` when ``profile`` is a name that is not installed.
        """
        kind = self._profile(profile)
        whole, (requests, places) = requests, _cut_out(requests)
        results: list[MarkedImage | MarkError | None] = [None] * len(requests)
        done = 0
        with deterministic():
            groups = self._groups(requests)
            for group, found in zip(groups, self._results(requests, groups, kind), strict=True):
                for index, result in zip(group, found, strict=True):
                    if self._may_stay(result, whole[index]):
                        result = left_as_it_is(whole[index], EMPTY)
                    elif isinstance(result, MarkedImage):
                        result = put_back(result, whole[index], places[index])
                    results[index] = result
                    done += 1
                    if progress is not None:
                        progress(done, len(requests))
        return results  # type: ignore[return-value]  # every place is filled: groups cover all indexes

    def region_of_interest(self, request: MarkRequest, profile: ModalityProfile) -> np.ndarray | None:
        """Return where a mark of this image leaves the anatomy as it is; nothing is drawn.

        Returns
        -------
        (H, W) bool; None where it has none: in the tier ``air``, which leaves all of the anatomy, and without anatomy.

        Raises
        ------
        MarkError
            as ``mark`` returns them.
        """
        draft = self._draft(request, profile, is_searched=False)  # no `deterministic`: marks may be at work beside it
        zones = draft.zones if isinstance(draft, Draft) else None
        return None if zones is None or not zones.region.any() else zones.region

    def _may_stay(self, result: MarkedImage | MarkError, request: MarkRequest) -> bool:
        """Return whether an image may stay unmarked: no invisible change survives rounding, and none of it is anatomy.

        Visible letters are owed to every image that can bear them, hence only in the tier that has none.
        """
        is_lost = isinstance(result, MarkError) and result.code == "over-budget"
        return is_lost and self.settings.tier == "discreet" and is_empty(request)

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

    def _results(
        self, requests: Sequence[MarkRequest], groups: Sequence[Sequence[int]], profile: ModalityProfile
    ) -> Iterator[list[MarkedImage | MarkError]]:
        """Yield the results of each group, in order."""

        def mark(group: Sequence[int]) -> list[MarkedImage | MarkError]:
            return self._mark_group([requests[index] for index in group], profile)

        for channels in {1 if request.image.ndim == 2 else 3 for request in requests} & set(profile.channels):
            if self._needs.networks:
                _attempt(self._surrogates, profile, channels)  # loaded once, before threads share them
            _attempt(self._method.load, profile, channels)
        return map(mark, groups) if self._threads is None else self._threads.map(mark, groups)

    def _mark_group(self, requests: Sequence[MarkRequest], profile: ModalityProfile) -> list[MarkedImage | MarkError]:
        """Mark frames of one shape: drafts and roundings one by one, drawings as one batch."""
        drafts = [_attempt(self._draft, request, profile) for request in requests]
        drawings = iter(self._drawn([draft for draft in drafts if isinstance(draft, Draft)], profile))
        results: list[MarkedImage | MarkError] = []
        for draft in drafts:
            if not isinstance(draft, Draft):
                results.append(draft)
                continue
            drawing = next(drawings)
            is_lost = isinstance(drawing, MarkError)
            results.append(drawing if is_lost else _attempt(self._finish, draft, drawing, profile))
        return results

    def _surrogates(self, profile: ModalityProfile, channels: int) -> tuple[Surrogate, ...]:
        """Return the networks for this profile and channel count that have a head for one of its tasks."""
        names = self.settings.surrogates or profile.packs[channels]
        members: list[Surrogate] = []
        for pack in select_packs(self._packs, names, channels):
            if pack.name not in self._loaded:
                self._loaded[pack.name] = tuple(halved(one, self.device) for one in pack.load(self.device))
            members += self._loaded[pack.name]
        fitting = tuple(member for member in members if member.asked(profile.tasks))
        if not fitting:
            raise MarkError("no-surrogate", f"no surrogate knows a task of profile {profile.name}")
        return fitting

    def _draft(
        self, request: MarkRequest, profile: ModalityProfile, *, is_searched: bool = True
    ) -> Draft | MarkedImage:
        """Return a request's draft, or the result of a blank image; raises ``MarkError``.

        is_searched: for the best placement of the letters, where the method wants that; else the first one serves.
        """
        check_request(request)
        if is_blank(request, padding_of(request)):
            return left_as_it_is(request)
        channels = 3 if request.image.ndim == 3 else 1
        if channels not in profile.packs:
            raise MarkError("wrong-channels", f"profile {profile.name} does not take images of {channels} channel(s)")
        number = self._needs.draft_networks
        surrogates = () if number == 0 else self._surrogates(profile, channels)[:number]
        self._method.load(profile, channels)
        needs = self._needs if is_searched else replace(self._needs, search=False)
        return Drafter(self.settings, profile, needs, surrogates, self.device, self._logo).draft(request)

    def _drawn(self, drafts: Sequence[Draft], profile: ModalityProfile) -> list[Any]:
        """Return a drawing per draft, or the ``MarkError`` that says why not; halves the batch when memory is full."""
        if not drafts:
            return []
        size = self._batch
        channels = 3 if drafts[0].request.image.ndim == 3 else 1
        surrogates = self._surrogates(profile, channels) if self._needs.draws_with_networks else ()
        while True:
            try:
                parts = [drafts[i : i + size] for i in range(0, len(drafts), size)]
                batches = [Batch(part, size, profile, surrogates, self.device) for part in parts]
                return [one for batch in batches for one in self._method.draw(batch)]
            except MarkError as error:
                if len(drafts) == 1:
                    return [error]
                return [one for draft in drafts for one in self._drawn([draft], profile)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    return [MarkError("device-failed", f"out of memory on {self.device}: {error}")] * len(drafts)
                size //= 2

    def _finish(self, draft: Draft, drawing: Any, profile: ModalityProfile) -> MarkedImage:
        """Round a drawing into stored values within the budget, and measure."""
        request, done = draft.request, self._method.finish(draft, drawing, profile)
        canvas, marked = done.canvas, done.stored
        windows = dict(request.other_windows)
        if canvas.stored.ndim == 2:
            windows = {**canvas.display.within(profile.relative_windows), **windows}
        image = marked.astype(request.image.dtype)
        quality = measure(
            canvas,
            image,
            draft.untouchable,
            windows,
            done.cut,
            draft.foreground,
            request.slope,
            profile.unit,
        )
        if quality.roi_difference:  # never: what a mark may not touch has no amplitude
            raise MarkError("self-check-failed", "the mark changed pixels of the region of interest or of padding")
        residual = (marked - canvas.stored).astype(np.int32)
        strokes, region = canvas.strokes, canvas.region
        zones = draft.zones
        return MarkedImage(
            image,
            residual,
            strokes,
            region,
            draft.roi,
            quality,
            done.queries,
            draft.note,
            draft.tier,
            None if zones is None else zones.air,
            None if zones is None else zones.anatomy,
            texture=done.texture,
            has_begun=done.has_begun,
            misled_share=None if done.has_begun else self._misled(draft, image, profile),
        )

    def _misled(self, draft: Draft, image: np.ndarray, profile: ModalityProfile) -> float | None:
        """Return the share of the networks that the marked image misleads; None where the method asks none."""
        if not self._needs.draws_with_networks:
            return None
        canvas = draft.canvas
        shape = working_shape(canvas.stored.shape[:2], profile.texture_side)
        pair = (canvas.shown, canvas.display.shown(image))
        clean, marked = (resize(to_tensor(one, self.device), *shape).clamp(0.0, 1.0) for one in pair)
        surrogates = self._surrogates(profile, clean.shape[1])
        return misled_share(clean, marked, surrogates, profile.tasks, draft.answers)


def _cut_out(requests: Sequence[MarkRequest]) -> tuple[list[MarkRequest], list[Place | None]]:
    """Return the requests for what is seen of the images, and where it lies."""
    pairs = [cut_out(request) for request in requests]
    return [request for request, _ in pairs], [place for _, place in pairs]


def _attempt(function: Callable[Given, Result], *arguments: Given.args, **named: Given.kwargs) -> Result | MarkError:
    """Return the function's result, or the ``MarkError`` that it raised."""
    try:
        return function(*arguments, **named)
    except MarkError as error:
        return error
