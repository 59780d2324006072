"""How long work shows that it goes on, and that it has ended: on standard error, never among results.

On a terminal a bar; in a log (standard error is a file or the journal) a plain line now and then; in a pipe nothing,
since whoever reads it may take each line for a message. `--progress` chooses by hand.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.output import messages

Progress = Callable[[int, int], None]  # (done, total)

FIRST_LINE_S = 10.0  # of work that is shorter than this only its end is told
_APART = 0.1  # of the time that has passed: lines come more seldom the longer it takes


class Shown(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    BAR = "bar"
    LINES = "lines"
    NONE = "none"


ProgressShown = Annotated[
    Shown,
    typer.Option(
        "--progress",
        envvar="MIAD_GATEWAY_PROGRESS",
        help="On standard error. auto: a bar on a terminal, lines in a file or the journal, nothing in a pipe or with "
        "--json.",
    ),
]


@contextmanager
def showing_progress(
    what: str, shown: Shown = Shown.AUTO, *, as_json: bool = False, unit: str = ""
) -> Iterator[Progress]:
    """Show how far a piece of work is, and that it has ended or where it stopped.

    Parameters
    ----------
    what
        The work as a word, such as ``marking``.
    shown
        As `--progress` says.
    as_json
        A program reads the results: `auto` shows nothing.
    unit
        Of the numbers, such as ``MiB``; empty: things are counted.

    Yields
    ------
    Progress
        To be called with ``(done, total)``.
    """
    way = _way(shown, as_json)
    if way is Shown.NONE:
        yield lambda done, total: None
    elif way is Shown.BAR:
        with _bar(what, unit) as moved:
            yield moved
    else:
        with _told(what, unit, lines=True) as moved:
            yield moved


def _way(shown: Shown, as_json: bool) -> Shown:
    if shown is not Shown.AUTO:
        return shown
    if as_json:
        return Shown.NONE
    if messages.is_terminal:
        return Shown.BAR
    return Shown.LINES if _is_log() else Shown.NONE


def _is_log() -> bool:
    """Whether standard error goes into a file, or into the journal of systemd."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # closed, no file at all, or None: closed before we began
        return False
    journal = os.environ.get("JOURNAL_STREAM", "")  # "device:inode" of what systemd connected
    return stat.S_ISREG(found.st_mode) or journal == f"{found.st_dev}:{found.st_ino}"


@contextmanager
def _told(what: str, unit: str, *, lines: bool) -> Iterator[Progress]:
    """A line when it ends, well or not; `lines`: others on the way."""
    began = time.monotonic()
    last: list[tuple[int, int]] = []
    due = [FIRST_LINE_S]

    def moved(done: int, total: int) -> None:
        last[:] = [(done, total)]
        passed = time.monotonic() - began
        if lines and passed >= due[0] and done < total:
            due[0] = passed + max(FIRST_LINE_S, _APART * passed)
            left = f", about {_span(passed * (total - done) / done)} left" if done else ""
            messages.print(f"{what}: {_count(done, total, unit)}, {_span(passed)}{left}")

    try:
        yield moved
    except BaseException:
        at = _count(*last[0], unit) if last else "the beginning"
        messages.print(f"{what}: stopped at {at} after {_span(time.monotonic() - began)}")
        raise
    of = f"{_count(*last[0], unit)}, " if last else ""
    messages.print(f"{what}: {of}ended after {_span(time.monotonic() - began)}")


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Progress]:
    """A bar, which goes when it ends, and the line that stays."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(f"{what}{f' ({unit})' if unit else ''}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    is_on_terminal = sys.stdout is not None and sys.stdout.isatty()
    with (
        _told(what, unit, lines=False) as moved,
        # results are printed above the bar where both are on the terminal; else they go where they are sent to
        Progress(*columns, console=messages, transient=True, redirect_stdout=is_on_terminal) as progress,
    ):
        task = progress.add_task(what, total=None)

        def both(done: int, total: int) -> None:
            moved(done, total)
            progress.update(task, completed=done, total=total)

        yield both


def _count(done: int, total: int, unit: str) -> str:
    return f"{done} of {total}{f' {unit}' if unit else ''}"


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"
