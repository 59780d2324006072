"""The targets of the project, as data: what is averaged, what is to be reached, and whether it is.

Mean over sets and held-out networks. A target that could not be measured is no pass; it says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tests.benchmarks.mark.answers import Answer, Answers, averaged
from tests.benchmarks.mark.run import ALONE, DATA, FAMILY, GENERATOR, WHITE_BOX
from tests.benchmarks.mark.stages_more import ALONE_METHOD, lineage_method
from tests.benchmarks.mark.stats import Interval
from tests.benchmarks.mark.treatments import GRID, INPAINT

NOTHING = "-"
"""Shown where there is no value."""
BASELINES = ("noise", "static", "paper", "mi-fgsm", "di-fgsm", "universal")


@dataclass(frozen=True)
class Verdict:
    """One row of the table of targets.

    Attributes
    ----------
    name
        of the row.
    paper
        what the paper reports, as text.
    reach
        most (or least) that is to be reached; None: only reported.
    beyond
        the stretch; None: there is none.
    value
        what was measured; None: not measured.
    text
        the value as shown, or why there is none.
    higher
        more is better (speed).
    cells
        what the mean is made of: (what, value).
    known
        the value with only those images counted that a network knows when clean (``Answers.known``); None: not
        measured, or not an accuracy.
    known_text
        as shown.
    """

    name: str
    paper: str
    reach: float | None
    beyond: float | None
    value: float | None
    text: str
    higher: bool = False
    cells: tuple[tuple[str, float], ...] = ()
    known: float | None = None
    known_text: str = NOTHING

    def meets(self, value: float, limit: float | None) -> bool:
        """Return whether a value keeps a limit (None: always)."""
        return limit is None or (value >= limit if self.higher else value <= limit)

    @property
    def word(self) -> str:
        """``beyond``, ``pass``, ``FAIL``, ``reported`` or ``not measured``."""
        return "not measured" if self.value is None else self._word(self.value)

    @property
    def known_word(self) -> str:
        """As ``word``, for ``known``; empty where there is none."""
        return "" if self.known is None else self._word(self.known)

    def _word(self, value: float) -> str:
        if self.beyond is not None and self.meets(value, self.beyond):
            return "beyond"
        if self.reach is None:
            return "reported"
        return "pass" if self.meets(value, self.reach) else "FAIL"

    @property
    def failed_cells(self) -> list[tuple[str, float]]:
        """The parts of the mean that do not keep the limit by themselves."""
        return [(what, value) for what, value in self.cells if not self.meets(value, self.reach)]


def _row(
    answers: Answers, name: str, paper: str, reach: float | None, beyond: float | None, found: list[Answer], why: str
) -> Verdict:
    interval, known = averaged(found), averaged(answers.known(found))
    cells = tuple((f"{one.set}, {one.reader}", one.accuracy) for one in found)
    if interval is None:
        return Verdict(name, paper, reach, beyond, None, why)
    row = Verdict(name, paper, reach, beyond, interval.mean, str(interval), cells=cells)
    return row if known is None else replace(row, known=known.mean, known_text=str(known))


def _plain(tier: str, method: str, held: tuple[str, ...]) -> Callable[[Answer], bool]:
    return lambda one: one.tier == tier and one.method == method and one.removal == "" and one.held in held


def verdicts(answers: Answers) -> list[Verdict]:
    """Return every row of the table of targets."""

    def plain(tier: str, method: str, *held: str) -> list[Answer]:
        return answers.where(_plain(tier, method, held))

    def lineages(tier: str, method: str) -> dict[str, set[str]]:
        """Set -> lineages of the pack's networks."""
        found: dict[str, set[str]] = {}
        for one in plain(tier, method, WHITE_BOX):
            found.setdefault(one.set, set()).add(one.lineage)
        return found

    same = lineages("discreet", "strong")
    same_lineage = [one for one in plain("discreet", "strong", FAMILY) if one.lineage in same.get(one.set, set())]
    other_lineage = [
        one
        for lineage in ("scratch", "imagenet")
        for one in plain("discreet", lineage_method(lineage), FAMILY)
        if one.lineage == lineage
    ]

    def removed(tier: str, groups: tuple[str, ...]) -> list[Answer]:
        return answers.best_for_the_adversary(
            lambda one: one.tier == tier and one.method == "strong" and one.removal in groups and one.held != WHITE_BOX
        )

    row = partial(_row, answers)
    rows = [
        *_white_box("lettered", "8.57 %", 0.03, 0.0, plain, row),
        *_white_box("discreet", NOTHING, 0.40, 0.15, plain, row),
        row(
            "white-box, generator, lettered", NOTHING, 0.10, 0.05, plain("lettered", "generator", WHITE_BOX), "not run"
        ),
        row("family held out, strong, lettered", "45.83 %", 0.35, 0.20, plain("lettered", "strong", FAMILY), "not run"),
        row(
            "family held out, generator, lettered",
            NOTHING,
            0.40,
            0.30,
            plain("lettered", "generator", FAMILY),
            "not run",
        ),
        row("family held out, same pre-training lineage, discreet", NOTHING, None, 0.60, same_lineage, "not run"),
        row("family and lineage held out, discreet", NOTHING, None, 0.60, other_lineage, "not run (stage lineage)"),
        row(
            "after removal networks (U-Net, other keys; inpainting with true strokes; the better per victim), lettered",
            "38.59 % (average)",
            0.385,
            0.30,
            removed("lettered", ("u-net", INPAINT)),
            "not run (stages removal, learned)",
        ),
        row(
            "best of the A1 grid, lettered",
            NOTHING,
            0.40,
            0.30,
            removed("lettered", (GRID,)),
            "not run (stage removal)",
        ),
    ]
    for tier in ("lettered", "discreet"):
        rows += [
            _against(answers, tier, method) for method in BASELINES if not (tier == "discreet" and method == "static")
        ]
    return [*rows, *_generator_times(answers), *_times(answers)]


def _white_box(
    tier: str,
    paper: str,
    reach: float,
    beyond: float,
    plain: Callable[..., list[Answer]],
    row: Callable[..., Verdict],
) -> list[Verdict]:
    """Return the two readings of white-box: a mark against one network, and one against the whole pack."""
    alone = plain(tier, ALONE_METHOD, ALONE)
    joint = plain(tier, "strong", WHITE_BOX)
    name = f"white-box, strong, {tier}"
    return [
        row(f"{name}: each victim by a mark against it alone", paper, reach, beyond, alone, "not run (stage alone)"),
        row(f"{name}: the pack's networks by one mark against all", paper, reach, beyond, joint, "not run"),
    ]


def _against(answers: Answers, tier: str, method: str) -> Verdict:
    """Return by how many points ``strong`` leaves less accuracy than a baseline: the least over the columns.

    Only networks that answered to both count.
    """
    name = f"points below {method}, same region, same energy, {tier} (least of the columns)"
    gaps = []
    for held in (WHITE_BOX, DATA, FAMILY):
        found = [answers.where(_plain(tier, which, (held,))) for which in ("strong", method)]
        both = set.intersection(*({(one.set, one.reader) for one in each} for each in found))
        ours, theirs = (averaged(one for one in each if (one.set, one.reader) in both) for each in found)
        if ours is not None and theirs is not None:
            gaps.append((held, 100.0 * (theirs.mean - ours.mean)))
    if not gaps:
        return Verdict(name, NOTHING, 0.0, 10.0, None, "not run", higher=True)
    text = ", ".join(f"{held} {gap:+.1f}" for held, gap in gaps)
    return Verdict(name, NOTHING, 0.0, 10.0, min(gap for _, gap in gaps), text, higher=True, cells=tuple(gaps))


def _generator_times(answers: Answers) -> list[Verdict]:
    one, many = (answers.note(GENERATOR, what="speed", count=count) for count in (1, 256))
    name, why = "generator, one 512x512 slice on CPU, seconds", "not run (stage speed, on a CPU)"
    if one is not None and one["device"] == "cpu":
        text = f"{one['seconds']:.2f} s, {one['threads']} threads"
        rows = [Verdict(name, NOTHING, 0.1, 0.05, float(one["seconds"]), text)]
    else:
        rows = [Verdict(name, NOTHING, 0.1, 0.05, None, why)]
    name = "generator, batch on one GPU, slices per second"
    if many is None:
        return [*rows, Verdict(name, NOTHING, 500.0, 2000.0, None, "not run on a GPU", higher=True)]
    rate = 1.0 / float(many["seconds"])
    return [*rows, Verdict(name, NOTHING, 500.0, 2000.0, rate, f"{rate:.0f} slices/s", higher=True)]


def _times(answers: Answers) -> list[Verdict]:
    ratios = [ratio for ratio in (equal_accuracy(answers, tier) for tier in ("lettered", "discreet")) if ratio]
    name = "time to equal victim accuracy, torchattacks / strong (least over tiers)"
    if not ratios:
        return [Verdict(name, NOTHING, 5.0, 10.0, None, "not run (stage speed)", higher=True)]
    value = min(ratio for ratio, _ in ratios)
    return [Verdict(name, NOTHING, 5.0, 10.0, value, "; ".join(text for _, text in ratios), higher=True)]


def equal_accuracy(answers: Answers, tier: str) -> tuple[float, str] | None:
    """Return how many times longer torchattacks needs than ``strong`` to an accuracy that both reach, and a sentence.

    The accuracy compared at is the lowest that torchattacks reached with any number of steps, or ours where it is
    higher; the faster of its two attacks counts.
    """
    ours, theirs = (_points(answers, tier, which) for which in (("strong",), ("mi-fgsm", "di-fgsm")))
    if not ours or not theirs:
        return None
    level = max(min(accuracy for accuracy, _ in ours), min(accuracy for accuracy, _ in theirs))
    our_time, their_time = (min(s for accuracy, s in points if accuracy <= level) for points in (ours, theirs))
    text = f"{tier}: accuracy {level:.2f} after {our_time:.2f} s (strong) and {their_time:.2f} s (torchattacks)"
    return their_time / our_time, text


def _points(answers: Answers, tier: str, methods: tuple[str, ...]) -> list[tuple[float, float]]:
    """Return (mean accuracy of held-out networks, mean seconds per image) per method and number of steps."""
    found: dict[tuple[str, int], tuple[list[Answer], list[float]]] = {}
    for cell in answers.notes:
        identity = cell["id"]
        if identity["kind"] == "speed" and identity["tier"] == tier and identity["method"] in methods:
            found.setdefault((identity["method"], identity["steps"]), ([], []))[1].append(float(cell["seconds"]))
    for one in answers.where(lambda one: one.tier == tier and one.steps is not None, curve=True):
        if (one.method, one.steps) in found:
            found[one.method, one.steps][0].append(one)
    points: list[tuple[Interval | None, float]] = [(averaged(a), float(np.mean(s))) for a, s in found.values()]
    return [(interval.mean, seconds) for interval, seconds in points if interval is not None]
