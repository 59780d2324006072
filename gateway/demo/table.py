"""The demo's table: one line for each instance, what must hold of it, and how it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

PSNR_FLOOR = 26.0  # dB: the lettered tier's, in the display range


@dataclass(frozen=True)
class Line:
    """One instance on its whole way. What did not happen is None, or False."""

    name: str
    sop_instance_uid: str
    archive_sha256: str  # of the data set as the archive sends it to a workstation: a witness beside the gateway
    state: str  # the gateway's: "delivered", or "held", or where it stood when the time was over
    reason: str | None = None  # why it is held
    derived_sop_uid: str | None = None  # as found at the outside PACS
    delivered: bool = False  # it lies there, once, as DERIVED
    new_uids: bool = False  # other SOP Instance and Series UIDs than the original's
    changed: bool = False  # its pixels are not the original's
    psnr: float | None = None  # dB, display range, worst frame
    task: str | None = None  # which question the held-out classifier answers
    learnt: bool = False  # it learnt this kind of image; of others its answer means nothing
    before: str | None = None  # its predictions ...
    after: str | None = None
    under_noise: str | None = None  # of the mark's energy
    margin_before: float | None = None  # ... and how far that of the original leads
    margin_after: float | None = None
    margin_noise: float | None = None  # under noise of the mark's energy
    restored_sha256: str | None = None  # of what the authorized workstation got for the derived UID
    restored_sop_uid: str | None = None
    stranger_refused: bool = False

    @property
    def restored_equal(self) -> bool:
        """Whether the workstation got the archive's very bytes back."""
        return self.restored_sha256 == self.archive_sha256 and self.restored_sop_uid == self.sop_instance_uid

    def failures(self) -> Iterator[str]:
        """What does not hold of this line."""
        if not self.delivered:
            yield f"not delivered ({self.state}{f': {self.reason}' if self.reason else ''})"
            return
        if not self.new_uids:
            yield "the marked copy carries a UID of the original"
        if not self.changed:
            yield "the marked copy has the original's pixels"
        if self.psnr is None or self.psnr < PSNR_FLOOR:
            yield f"the display PSNR is below {PSNR_FLOOR:g} dB"
        if self.margin_after is None or self.margin_noise is None or self.margin_before is None:
            yield "the classifier was not asked"
        if not self.restored_equal:
            yield "what was restored is not what the archive sends"
        if not self.stranger_refused:
            yield "a stranger was not refused"


LEAST_ASKED = 10
"""Below so many images of kinds that it learnt the classifier's answers are shown, not judged: chance turns a few."""


@dataclass(frozen=True)
class Outcome:
    """All lines, and whether the run is a success."""

    lines: tuple[Line, ...]

    @property
    def asked(self) -> tuple[Line, ...]:
        """The lines of kinds that the classifier learnt, and on which it was asked."""
        return tuple(line for line in self.lines if line.learnt and line.before is not None)

    @property
    def answers_changed(self) -> int:
        """On how many of `asked` the mark changes the answer."""
        return sum(line.after != line.before for line in self.asked)

    @property
    def answers_changed_by_noise(self) -> int:
        """On how many of `asked` noise of the same energy does."""
        return sum(line.under_noise != line.before for line in self.asked)

    @property
    def mean_fall(self) -> float | None:
        """How much the mark lowers the classifier's margin on `asked`, on average; None when there are none."""
        return self._mean_fall("margin_after")

    @property
    def mean_fall_noise(self) -> float | None:
        """How much noise of the same energy lowers it."""
        return self._mean_fall("margin_noise")

    def failures(self) -> list[str]:
        """Every line that does not hold, by name, and what does not hold of the whole; empty: a success."""
        found = [f"{line.name}: {problem}" for line in self.lines for problem in line.failures()]
        if not self.lines:
            found.append("there is no line")
        twice = Counter(line.derived_sop_uid for line in self.lines if line.derived_sop_uid)
        found += [f"{uid} names more than one marked copy" for uid, count in twice.items() if count > 1]
        if len(self.asked) >= LEAST_ASKED:
            if (self.mean_fall or 0.0) <= (self.mean_fall_noise or 0.0):
                found.append("the classifier's mean margin does not fall more than under noise of equal energy")
            if self.answers_changed <= self.answers_changed_by_noise:
                found.append("the mark changes no more answers of the classifier than noise of equal energy")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        failures = self.failures()
        return {
            "passed": not failures,
            "failures": failures,
            "answers": {
                "asked": len(self.asked),
                "changed": self.answers_changed,
                "changed_by_noise": self.answers_changed_by_noise,
            },
            "mean_margin_fall": self.mean_fall,
            "mean_margin_fall_noise": self.mean_fall_noise,
            "lines": [{**asdict(line), "restored_equal": line.restored_equal} for line in self.lines],
        }

    def _mean_fall(self, margin: str) -> float | None:
        pairs = [(line.margin_before, getattr(line, margin)) for line in self.asked]
        falls = [before - after for before, after in pairs if before is not None and after is not None]
        return sum(falls) / len(falls) if falls else None


def as_table(lines: Sequence[Line]) -> Table:
    """For the terminal."""
    table = Table(title="From the archive to the outside, and back", caption_justify="left")
    for name in ("instance", "archive SHA-256"):
        table.add_column(name, no_wrap=True)
    table.add_column("marked\nPSNR dB", justify="right")
    table.add_column("held-out classifier\nbefore → after")
    table.add_column("under noise\nof that energy")
    table.add_column("its margin\nbefore → after (noise)", no_wrap=True)
    for name in ("delivered", "restored\nSHA-256 equal", "stranger\nrefused"):
        table.add_column(name, justify="center")
    for line in lines:
        table.add_row(
            line.name,
            line.archive_sha256[:12],
            "-" if line.psnr is None else f"{line.psnr:.1f}",
            _prediction(line, line.after, f"{line.before} → "),
            _prediction(line, line.under_noise),
            _margins(line),
            "yes" if line.delivered else line.reason or line.state,
            _yes(line, line.restored_equal),
            _yes(line, line.stranger_refused),
            style=None if not list(line.failures()) else "red",
        )
    return table


def _prediction(line: Line, answer: str | None, lead: str = "") -> str:
    """An answer as the table shows it; in brackets, and without a name, where the classifier never learnt the kind."""
    if answer is None:
        return "-"
    if not line.learnt:
        return "(stays)" if answer == line.before else "(changes)"
    return f"{lead}{'stays' if answer == line.before else answer}".replace("_", " ")


def _margins(line: Line) -> str:
    if line.margin_before is None or line.margin_after is None or line.margin_noise is None:
        return "-"
    return f"{line.margin_before:+.2f} → {line.margin_after:+.2f} ({line.margin_noise:+.2f})"


def _yes(line: Line, value: bool) -> str:
    if line.derived_sop_uid is None:
        return "-"  # nothing of it is outside that one could ask for
    return "yes" if value else "NO"
