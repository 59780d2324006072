"""The demo's table: one line for each instance, what must hold of it, and how it is shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from gateway.flow.states import DELIVERED

TITLE = "From the archive to the outside, and back"
UNLIMITED = 10_000  # columns
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
            if self.state == DELIVERED:
                yield "said to be delivered, and not found outside, once, as a marked copy"
            else:
                yield f"not delivered ({self.state}{f': {self.reason}' if self.reason else ''})"
            return
        if self.derived_sop_uid is None:
            yield "the archive does not show its original, so the copy was compared with nothing"
            return
        if not self.new_uids:
            yield "the marked copy carries a UID of the original"
        if self.psnr is None:  # so nothing is known of its pixels
            yield f"the marked copy was not compared with its original{f' ({self.reason})' if self.reason else ''}"
        else:
            if not self.changed:
                yield "the marked copy has the original's pixels"
            if not self.psnr >= PSNR_FLOOR:
                yield f"the display PSNR is not {PSNR_FLOOR:g} dB or more"
            if not all(map(_is_number, (self.margin_before, self.margin_after, self.margin_noise))):
                yield "the classifier gave no answer"
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
            if not (self.mean_fall or 0.0) > (self.mean_fall_noise or 0.0):
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
            "mean_margin_fall": _as_json(self.mean_fall),
            "mean_margin_fall_noise": _as_json(self.mean_fall_noise),
            "lines": [
                {name: _as_json(value) for name, value in asdict(line).items()}
                | {"restored_equal": line.restored_equal}
                for line in self.lines
            ],
        }

    def _mean_fall(self, margin: str) -> float | None:
        pairs = [(line.margin_before, getattr(line, margin)) for line in self.asked]
        falls = [before - after for before, after in pairs if before is not None and after is not None]
        return sum(falls) / len(falls) if falls else None


def shown(lines: Sequence[Line], screen: Console) -> Table:
    """The table as it fits on a screen: on a narrow one with the answers below each other, none of them cut off."""
    table = as_table(lines)
    needed = Measurement.get(screen, screen.options.update(width=UNLIMITED), table).minimum
    return table if needed <= screen.width else as_narrow_table(lines)


def as_table(lines: Sequence[Line]) -> Table:
    """For the terminal."""
    table = Table(title=TITLE, caption_justify="left")
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
            _psnr(line),
            _prediction(line, line.after, f"{line.before} → "),
            _prediction(line, line.under_noise),
            _margins(line),
            _delivered(line),
            _yes(line, line.restored_equal),
            _yes(line, line.stranger_refused),
            style=_style(line),
        )
    return table


def as_narrow_table(lines: Sequence[Line]) -> Table:
    """The same for a terminal of 80 columns."""
    table = Table(title=TITLE, show_lines=True)
    table.add_column("instance", overflow="fold", ratio=2)
    table.add_column("what became of it", overflow="fold", ratio=5)
    for line in lines:
        told = [
            f"archive SHA-256: {line.archive_sha256[:12] or '-'}",
            f"marked, PSNR dB: {_psnr(line)}",
            f"held-out classifier: {_prediction(line, line.after, f'{line.before} → ')}",
            f"under noise of that energy: {_prediction(line, line.under_noise)}",
            f"its margin, before → after (noise): {_margins(line)}",
            f"delivered: {_delivered(line)}; restored SHA-256 equal: {_yes(line, line.restored_equal)}; "
            f"stranger refused: {_yes(line, line.stranger_refused)}",
        ]
        table.add_row(line.name, "\n".join(told), style=_style(line))
    return table


def _prediction(line: Line, answer: str | None, lead: str = "") -> str:
    """An answer as the table shows it; in brackets, and without a name, where the classifier never learnt the kind."""
    if answer is None:
        return "-"
    if not line.learnt:
        return "(stays)" if answer == line.before else "(changes)"
    return f"{lead}{'stays' if answer == line.before else answer}".replace("_", " ")


def _psnr(line: Line) -> str:
    return "-" if line.psnr is None else f"{line.psnr:.1f}"


def _delivered(line: Line) -> str:
    if line.delivered:
        return "yes"
    return "NO" if line.state == DELIVERED else line.reason or line.state


def _style(line: Line) -> str | None:
    return "red" if any(line.failures()) else None


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _as_json(value: Any) -> Any:
    """JSON has no word for what is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _margins(line: Line) -> str:
    if line.margin_before is None or line.margin_after is None or line.margin_noise is None:
        return "-"
    return f"{line.margin_before:+.2f} → {line.margin_after:+.2f} ({line.margin_noise:+.2f})"


def _yes(line: Line, value: bool) -> str:
    if line.derived_sop_uid is None:
        return "-"  # nothing of it is outside that one could ask for
    return "yes" if value else "NO"
