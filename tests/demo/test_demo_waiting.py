"""How long the demo waits for the gateway's queue: as long as something comes further."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from gateway.demo.waiting import wait_for_delivery
from gateway.flow.selection import QueueEntry

STALLED_S = 1.0
LOG = Path("logs/gateway.log")


def waited(states: Iterable[str]) -> tuple[str, str]:
    """The last state of the only image, and what was told."""
    screen, given = io.StringIO(), iter(states)

    def look() -> list[QueueEntry]:
        state = next(given)
        return [QueueEntry("1", state, "r", "A", "1.2", "1.2.3", 1, 1.0, None, 0, None, None, None, {})]

    (entry,) = wait_for_delivery(look, 1, Console(file=screen, width=200), LOG, STALLED_S)
    return entry.state, screen.getvalue()


def test_a_slow_machine_is_waited_for_as_long_as_a_step_is_done() -> None:
    """Each step takes less than it is patient, all of them more."""
    states = [state for state in ("received", "sealed", "marked", "delivered") for _ in range(3)]
    state, told = waited(states)
    assert state == "delivered" and "further" not in told


def test_what_does_not_come_further_ends_the_wait_and_is_told() -> None:
    state, told = waited(itertools.repeat("sealed"))
    assert state == "sealed" and str(LOG) in told and "nothing has come further" in told
