"""One row of the table of targets, and how one is made of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tests.benchmarks.mark.answers import Answer, Answers, averaged
from tests.benchmarks.mark.stats import Interval

NOTHING = "-"
"""Shown where there is no value."""
IN_AIR = ("notice", "air")
"""Tiers whose rows count images with room in their air only: the others were marked in another tier."""
NOT_RUN = "not run"


@dataclass(frozen=True)
class Verdict:
    """One row of the table of targets.

    Attributes
    ----------
    name
        of the row.
    tier
        of the marks; empty where it is no matter of a tier.
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
        more is better (points below another row, speed).
    cells
        what the mean is made of: (what, value).
    known
        the value with only those images counted that a network knows when clean (``Answers.known``); None: not
        measured, or not an accuracy.
    known_text
        as shown.
    """

    name: str
    tier: str
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


def counted(answers: Answers, tier: str, found: Iterable[Answer]) -> list[Answer]:
    """Return the answers of networks that count, to images that count for the tier."""
    good = [one for one in found if answers.counts(one)]
    return answers.marked_as_asked(good) if tier in IN_AIR else good


def row(
    answers: Answers,
    name: str,
    tier: str,
    found: Sequence[Answer],
    reach: float | None = None,
    beyond: float | None = None,
    why: str = NOT_RUN,
    paper: str = NOTHING,
) -> Verdict:
    """Return a row that is the mean accuracy of answers; ``why`` there are none, if so."""
    good = counted(answers, tier, found)
    return _averaged(Verdict(name, tier, paper, reach, beyond, None, _why(found, why)), good, answers.known(good))


def gap(
    answers: Answers,
    name: str,
    tier: str,
    low: Sequence[Answer],
    high: Sequence[Answer],
    reach: float | None = None,
    beyond: float | None = None,
    why: str = NOT_RUN,
    higher: bool = True,
) -> Verdict:
    """Return a row that is how much lower ``low`` lies than ``high``, image by image and network by network.

    Only networks that answered to both, in the same part of the images, count. ``higher``: more is better.
    """
    good = counted(answers, tier, low)
    blank = Verdict(name, tier, NOTHING, reach, beyond, None, _why(low, why), higher)
    return _averaged(blank, differences(good, high), differences(answers.known(good), high))


def differences(low: Iterable[Answer], high: Iterable[Answer]) -> list[Answer]:
    """Return for each network that answered to both how much more often (per image) it is right in ``high``."""
    other = {(one.set, one.reader, one.part): one.correct for one in high}
    return [
        replace(one, correct=other[one.set, one.reader, one.part] - one.correct)
        for one in low
        if (one.set, one.reader, one.part) in other
    ]


def _why(found: Sequence[Answer], why: str) -> str:
    return "no image or network counts here" if found else why


def _averaged(blank: Verdict, all_images: Sequence[Answer], known_images: Sequence[Answer]) -> Verdict:
    interval, known = averaged(all_images), averaged(known_images)
    if interval is None:
        return blank
    cells = tuple((f"{one.set}, {one.reader}", one.accuracy) for one in all_images)
    made = replace(blank, value=interval.mean, text=_told(interval, all_images), cells=cells)
    return made if known is None else replace(made, known=known.mean, known_text=str(known))


def _told(interval: Interval, found: Sequence[Answer]) -> str:
    sets, readers = ({getattr(one, what) for one in found} for what in ("set", "reader"))
    return f"{interval}; {len(sets)} sets, {len(readers)} networks"
