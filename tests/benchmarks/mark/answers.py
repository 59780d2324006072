"""Finished cells, asked as a table would ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from tests.benchmarks.mark.fingerprint import fingerprint, limits
from tests.benchmarks.mark.methods import OTHERS
from tests.benchmarks.mark.run import ALONE, LEFT_OUT, WHITE_BOX
from tests.benchmarks.mark.stats import Interval, bootstrap
from tests.benchmarks.mark.store import Cell

Chosen = Callable[["Answer"], bool]
LEAST_ACCURACY, ABOVE_MAJORITY = 0.75, 0.2
"""Clean accuracy from which a network counts on a set, and how much that is more than the most frequent class."""


@dataclass(frozen=True)
class Answer:
    """What one network answered to one stack of images.

    Attributes
    ----------
    set, tier, method, reader, held, lineage
        as in the cells.
    removal
        group, empty where nothing was removed.
    setting
        of the removal.
    psnr
        floor in dB on the energy curve, else None.
    steps
        of the time comparison, else None.
    part
        number of images, where only a part of the sample was asked about in a stage; else None.
    as_asked
        (K,) bool, images that were marked in the tier that was asked for.
    correct
        (K,), 1 where the true label was given, else 0; of ``Answers.known`` float with NaN where an image does
        not count.
    """

    set: str
    tier: str
    method: str
    reader: str
    held: str
    lineage: str
    removal: str
    setting: str
    psnr: float | None
    steps: int | None
    part: int | None
    as_asked: np.ndarray
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """0..1."""
        return float(np.nanmean(self.correct))


class Answers:
    """All answers of one run.

    Parameters
    ----------
    cells
        of the store.
    run
        identity of the run.
    """

    def __init__(self, cells: Iterable[Cell], run: str) -> None:
        # cells of a generator with other weights, or of attacks within other limits, stay in the file and are not shown
        now = {"generator": fingerprint(True), "limits": limits()}
        mine = [
            cell
            for cell in cells
            if cell["id"].get("run") == run
            and cell["id"].get("generator", now["generator"]) == now["generator"]
            and (cell["id"].get("method") not in OTHERS or cell["id"].get("limits") == now["limits"])
        ]
        self.notes = [cell for cell in mine if cell["id"].get("kind") != "answers"]
        self.all = [_answer(cell) for cell in mine if cell["id"].get("kind") == "answers"]

    def where(self, chosen: Chosen, curve: bool = False, parts: bool = False) -> list[Answer]:
        """Return the answers for which ``chosen`` holds.

        Those of curve and time comparison only if ``curve``, and those to a part of the images from which nothing was
        removed only if ``parts``: else the same network would have answered twice.
        """

        def meant(one: Answer) -> bool:
            return (curve or (one.psnr is None and one.steps is None)) and (
                parts or one.part is None or one.removal != ""
            )

        return [one for one in self.all if meant(one) and chosen(one)]

    def counts(self, answer: Answer) -> bool:
        """Return whether a network is good enough on a set to count there; those that the mark is made on always do.

        At least ``LEAST_ACCURACY`` of the set's test images right when clean, and ``ABOVE_MAJORITY`` more than the
        most frequent class would give. One whose accuracy was not noted does not count.
        """
        if answer.held in (WHITE_BOX, ALONE):
            return True
        cell = self.note("victim", set=answer.set, reader=answer.reader.removesuffix(LEFT_OUT))
        return cell is not None and is_good(cell)

    def interval(self, chosen: Chosen, curve: bool = False) -> Interval | None:
        """Return the mean over sets and networks of the chosen answers; None when there are none.

        Sets or networks without an answer are missing from the mean; ``complete`` of the report says which.
        """
        return averaged(self.where(chosen, curve))

    def best_for_the_adversary(self, chosen: Chosen) -> list[Answer]:
        """Return per set and network the chosen answer with the highest accuracy (the first among equals)."""
        best: dict[tuple[str, str], Answer] = {}
        for one in self.where(chosen):
            place = (one.set, one.reader)
            if place not in best or one.accuracy > best[place].accuracy:
                best[place] = one
        return list(best.values())

    def same_on_clean(self, answer: Answer) -> Answer | None:
        """Return what the same network answers to clean images after the same removal."""
        found = self.where(
            lambda one: (
                one.method == "clean"
                and (one.set, one.tier, one.reader) == (answer.set, answer.tier, answer.reader)
                and (one.removal, one.setting) == (answer.removal, answer.setting)
            )
        )
        return found[0] if found else None

    @staticmethod
    def marked_as_asked(found: Iterable[Answer]) -> list[Answer]:
        """Return the answers with only those images counted that were marked in the tier that was asked for."""
        counted = [replace(one, correct=np.where(one.as_asked, one.correct, np.nan)) for one in found]
        return [one for one in counted if one.as_asked.any()]

    def known(self, found: Iterable[Answer]) -> list[Answer]:
        """Return the answers with only those images counted that the same network knows when they are clean.

        The paper's way to count: its code draws correctly classified images (mark, evaluation rules, 6). A network
        that was wrong on an image may be led to the right answer by chance; here that does not count. Networks that
        know none of the images, or were not asked about the clean ones, are left out.
        """
        clean = {
            (one.set, one.tier, one.reader, one.part): one.correct
            for one in self.where(lambda one: one.method == "clean" and one.removal == "", parts=True)
        }
        counted = []
        for one in found:
            right = clean.get((one.set, one.tier, one.reader, one.part))
            if right is not None and len(right) == len(one.correct):
                correct = np.where(right == 1, one.correct, np.nan)
                counted += [replace(one, correct=correct)] * (not np.isnan(correct).all())
        return counted

    def note(self, kind: str, **where: object) -> Cell | None:
        """Return the first cell of a kind with these values in its identity."""
        for cell in self.notes:
            identity = cell["id"]
            if identity.get("kind") == kind and all(identity.get(key) == value for key, value in where.items()):
                return cell
        return None


def is_good(cell: Cell) -> bool:
    """Return whether a noted victim (``accuracy``, ``majority``) is good enough on its set to count."""
    accuracy, majority = float(cell["accuracy"]), float(cell["majority"])
    return accuracy >= LEAST_ACCURACY and accuracy >= majority + ABOVE_MAJORITY


def averaged(answers: Iterable[Answer]) -> Interval | None:
    """Return the mean over sets of the mean over networks, with its interval; None of nothing."""
    by_set: dict[str, list[np.ndarray]] = {}
    for one in answers:
        by_set.setdefault(one.set, []).append(one.correct)
    return bootstrap(by_set) if by_set else None


def _answer(cell: Cell) -> Answer:
    identity = cell["id"]
    return Answer(
        set=identity["set"],
        tier=identity["tier"],
        method=identity["method"],
        reader=identity["reader"],
        held=cell["held"],
        lineage=cell["lineage"],
        removal=identity.get("removal", ""),
        setting=identity.get("setting", ""),
        psnr=identity.get("psnr"),
        steps=identity.get("steps"),
        part=identity.get("part"),
        as_asked=np.array(cell.get("as_asked", [1] * len(cell["correct"])), bool),
        correct=np.array(cell["correct"], np.int64),
    )
