"""``Marker``: frames in, marked frames out, one failure never touching the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.device import deterministic, resolve_device
from gateway.mark.drafting import Draft, Drafter
from gateway.mark.grids import nearest, to_tensor, working_shape
from gateway.mark.methods.flat import text_ink
from gateway.mark.methods.generator import generate_texture
from gateway.mark.methods.generator_packs import GeneratorLoader, GeneratorPack, load_generator_packs
from gateway.mark.methods.paper import FlatMark, fit_flat_mark, search_flat_marks
from gateway.mark.methods.strong import first_direction, optimise_texture
from gateway.mark.placement.letters import most_strokes
from gateway.mark.placement.logo import load_logo
from gateway.mark.profiles import load_profiles
from gateway.mark.randomness import keyed
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.packs import Surrogate, SurrogatePack, load_packs, select_packs
from gateway.mark.threads import FrameThreads
from gateway.mark.types import MarkedImage, MarkRequest, ModalityProfile
from gateway.mark.visibility.budget import fit_to_floor
from gateway.mark.visibility.chroma import limit_chroma
from gateway.mark.visibility.display import check_request, padding_of
from gateway.mark.visibility.ground import is_blank, left_as_it_is
from gateway.mark.visibility.quality import measure
from gateway.mark.visibility.shutter import Place, cut_out, put_back

GPU_BATCH = 32
"""Images computed together on CUDA; batches are always filled up to it, so the batch size cannot change a result."""

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
        self._generators: GeneratorLoader | None = None
        if settings.mode == "generator":
            offered = load_generator_packs().values() if generators is None else generators
            self._generators = GeneratorLoader(offered, settings.generator, self.device)

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return the warnings of the packs that this profile would use; to be logged at start."""
        names = self.settings.surrogates or [name for names in profile.packs.values() for name in names]
        found = [pack.licence_warning for pack in self._packs if pack.name in names and pack.licence_warning]
        return found if self._generators is None else found + self._generators.licence_warnings(profile)

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
        ``no-generator``, ``generator-nan``.

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
                    if isinstance(result, MarkedImage):
                        result = put_back(result, whole[index], places[index])
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

    def _results(
        self, requests: Sequence[MarkRequest], groups: Sequence[Sequence[int]], profile: ModalityProfile
    ) -> Iterator[list[MarkedImage | MarkError]]:
        """Yield the results of each group, in order."""

        def mark(group: Sequence[int]) -> list[MarkedImage | MarkError]:
            return self._mark_group([requests[index] for index in group], profile)

        for channels in {1 if request.image.ndim == 2 else 3 for request in requests} & set(profile.channels):
            _attempt(self._surrogates, profile, channels)  # loaded once, before threads share them
            if self._generators is not None:
                _attempt(self._generators.get, profile, channels)
        return map(mark, groups) if self._threads is None else self._threads.map(mark, groups)

    def _mark_group(self, requests: Sequence[MarkRequest], profile: ModalityProfile) -> list[MarkedImage | MarkError]:
        """Mark frames of one shape: drafts and roundings one by one, textures as one batch."""
        drafts = [_attempt(self._draft, request, profile) for request in requests]
        good = [draft for draft in drafts if isinstance(draft, Draft)]
        textures = iter(self._textures(good, profile)) if good else iter(())
        results: list[MarkedImage | MarkError] = []
        for draft in drafts:
            texture = next(textures) if isinstance(draft, Draft) else draft
            is_done = isinstance(texture, MarkError | MarkedImage)
            results.append(texture if is_done else _attempt(self._finish, draft, texture, profile))
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

    def _draft(self, request: MarkRequest, profile: ModalityProfile) -> Draft | MarkedImage:
        """Return a request's draft, or the result of a blank image; raises ``MarkError``."""
        check_request(request)
        if is_blank(request, padding_of(request)):
            return left_as_it_is(request)
        channels = 3 if request.image.ndim == 3 else 1
        if channels not in profile.packs:
            raise MarkError("wrong-channels", f"profile {profile.name} does not take images of {channels} channel(s)")
        surrogates = self._surrogates(profile, channels) if self.settings.steps else ()
        if self._generators is not None:
            self._generators.get(profile, channels)  # told before work is put into the frame
            surrogates = surrogates[:1]  # one network's saliency has to do: each costs as much as the generator
        return Drafter(self.settings, profile, surrogates, self.device, self._logo).draft(request)

    def _textures(self, drafts: Sequence[Draft], profile: ModalityProfile) -> list[np.ndarray | FlatMark | MarkError]:
        """Return a texture or flat mark per draft, or why there is none; halves the batch when memory is full."""
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

    def _texture_batch(
        self, drafts: Sequence[Draft], profile: ModalityProfile, size: int
    ) -> list[np.ndarray | FlatMark | MarkError]:
        """Return textures or flat marks of up to ``size`` drafts of one shape, computed as a batch of ``size``."""
        filled = [*drafts, *[drafts[-1]] * (size - len(drafts))]
        height, width = drafts[0].canvas.stored.shape[:2]
        shape = working_shape((height, width), profile.texture_side)

        def batch(arrays: Sequence[np.ndarray]) -> torch.Tensor:
            return torch.cat([resize(to_tensor(array, self.device), *shape) for array in arrays])

        clean = batch([draft.canvas.shown for draft in filled])
        if self.settings.mode == "paper":
            return self._flat_marks(clean, drafts, profile, size)
        amplitude = batch([draft.canvas.amplitude for draft in filled])
        offset = batch([draft.canvas.offset for draft in filled])
        constrain = partial(limit_chroma, share=profile.chroma)
        begin, steps = None, self.settings.steps
        if self._generators is not None:
            keys = [draft.request.key for draft in filled]
            generator = self._generators.get(profile, clean.shape[1])
            members = self._surrogates(profile, clean.shape[1]) if steps else ()
            direction = first_direction(clean, offset, members, profile.tasks, self._parallel_map)
            begin = generate_texture(generator, clean, amplitude, offset, keys, direction, constrain)
            steps = self.settings.refine
        texture = optimise_texture(
            clean,
            amplitude,
            offset,
            self._surrogates(profile, clean.shape[1]) if steps else (),
            profile.tasks,
            [keyed(draft.request.key, "texture", draft.request.position) for draft in filled],
            steps,
            constrain,
            begin,
        )
        # Nearest neighbour: blocks keep their full amplitude, and a classifier's resize gives the texture back.
        rows, columns = nearest(shape[0], height), nearest(shape[1], width)
        whole = texture.detach().cpu().numpy()[:, :, rows][:, :, :, columns]
        planes = [one[0] if one.shape[0] == 1 else one.transpose(1, 2, 0) for one in whole[: len(drafts)]]
        return [np.ascontiguousarray(plane) for plane in planes]

    def _flat_marks(
        self, clean: torch.Tensor, drafts: Sequence[Draft], profile: ModalityProfile, size: int
    ) -> list[FlatMark | MarkError]:
        """Return a flat mark per draft; ``clean`` holds the drafts' images first."""
        return search_flat_marks(
            clean[: len(drafts)],
            [draft.canvas for draft in drafts],
            text_ink(self.settings.text) if self._logo is None else self._logo,
            self._surrogates(profile, clean.shape[1]) if self.settings.steps else (),
            profile.tasks,
            [keyed(draft.request.key, "paper", draft.request.position) for draft in drafts],
            population=self.settings.population,
            generations=self.settings.generations,
            most_strokes=[most_strokes(self.settings, draft.canvas.region) for draft in drafts],
            floor=self.settings.psnr_floor,
            together=size,
        )

    def _finish(self, draft: Draft, texture: np.ndarray | FlatMark, profile: ModalityProfile) -> MarkedImage:
        """Round a texture or flat mark into stored values within the budget, and measure."""
        canvas, request = draft.canvas, draft.request
        flat = texture if isinstance(texture, FlatMark) else None
        if flat is not None:
            canvas, marked, cut = fit_flat_mark(canvas, flat, self.settings.psnr_floor)
        else:
            marked, cut = fit_to_floor(canvas, texture, self.settings.psnr_floor, profile.stroke_peak)
        windows = dict(request.other_windows)
        if canvas.stored.ndim == 2:
            windows = {**canvas.display.within(profile.relative_windows), **windows}
        quality = measure(
            canvas,
            marked,
            draft.untouchable,
            windows,
            cut,
            draft.foreground,
            request.slope,
            profile.unit,
            self._parallel_map,
        )
        residual = (marked - canvas.stored).astype(np.int32)
        image = marked.astype(request.image.dtype)
        queries = flat.queries if flat is not None else 0
        return MarkedImage(image, residual, canvas.strokes, canvas.region, draft.roi, quality, queries, draft.note)


def _cut_out(requests: Sequence[MarkRequest]) -> tuple[list[MarkRequest], list[Place | None]]:
    """Return the requests for what is seen of the images, and where it lies."""
    pairs = [cut_out(request) for request in requests]
    return [request for request, _ in pairs], [place for _, place in pairs]


def _attempt(function: Callable[..., object], *arguments: object) -> object:
    """Return the function's result, or the ``MarkError`` that it raised."""
    try:
        return function(*arguments)
    except MarkError as error:
        return error
