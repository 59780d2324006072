"""What a run of the benchmark measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.mark.remover import RemoverRecipe


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    sets
        names of ``data.PROFILES`` that the pack knows: the open sets.
    tiers
        of all stages, e.g. ``notice`` and ``lettered``.
    methods
        names of ``methods.METHODS``.
    sample
        test images per set; None: all.
    samples
        of single sets, where they have another number.
    other_tiers
        tiers that only white-box and held-out networks are asked about, e.g. ``air`` and ``discreet``.
    older
        sets that no surrogate saw, of ``part`` images each.
    part
        images per set of ``older`` and ``other_tiers``, and of the stages after ``reads``.
    grid
        settings of every kind of removal, by group; None: all.
    folder
        of a DICOM series that the time of a slice is measured on; None: not measured.
    slices
        of that series.
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
        images per set for the energy curve and the time comparison.
    keys
        images per set for the cross-key correlation.
    repeats
        how often the generator's time for one slice is taken; the median counts.
    speed_sets
        how many of the sets the time comparison takes.
    remover
        recipe of the remover.
    our_steps
        of ``strong`` in the time comparison.
    their_steps
        of torchattacks in the time comparison.
    settings
        more fields of ``MarkSettings``, e.g. ``generations`` of the paper's search.
    few
        CI: one tier after the columns, and no pair-trained remover need have learned its trade.
    foreign
        ask the foreign network, which comes in a package of 61 MB.
    hours
        after which nothing new is begun; 0: there is no limit.
    device
        as for ``MarkSettings``.
    """

    sets: tuple[str, ...]
    tiers: tuple[str, ...]
    methods: tuple[str, ...]
    sample: int | None
    steps: int
    other_tiers: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    part: int = 8
    grid: Mapping[str, tuple[str, ...]] | None = None
    folder: Path | None = None
    slices: int = 40
    averaging: tuple[int, ...] = (10, 100)
    finetune: tuple[int, ...] = (50, 200)
    finetune_steps: int = 60
    pairs: int = 100
    curve: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {"notice": (42.0, 46.0, 50.0), "lettered": (26.0, 30.0, 34.0, 40.0)}
    )
    curve_sample: int = 12
    keys: int = 2
    repeats: int = 5
    speed_sets: int = 1
    remover: RemoverRecipe = field(default_factory=RemoverRecipe)
    our_steps: tuple[int, ...] = (2, 4, 8, 16, 25)
    their_steps: tuple[int, ...] = (5, 10, 20, 40, 80)
    settings: dict[str, object] = field(default_factory=dict)
    few: bool = False
    foreign: bool = True
    hours: float = 0.0
    device: str = "auto"

    @property
    def later_tiers(self) -> tuple[str, ...]:
        """Tiers of the stages after the columns."""
        return self.tiers[:1] if self.few else self.tiers

    @property
    def attacked_tiers(self) -> tuple[str, ...]:
        """Tiers in which every other attack is made: with ``few`` the last alone, where ``paper`` has its letters."""
        return self.tiers[-1:] if self.few else self.tiers
