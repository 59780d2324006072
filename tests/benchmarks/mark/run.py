"""One run: what was asked for, its folders, its networks and its finished cells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from gateway.errors import ConfigError
from gateway.mark import MarkSettings, SurrogatePack
from gateway.mark.device import resolve_device
from gateway.mark.surrogates.packs import Surrogate
from tests.benchmarks.mark import foreign
from tests.benchmarks.mark.data import PROFILES, Sample, draw_sample, first_of, pack_of
from tests.benchmarks.mark.fingerprint import fingerprint, limits
from tests.benchmarks.mark.methods import OTHERS, Scene
from tests.benchmarks.mark.nets_victims import HELD
from tests.benchmarks.mark.options import Options
from tests.benchmarks.mark.store import CellStore, digest
from tests.benchmarks.mark.victims import Recipe, Victim, answers, architecture_of, lineage_of, load_or_train

WHITE_BOX = "white-box"
ALONE = "white-box, alone"
DATA = "same family, other data"
FAMILY = "family held out"
FOREIGN = "foreign network"
LEFT_OUT = ", its family left out of the pack"
"""Follows the name of a network that the pack holds the family of, where that family took no part."""
GENERATOR = "generator"
"""Name of that column, and kind of the cells with its speed."""


class OutOfTime(Exception):
    """The run's time is up; what is finished is kept, and the run goes on where it was when it is started again."""


@dataclass(frozen=True)
class Reader:
    """A network that answers: a victim, or a surrogate (white-box).

    Attributes
    ----------
    name
        as in tables.
    held
        ``WHITE_BOX`` (one of the networks that the mark is made against), ``ALONE`` (the only one), ``DATA``,
        ``FAMILY`` or ``FOREIGN``.
    lineage
        ``imagenet`` or ``scratch``.
    identity
        changes when its weights do.
    predict
        display images float32 (N, H, W[, 3]) in 0..1 -> answers (N,).
    """

    name: str
    held: str
    lineage: str
    identity: str
    predict: Callable[[np.ndarray], np.ndarray]


class Run:
    """State of one run.

    Parameters
    ----------
    options
        what is measured.
    recipes
        of the victims of the open sets.
    data
        folder of the sets.
    out
        folder of results.
    cache
        folder of victims and removers.
    say
        told what is going on.
    older_recipes
        of the victims of older sets, which are trained there.
    """

    def __init__(
        self,
        options: Options,
        recipes: Sequence[Recipe],
        data: Path,
        out: Path,
        cache: Path,
        say: Callable[[str], None] = lambda text: None,
        older_recipes: Sequence[Recipe] = (),
    ) -> None:
        self.options, self.recipes, self.data, self.out, self.cache, self.say = options, recipes, data, out, cache, say
        self.older_recipes = older_recipes
        self._end = time.monotonic() + 3600.0 * options.hours if options.hours else None
        self.device = resolve_device(options.device)
        self.store = CellStore(out / "cells.jsonl")
        self.skipped: dict[str, str] = {}
        self._samples: dict[str, Sample] = {}
        self._scenes: dict[str, Scene] = {}
        self._parts: dict[tuple[str, str], Scene] = {}
        self._victims: dict[str, list[Victim]] = {}
        self._surrogates: dict[int, tuple[Surrogate, ...]] = {}
        self._foreign: dict[str, list[Reader]] = {}
        self._right: dict[tuple[str, str, str], list[int]] = {}

    @cached_property
    def identity(self) -> str:
        """What every mark of this run depends on, in 16 digits; part of every cell."""
        options = self.options
        numbers = [options.sample, options.part, options.steps, *options.samples.items()]
        return digest([fingerprint(), *numbers, options.settings, self.device.type])

    def sample(self, name: str) -> Sample:
        """Return the set's sample; of an older set only a part."""
        if name not in self._samples:
            options = self.options
            count = options.part if name in options.older else options.samples.get(name, options.sample)
            self._samples[name] = draw_sample(self.data, name, count)
        return self._samples[name]

    def part(self, name: str) -> Sample:
        """Return a class-balanced part of the set's sample, for stages that mark it anew."""
        sample = self.sample(name)
        return first_of(sample, min(self.options.part, len(sample)))

    def settings(self, tier: str) -> MarkSettings:
        """Return the settings of the reference marks."""
        return MarkSettings(tier=tier, steps=self.options.steps, device=self.options.device, **self.options.settings)

    def scene(self, name: str, tier: str) -> Scene:
        """Return the scene of one set in one tier; in one of ``other_tiers`` with a part of the sample."""
        if name + tier not in self._scenes:
            sample = self.part(name) if tier in self.options.other_tiers else self.sample(name)
            self._scenes[name + tier] = self.other_scene(sample, self.settings(tier))
        return self._scenes[name + tier]

    def part_scene(self, name: str, tier: str) -> Scene:
        """Return a part of the images of one set in one tier, whose marks are those of the whole."""
        if (name, tier) not in self._parts:
            self._parts[name, tier] = self.scene(name, tier).part(self.options.part)
        return self._parts[name, tier]

    def finished_scenes(self) -> list[Scene]:
        """Return the scenes of the open sets whose marks are made."""
        return [
            one for one in self._scenes.values() if "reference" in vars(one) and one.sample.name in self.options.sets
        ]

    def other_scene(self, sample: Sample, settings: MarkSettings, pack: SurrogatePack | None = None) -> Scene:
        """Return a scene with other settings, another sample or another pack."""
        pack = pack_of(sample.channels) if pack is None else pack
        return Scene(sample, settings, PROFILES[sample.name], pack, self.out / "marks", self._told)

    def _told(self, text: str) -> None:
        """Pass on what a scene says of each piece that it keeps; after it there may be no time for another."""
        self.say(text)
        self.in_time()

    def surrogates(self, channels: int) -> tuple[Surrogate, ...]:
        """Return the pack's networks."""
        if channels not in self._surrogates:
            self._surrogates[channels] = pack_of(channels).load(self.device)
        return self._surrogates[channels]

    def victims(self, name: str) -> list[Victim]:
        """Return the set's victims, trained where the cache has none."""
        if name not in self._victims:
            found = []
            for recipe in self.older_recipes if name in self.options.older else self.recipes:
                self.in_time()
                found.append(load_or_train(recipe, self.data, name, self.cache, self.device, self.say))
            self._victims[name] = found
        return self._victims[name]

    def in_time(self) -> None:
        """Raise ``OutOfTime`` where nothing new may be begun."""
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime

    def judges(self, name: str) -> list[Reader]:
        """Return everybody who took no part in the marks: victims, and the foreign network where it knows the set."""
        return self.held_out(name) + self.foreign(name)

    def foreign(self, name: str) -> list[Reader]:
        """Return the foreign network as a reader, where it knows the set and can be had; else nothing."""
        if self.options.foreign and name not in self._foreign and name in foreign.SETS:
            try:
                predict = foreign.predictor(self.cache / "packages", self.sample(name).classes, self.device)
            except ConfigError as error:
                self.skipped[foreign.NAME] = str(error)
                return []
            identity = foreign.SOURCE.sha256[:16]
            self._foreign[name] = [Reader(foreign.NAME, FOREIGN, "imagenet", identity, predict)]
        return self._foreign.get(name, [])

    def has_foreign_family(self, name: str) -> bool:
        """Return whether the pack holds other weights of the foreign network's family, which share its start."""
        return any(one.net.family == foreign.FAMILY for one in self.surrogates(self.sample(name).channels))

    def held_out(self, name: str) -> list[Reader]:
        """Return the set's victims as readers, with what of them is held out from the pack."""
        inside = {architecture_of(one.net.family) for one in self.surrogates(self.sample(name).channels)}
        return [
            Reader(
                name=victim.name,
                held=DATA if architecture_of(victim.recipe.family) in inside else FAMILY,
                lineage=victim.recipe.lineage,
                identity=victim.path.stem,
                predict=victim.predict,
            )
            for victim in self.victims(name)
        ]

    def alone(self, name: str) -> list[tuple[Reader, SurrogatePack]]:
        """Return every victim of the set as a reader, with a pack that holds this victim and nothing else.

        Families that are built by the benchmark alone cannot be packed.
        """
        pack = pack_of(self.sample(name).channels)
        return [
            (
                Reader(one.name, ALONE, one.recipe.lineage, one.path.stem, one.predict),
                replace(pack, files=(one.path,), tasks=()),
            )
            for one in self.victims(name)
            if one.recipe.family not in HELD
        ]

    def left_out(self, name: str) -> list[tuple[Reader, SurrogatePack]]:
        """Return every victim whose family the pack holds, with the pack without that family.

        Evaluation rule 5. Where nothing of the lineage would be left, that is another question (``without_lineage``).
        """
        sample = self.sample(name)
        pack, surrogates = pack_of(sample.channels), self.surrogates(sample.channels)
        found = []
        for victim in self.victims(name):
            family = architecture_of(victim.recipe.family)
            smaller = without(pack, surrogates, lambda one, family=family: architecture_of(one) == family)
            left = {lineage_of(one.net.family) for one in surrogates if architecture_of(one.net.family) != family}
            if smaller is not None and victim.recipe.lineage in left:
                reader = Reader(victim.name + LEFT_OUT, FAMILY, victim.recipe.lineage, victim.path.stem, victim.predict)
                found.append((reader, smaller))
        return found

    def white_box(self, name: str) -> list[Reader]:
        """Return the pack's own networks that know the set."""

        def reader(one: Surrogate) -> Reader:
            return Reader(
                name=one.name,
                held=WHITE_BOX,
                lineage=lineage_of(one.net.family),
                identity=fingerprint(),
                predict=lambda images: answers(one.net, name, images, one.input_size, self.device),
            )

        return [reader(one) for one in self.surrogates(self.sample(name).channels) if name in one.net.tasks]

    def pack_lineages(self, name: str) -> set[str]:
        """Return the lineages among the pack's networks."""
        return {lineage_of(one.net.family) for one in self.surrogates(self.sample(name).channels)}

    def answer(
        self,
        where: dict[str, object],
        readers: Sequence[Reader],
        images: Callable[[], np.ndarray],
        labels: np.ndarray,
        as_asked: np.ndarray | None = None,
    ) -> None:
        """Put one cell per reader into the store: which of the images it answers rightly.

        Parameters
        ----------
        where
            identity of the images: set, tier, method, removal and so on.
        readers
            who is asked.
        images
            makes the display images float32 (K, H, W[, 3]); called only when a cell is missing.
        labels
            int64 (K,), true.
        as_asked
            bool (K,), images that were marked in the tier that was asked for (``Scene.as_asked``); None: all.

        Raises
        ------
        OutOfTime
            a cell is missing, and the run's time is up.
        """
        made: list[tuple[np.ndarray, str]] = []
        asked = np.ones(len(labels), bool) if as_asked is None else as_asked
        for reader in readers:
            identity = {"kind": "answers", **self._whole(where), "reader": reader.name, "net": reader.identity}

            def ask(reader: Reader = reader) -> dict[str, object]:
                self.in_time()
                if not made:
                    shown = images()
                    made.append((shown, sha256(np.ascontiguousarray(shown)).hexdigest()))
                known = (reader.name, reader.identity, made[0][1])
                if known not in self._right:
                    self._right[known] = [int(one) for one in reader.predict(made[0][0]) == labels]
                told = {"held": reader.held, "lineage": reader.lineage, "as_asked": [int(one) for one in asked]}
                return {**told, "correct": self._right[known]}

            self.store.once(identity, ask)

    def note(self, where: dict[str, object], make: Callable[[], dict[str, object]]) -> dict[str, object]:
        """Return a cell of this run that holds anything but answers, made when there is none (``OutOfTime``)."""

        def made() -> dict[str, object]:
            self.in_time()
            return make()

        return self.store.once(self._whole(where), made)

    def _whole(self, where: dict[str, object]) -> dict[str, object]:
        """Return an identity with all that its cell depends on: the run, and what only its method does."""
        own = {"generator": fingerprint(True)} if GENERATOR in (where.get("method"), where.get("kind")) else {}
        if where.get("method") in OTHERS:
            own["limits"] = limits()
        return {"run": self.identity, **own, **where}

    def seconds(self, work: Callable[[], object]) -> tuple[object, float]:
        """Return what ``work`` returns and the seconds it took: of the processors, or with CUDA on the clock."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        began = clock()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return result, clock() - began

    def described(self) -> dict[str, object]:
        """Return options and recipes as JSON-able values, for the report."""
        options = {**asdict(self.options), "folder": None}  # a path of this machine says nothing
        victims = [[asdict(one) for one in recipes] for recipes in (self.recipes, self.older_recipes)]
        return {"options": options, "victims": victims[0], "victims of older sets": victims[1]}


def without_lineage(pack: SurrogatePack, surrogates: Sequence[Surrogate], lineage: str) -> SurrogatePack | None:
    """Return the pack without the networks of one lineage; None when nothing or everything is left."""
    return without(pack, surrogates, lambda family: lineage_of(family) == lineage)


def without(
    pack: SurrogatePack, surrogates: Sequence[Surrogate], unwanted: Callable[[str], bool]
) -> SurrogatePack | None:
    """Return the pack without the networks whose family is unwanted; None when nothing or everything is left."""
    kept = tuple(path for path, one in zip(pack.files, surrogates, strict=True) if not unwanted(one.net.family))
    return replace(pack, files=kept) if 0 < len(kept) < len(pack.files) else None
