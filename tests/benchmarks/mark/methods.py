"""The columns: what is done to the images of one set in one tier. A column is a name and a function; add one here.

``strong`` comes first in time, since its marks set region and energy for all others (``frames``). A function returns
the images and the seconds per image, or why there are none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from pydantic import ValidationError
from scipy import ndimage

from gateway.mark import Marker, MarkSettings, ModalityProfile, SurrogatePack
from gateway.mark.methods.generator_packs import load_generator_packs
from gateway.mark.randomness import keyed
from tests.benchmarks.mark.attacks import missing_library, momentum_attack, universal_attack
from tests.benchmarks.mark.data import OTHER_KEY, SITE_KEY, Sample, balanced, requests_of, shown
from tests.benchmarks.mark.ensemble import Ensemble
from tests.benchmarks.mark.fingerprint import fingerprint, limits
from tests.benchmarks.mark.frames import Frame
from tests.benchmarks.mark.marking import Marks, mark_stack
from tests.benchmarks.mark.store import digest


@dataclass(frozen=True)
class Made:
    """What a method made.

    Attributes
    ----------
    images
        uint8 (K, H, W[, 3]), for the images that the reference could mark.
    seconds
        per image; None for controls.
    note
        what a reader must know.
    """

    images: np.ndarray
    seconds: float | None = None
    note: str = ""


class Skipped(Exception):
    """A method that is not there; the message says why."""


class Scene:
    """One set in one tier: the sample, the reference marks, and what methods need.

    Parameters
    ----------
    sample
        of the set.
    settings
        of the reference: tier, steps, device.
    profile
        of the set.
    pack
        surrogate pack.
    folder
        for marks.
    say
        told what is going on.
    given
        reference marks that are there already; None: they are made.
    """

    def __init__(
        self,
        sample: Sample,
        settings: MarkSettings,
        profile: ModalityProfile,
        pack: SurrogatePack,
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
        given: Marks | None = None,
    ) -> None:
        self.sample, self.settings, self.profile, self.pack = sample, settings, profile, pack
        self.folder, self._say, self._given = folder, say, given
        self._markers: dict[str, Marker] = {}

    def marks(self, settings: MarkSettings, sample: Sample, purpose: str, key: bytes, first: int = 0) -> Marks:
        """Return the marks of a sample under a site key, made once and kept.

        Parameters
        ----------
        settings
            of the mark.
        sample
            images.
        purpose
            for what, e.g. ``sample`` or ``pool``; part of the file name.
        key
            the site's, 32 bytes.
        first
            number of the first image.
        """
        identity = [*self.identity_of(settings.mode), settings.model_dump()]
        name = f"{sample.name}-{settings.tier}-{settings.mode}-{purpose}-{digest(identity)}"
        marker = self._markers.setdefault(digest(settings.model_dump()), Marker(settings, packs=[self.pack]))
        return mark_stack(
            marker,
            requests_of(sample, key, first),
            self.profile,
            self.folder,
            name,
            lambda text: self._say(f"{sample.name} {settings.tier} {settings.mode} {purpose}: {text}"),
        )

    def identity_of(self, mode: str) -> list[str]:
        """Return what marks of a mode depend on besides settings and images: code, weights, the pack's members."""
        own = [limits()] if mode in OTHERS else []
        return [fingerprint(mode == "generator"), *own, *(path.name for path in self.pack.files)]

    @cached_property
    def reference(self) -> Marks:
        """The ``strong`` marks of the sample."""
        if self._given is not None:
            return self._given
        return self.marks(self.settings, self.sample, "sample", SITE_KEY)

    def part(self, count: int) -> Scene:
        """Return this scene with a class-balanced part of its images, whose reference marks stay as they are."""
        index = balanced(self.labels, min(count, len(self.labels)), 0)
        marks = self.reference.rows(index)
        sample = Sample(self.sample.name, self.originals[index], self.labels[index], self.sample.classes, marks.roi)
        return Scene(sample, self.settings, self.profile, self.pack, self.folder, self._say, marks)

    @cached_property
    def as_asked(self) -> np.ndarray:
        """Bool (K,): images that had room in their air and were marked in the tier that was asked for."""
        return self.reference.tiers == self.settings.tier

    @cached_property
    def originals(self) -> np.ndarray:
        """uint8 (K, H, W[, 3]): the images that could be marked, unmarked."""
        return self.sample.images[self.reference.kept]

    @cached_property
    def confined(self) -> Sample:
        """``originals`` with the reference's region of interest given, so that no mode changes what that one must not.

        It is dilated once more there: the region of these modes is a margin smaller than the reference's.
        """
        kept = self.reference.kept
        labels = self.sample.labels[kept]
        return Sample(self.sample.name, self.originals, labels, self.sample.classes, self.reference.roi)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (K,): true labels of ``originals``."""
        return self.sample.labels[self.reference.kept]

    @cached_property
    def frames(self) -> list[Frame]:
        """One frame per image of ``originals``."""
        parts = zip(self.originals, self.reference.images, self.reference.strokes, self.reference.region, strict=True)
        return [Frame(*part, self.profile) for part in parts]

    @cached_property
    def envelopes(self) -> np.ndarray:
        """float32 (K, H, W)."""
        return np.stack([frame.envelope for frame in self.frames])

    @cached_property
    def ensemble(self) -> Ensemble:
        """The pack's networks for the set's task, as one model."""
        return Ensemble(self.pack.load(Marker(self.settings, packs=[self.pack]).device), self.sample.name)

    def made(self, method: str) -> Made:
        """Return a column's images, made once and kept.

        Raises
        ------
        Skipped
            the method is not there.
        """
        if method in ("clean", "strong"):  # kept already, or nothing to keep
            return METHODS[method](self)
        kept = [*self.identity_of(method), self.settings.model_dump(), len(self.sample), method, self.sample.name]
        path = self.folder / f"{self.sample.name}-{self.settings.tier}-column-{method}-{digest(kept)}.npz"
        if not path.exists():
            made = METHODS[method](self)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                seconds = np.nan if made.seconds is None else made.seconds
                np.savez_compressed(file, images=made.images, seconds=seconds, note=np.array(made.note))
            os.replace(partial, path)
            self._say(f"{self.sample.name} {self.settings.tier}: {method} made")
        with np.load(path) as archive:
            seconds = float(archive["seconds"])
            return Made(archive["images"], None if np.isnan(seconds) else seconds, str(archive["note"]))

    def fitted(self, changes: np.ndarray) -> np.ndarray:
        """Return uint8 images with each change at the reference's energy."""
        return np.stack([frame.fit(change) for frame, change in zip(self.frames, changes, strict=True)])


def clean(scene: Scene) -> Made:
    """The images themselves."""
    return Made(scene.originals)


def noise(scene: Scene) -> Made:
    """Random signs of the reference's own magnitude, pixel by pixel."""
    difference = np.abs(shown(scene.reference.images) - shown(scene.originals))
    signs = keyed(OTHER_KEY, "noise").choice(np.float32([-1.0, 1.0]), difference.shape)
    return Made(scene.fitted(signs * difference))


def random(scene: Scene) -> Made:
    """The reference's settings without a step: the same letters with random texture, in the same region.

    As ``tests.benchmarks.packs`` has it. What letters do to weak networks is no attack.
    """
    marks = scene.marks(scene.settings.model_copy(update={"steps": 0}), scene.confined, "random", SITE_KEY)
    images, place = scene.originals.copy(), marks.kept
    images[place] = marks.images
    refused = len(images) - len(place)
    return Made(images, note=f"{refused} images refused, shown unmarked" if refused else "")


def static(scene: Scene) -> Made:
    """The reference's lettering without any texture: each stroke brighter or darker, as the reference's is in mean."""
    if not scene.reference.strokes.any():
        raise Skipped("there is no lettering")
    changes = []
    for frame in scene.frames:
        moved = shown(frame.reference) - shown(frame.original)
        moved = moved if moved.ndim == 2 else moved.mean(axis=2)
        pieces, count = ndimage.label(frame.strokes)
        signs = np.concatenate([[0.0], np.sign(ndimage.mean(moved, pieces, np.arange(1, count + 1)))])
        flat = signs[pieces].astype(np.float32)
        changes.append(flat if frame.original.ndim == 2 else np.repeat(flat[..., None], 3, axis=2))
    return Made(scene.fitted(np.stack(changes)), note="same strokes, flat")


def library(diverse: bool) -> Callable[[Scene], Made]:
    """Return the column of torchattacks' MI-FGSM, or of DI-FGSM."""

    def run(scene: Scene) -> Made:
        reason = missing_library()
        if reason:
            raise Skipped(reason)
        steps = max(1, scene.settings.steps)
        began = time.perf_counter()
        changes = momentum_attack(scene.ensemble, shown(scene.originals), scene.envelopes, steps, diverse)
        seconds = (time.perf_counter() - began) / len(changes)
        return Made(scene.fitted(changes), seconds, f"{steps} steps, labels: the ensemble's own answers")

    return run


def universal(scene: Scene) -> Made:
    """One pattern for the whole set, made on these very images."""
    passes = max(1, scene.settings.steps)
    began = time.perf_counter()
    changes = universal_attack(scene.ensemble, shown(scene.originals), scene.envelopes, passes)
    return Made(scene.fitted(changes), (time.perf_counter() - began) / len(changes), f"{passes} passes, our own")


def known_modes() -> tuple[str, ...]:
    """Return the modes that can be measured: those of ``MarkSettings``; ``generator`` where one is installed."""
    modes = get_args(MarkSettings.model_fields["mode"].annotation)
    return tuple(one for one in modes if one != "generator" or load_generator_packs())


def mode(name: str, fit: bool) -> Callable[[Scene], Made]:
    """Return the column of one of the gateway's own optimisers.

    Parameters
    ----------
    name
        a value of ``MarkSettings.mode``.
    fit
        scale its marks to the reference's energy, wherever in the allowed region they lie.
    """

    def run(scene: Scene) -> Made:
        if name not in known_modes():
            raise Skipped(f"MarkSettings knows no mode {name!r}, or nothing is installed for it")
        try:
            settings = MarkSettings(**{**scene.settings.model_dump(), "mode": name})
        except ValidationError as error:
            told = "; ".join(one["msg"] for one in error.errors())
            raise Skipped(f"mode {name!r} refuses the settings: {told}") from error
        marks = scene.marks(settings, scene.confined, "confined", SITE_KEY)
        images, refused = scene.originals.copy(), 0
        place = {int(index): row for row, index in enumerate(marks.kept)}
        for index, frame in enumerate(scene.frames):
            if index not in place:
                refused += 1  # counts as unmarked: its accuracy is that of the clean image
                continue
            image = marks.images[place[index]]
            if fit:
                inside = marks.strokes[place[index]]
                image = frame.fit(shown(image) - shown(frame.original), inside)
            images[index] = image
        notes = [f"{refused} images refused, shown unmarked"] * (refused > 0)
        if fit:
            notes.append("own place in the same region, scaled to the same energy")
        return Made(images, marks.seconds, "; ".join(notes))

    return run


def strong(scene: Scene) -> Made:
    """The reference itself."""
    return Made(scene.reference.images, scene.reference.seconds)


METHODS: dict[str, Callable[[Scene], Made]] = {
    "clean": clean,
    "random": random,
    "noise": noise,
    "static": static,
    "paper": mode("paper", fit=True),
    "mi-fgsm": library(diverse=False),
    "di-fgsm": library(diverse=True),
    "universal": universal,
    "generator": mode("generator", fit=False),
    "strong": strong,
}
"""Column -> function, in the order of the table."""
MAIN = ("clean", "random", "strong")
"""Columns of all images."""
OTHERS = ("noise", "static", "mi-fgsm", "di-fgsm", "universal", "paper")
"""Every other attack in the same pixels with the same energy, and controls; what takes longest comes last."""
