"""The rows of the table of targets that are seconds and passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.benchmarks.mark.answers import Answer, Answers, averaged
from tests.benchmarks.mark.run import GENERATOR
from tests.benchmarks.mark.verdict import NOTHING, Verdict, counted

SERIES = "series"
"""Kind of the cell with the seconds of a slice in a series."""
NO_GPU = "not run on a GPU"


def cost_rows(answers: Answers, tiers: tuple[str, ...]) -> list[Verdict]:
    """Return the rows of seconds and passes, in the order of the issue's second table."""
    return [_generator(answers), _series(answers), *_passes(answers, tiers), *_times(answers, tiers), *_gpu(answers)]


def _generator(answers: Answers) -> Verdict:
    name = "`generator`, 512x512 slice, CPU seconds"
    cell = answers.note(GENERATOR, what="speed", count=1)
    if cell is None or cell["device"] != "cpu":
        return Verdict(name, "", NOTHING, 0.1, 0.05, None, "not run (stage generator, on a CPU)")
    text = f"{cell['seconds']:.2f} s, {cell['threads']} threads"
    return Verdict(name, "", NOTHING, 0.1, 0.05, float(cell["seconds"]), text)


def _series(answers: Answers) -> Verdict:
    cell = answers.note(SERIES)
    if cell is None:
        return Verdict(
            "`strong` in a series, CPU seconds a slice", "", NOTHING, 0.5, 0.2, None, "not run (stage series)"
        )
    name = f"`strong` in a series of {cell['slices']} slices, CPU seconds a slice"
    text = f"{cell['seconds']:.2f} s; {cell['keys']:.2f} a key slice, {cell['others']:.2f} another; {cell['told']}"
    return Verdict(name, cell["tier"], NOTHING, 0.5, 0.2, float(cell["seconds"]), text)


def _gpu(answers: Answers) -> list[Verdict]:
    many = answers.note(GENERATOR, what="speed", count=256)
    rate = None if many is None else 1.0 / float(many["seconds"])
    text = NO_GPU if rate is None else f"{rate:.0f} slices/s"
    rows = [Verdict("`generator` on one GPU, slices a second", "", NOTHING, 500.0, 2000.0, rate, text, higher=True)]
    for name, reach, beyond in (
        ("`strong` on one GPU, slices a second", 50.0, 200.0),
        ("share of the time that the GPU works", 0.7, 0.9),
    ):
        rows.append(Verdict(name, "", NOTHING, reach, beyond, None, NO_GPU, higher=True))
    return rows


@dataclass(frozen=True)
class Point:
    """Mean accuracy of held-out networks after some steps, and what they cost an image: seconds, passes of networks."""

    accuracy: float
    seconds: float
    passes: float


@dataclass(frozen=True)
class Equal:
    """An accuracy that both reach, and the cheapest points at which ours and theirs have it (seconds, passes)."""

    accuracy: float
    seconds: tuple[float, float]
    passes: tuple[float, float]


def equal_accuracy(answers: Answers, tier: str) -> Equal | None:
    """Return what ``strong`` and torchattacks need to an accuracy that both reach.

    The accuracy compared at is the lowest that torchattacks reached with any number of steps, or ours where it is
    higher; the cheaper of its two attacks counts.
    """
    ours, theirs = (_points(answers, tier, which) for which in (("strong",), ("mi-fgsm", "di-fgsm")))
    if not ours or not theirs:
        return None
    level = max(min(one.accuracy for one in ours), min(one.accuracy for one in theirs))
    enough = [[one for one in points if one.accuracy <= level] for points in (ours, theirs)]
    seconds, passes = (
        [min(getattr(one, what) for one in points) for points in enough] for what in ("seconds", "passes")
    )
    return Equal(level, (seconds[0], seconds[1]), (passes[0], passes[1]))


def _passes(answers: Answers, tiers: tuple[str, ...]) -> list[Verdict]:
    rows = []
    for tier in tiers:
        name, found = (
            "passes of networks to equal accuracy, `strong` / torchattacks' best",
            equal_accuracy(answers, tier),
        )
        if found is not None:
            ours, theirs = found.passes
            text = f"{ours:.0f} / {theirs:.0f} passes to {found.accuracy:.2f}"
            rows.append(Verdict(name, tier, NOTHING, 0.25, 0.1, ours / theirs, text))
    return rows or [Verdict(name, "", NOTHING, 0.25, 0.1, None, "not run (stage speed)")]


def _times(answers: Answers, tiers: tuple[str, ...]) -> list[Verdict]:
    rows = []
    for tier in tiers:
        name, found = "seconds to equal accuracy, `strong` / torchattacks' best", equal_accuracy(answers, tier)
        if found is not None:
            ours, theirs = found.seconds
            text = f"{ours:.2f} / {theirs:.2f} s to {found.accuracy:.2f}"
            rows.append(Verdict(name, tier, NOTHING, None, None, ours / theirs, text))
    return rows


def _points(answers: Answers, tier: str, methods: tuple[str, ...]) -> list[Point]:
    """Return a point per method and number of steps."""
    asked: dict[tuple[str, int], list[Answer]] = {}
    for one in counted(
        answers, tier, answers.where(lambda one: one.tier == tier and one.steps is not None, curve=True)
    ):
        asked.setdefault((one.method, one.steps or 0), []).append(one)
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for cell in answers.notes:
        identity = cell["id"]
        if identity["kind"] == "speed" and identity["tier"] == tier and identity["method"] in methods:
            costs.setdefault((identity["method"], identity["steps"]), []).append((cell["seconds"], cell["passes"]))
    found = []
    for place, spent in costs.items():
        interval = averaged(asked.get(place, ()))
        if interval is not None:
            seconds, passes = np.mean(np.array(spent, np.float64), axis=0)
            found.append(Point(interval.mean, float(seconds), float(passes)))
    return found
