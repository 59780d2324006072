"""One run: what was asked for, its folders, its networks and its finished cells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from gateway.mark import MarkSettings, SurrogatePack
from gateway.mark.device import resolve_device
from gateway.mark.surrogates.packs import Surrogate
from tests.benchmarks.mark.data import PROFILES, Sample, draw_sample, pack_of
from tests.benchmarks.mark.fingerprint import fingerprint
from tests.benchmarks.mark.methods import Scene
from tests.benchmarks.mark.nets_victims import HELD
from tests.benchmarks.mark.remover import RemoverRecipe
from tests.benchmarks.mark.store import CellStore, digest
from tests.benchmarks.mark.victims import Recipe, Victim, answers, architecture_of, lineage_of, load_or_train

WHITE_BOX = "white-box"
ALONE = "white-box, alone"
DATA = "data held out"
FAMILY = "family held out"
LEFT_OUT = ", its family left out of the pack"
"""Follows the name of a network that the pack holds the family of, where that family took no part."""
GENERATOR = "generator"
"""Name of that column, and kind of the cells with its speed."""


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    sets
        names of ``data.PROFILES``.
    tiers
        ``lettered``, ``discreet``.
    methods
        names of ``methods.METHODS``.
    sample
        test images per set; None: all.
    steps
        of the ``strong`` optimiser and of library attacks.
    averaging
        N of the averaging attacks.
    finetune
        n of the victims trained on.
    finetune_steps
        least steps of such training.
    pairs
        images for the pair-trained remover.
    curve
        tier -> display PSNR in dB.
    curve_sample
        images per set for the energy curve, the time comparison and the cross-key correlation.
    remover
        recipe of the remover.
    our_steps
        of ``strong`` in the time comparison.
    their_steps
        of torchattacks in the time comparison.
    settings
        more fields of ``MarkSettings``, e.g. ``generations`` of the paper's search.
    few
        CI: a few treatments, one tier after the columns, and no pair-trained remover need have learned its trade.
    device
        as for ``MarkSettings``.
    """

    sets: tuple[str, ...]
    tiers: tuple[str, ...]
    methods: tuple[str, ...]
    sample: int | None
    steps: int
    averaging: tuple[int, ...] = (10, 100)
    finetune: tuple[int, ...] = (50, 200)
    finetune_steps: int = 60
    pairs: int = 100
    curve: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {"lettered": (26.0, 30.0, 34.0, 40.0), "discreet": (40.0, 44.0, 48.0)}
    )
    curve_sample: int = 12
    remover: RemoverRecipe = field(default_factory=RemoverRecipe)
    our_steps: tuple[int, ...] = (2, 4, 8, 16, 25)
    their_steps: tuple[int, ...] = (5, 10, 20, 40, 80)
    settings: dict[str, object] = field(default_factory=dict)
    few: bool = False
    device: str = "auto"

    @property
    def later_tiers(self) -> tuple[str, ...]:
        """Tiers of the stages after the columns."""
        return self.tiers[:1] if self.few else self.tiers


@dataclass(frozen=True)
class Reader:
    """A network that answers: a victim, or a surrogate (white-box).

    Attributes
    ----------
    name
        as in tables.
    held
        ``WHITE_BOX`` (one of the networks that the mark is made against), ``ALONE`` (the only one), ``DATA`` or
        ``FAMILY``.
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
        of the victims.
    data
        folder of the sets.
    out
        folder of results.
    cache
        folder of victims and removers.
    say
        told what is going on.
    """

    def __init__(
        self,
        options: Options,
        recipes: Sequence[Recipe],
        data: Path,
        out: Path,
        cache: Path,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.options, self.recipes, self.data, self.out, self.cache, self.say = options, recipes, data, out, cache, say
        self.device = resolve_device(options.device)
        self.store = CellStore(out / "cells.jsonl")
        self.skipped: dict[str, str] = {}
        self._samples: dict[str, Sample] = {}
        self._scenes: dict[str, Scene] = {}
        self._victims: dict[str, list[Victim]] = {}
        self._surrogates: dict[int, tuple[Surrogate, ...]] = {}

    @cached_property
    def identity(self) -> str:
        """What every mark of this run depends on, in 16 digits; part of every cell."""
        return digest([fingerprint(), self.options.sample, self.options.steps, self.options.settings, self.device.type])

    def sample(self, name: str) -> Sample:
        """Return the set's sample."""
        if name not in self._samples:
            self._samples[name] = draw_sample(self.data, name, self.options.sample)
        return self._samples[name]

    def settings(self, tier: str) -> MarkSettings:
        """Return the settings of the reference marks."""
        return MarkSettings(tier=tier, steps=self.options.steps, device=self.options.device, **self.options.settings)

    def scene(self, name: str, tier: str) -> Scene:
        """Return the scene of one set in one tier."""
        if name + tier not in self._scenes:
            self._scenes[name + tier] = self.other_scene(self.sample(name), self.settings(tier))
        return self._scenes[name + tier]

    def other_scene(self, sample: Sample, settings: MarkSettings, pack: SurrogatePack | None = None) -> Scene:
        """Return a scene with other settings, another sample or another pack."""
        pack = pack_of(sample.channels) if pack is None else pack
        return Scene(sample, settings, PROFILES[sample.name], pack, self.out / "marks", self.say)

    def surrogates(self, channels: int) -> tuple[Surrogate, ...]:
        """Return the pack's networks."""
        if channels not in self._surrogates:
            self._surrogates[channels] = pack_of(channels).load(self.device)
        return self._surrogates[channels]

    def victims(self, name: str) -> list[Victim]:
        """Return the set's victims, trained where the cache has none."""
        if name not in self._victims:
            self._victims[name] = [
                load_or_train(recipe, self.data, name, self.cache, self.device, self.say) for recipe in self.recipes
            ]
        return self._victims[name]

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
        """
        made: list[np.ndarray] = []
        for reader in readers:
            identity = {"kind": "answers", **self._whole(where), "reader": reader.name, "net": reader.identity}

            def ask(reader: Reader = reader) -> dict[str, object]:
                if not made:
                    made.append(images())
                right = reader.predict(made[0]) == labels
                return {"held": reader.held, "lineage": reader.lineage, "correct": [int(one) for one in right]}

            self.store.once(identity, ask)

    def note(self, where: dict[str, object], make: Callable[[], dict[str, object]]) -> dict[str, object]:
        """Return a cell of this run that holds anything but answers, made when there is none."""
        return self.store.once(self._whole(where), make)

    def _whole(self, where: dict[str, object]) -> dict[str, object]:
        """Return an identity with all that its cell depends on: the run, and for a generator its code and weights."""
        own = {"generator": fingerprint(True)} if GENERATOR in (where.get("method"), where.get("kind")) else {}
        return {"run": self.identity, **own, **where}

    def seconds(self, work: Callable[[], object]) -> tuple[object, float]:
        """Return what ``work`` returns and the seconds that it took, the device's queue included."""
        began = time.perf_counter()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return result, time.perf_counter() - began

    def described(self) -> dict[str, object]:
        """Return options and recipes as JSON-able values, for the report."""
        return {"options": asdict(self.options), "victims": [asdict(one) for one in self.recipes]}


def without_lineage(pack: SurrogatePack, surrogates: Sequence[Surrogate], lineage: str) -> SurrogatePack | None:
    """Return the pack without the networks of one lineage; None when nothing or everything is left."""
    return without(pack, surrogates, lambda family: lineage_of(family) == lineage)


def without(
    pack: SurrogatePack, surrogates: Sequence[Surrogate], unwanted: Callable[[str], bool]
) -> SurrogatePack | None:
    """Return the pack without the networks whose family is unwanted; None when nothing or everything is left."""
    kept = tuple(path for path, one in zip(pack.files, surrogates, strict=True) if not unwanted(one.net.family))
    return replace(pack, files=kept) if 0 < len(kept) < len(pack.files) else None
