"""Rows follow the segments: one insert for all groups that were flushed while the last was committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from gateway.errors import CapacityError, fault
from gateway.flow.segments.log import Group

MOST_ROWS = 500
MOST_BEHIND = 5000
LONGEST_PAUSE_S = 5.0
# From one transaction to the next: a stream of instances shares them, and a lone one waits for none.
GATHER_S = 0.02  # at least, and until nothing has come for so long,
LONGEST_GATHER_S = 0.1  # but no longer

log = structlog.get_logger(__name__)


class Rows(Protocol):
    """What writes the rows of groups that are durable."""

    def put(self, group: Group) -> None:
        """Take a group whose records are durable."""

    def check(self) -> None:
        """CapacityError when rows do not keep up."""

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until every group so far has its rows. False: the time has passed before."""

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits."""


class RowWriter:
    """Writes the rows of groups, in order, for as long as it takes: the segment is what was acknowledged.

    Parameters
    ----------
    add
        Commits the rows of one segment, and how far it is told of: `FlowStore.add_received`.
    """

    def __init__(self, add: Callable[[Sequence[Group]], None]) -> None:
        self._add = add
        self._changed = threading.Condition()
        self._waiting: list[Group] = []
        self._came_at = 0.0
        self._busy = False
        self._stopping = threading.Event()
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="rows", daemon=True)
        self._thread.start()

    def put(self, group: Group) -> None:
        """Take a group whose records are durable."""
        with self._changed:
            self._waiting.append(group)
            self._came_at = time.monotonic()
            self._changed.notify_all()

    def check(self) -> None:
        """Say whether rows keep up: what was received lies in the segments, but nobody can work on it without its row.

        Raises
        ------
        CapacityError
            ``database-full``, ``database-unreachable`` and the like when the last rows could not be written;
            ``rows-behind`` when too many wait.
        """
        with self._changed:
            error, behind = self._error, sum(len(group.records) for group in self._waiting)
            ended = self._ended and not self._stopping.is_set()
        if ended:
            raise CapacityError(
                "rows-behind", "nobody writes the rows of received instances any more", "restart this role"
            )
        if isinstance(error, CapacityError):
            raise CapacityError(error.code, error.message, error.hint)
        if error is not None or behind >= MOST_BEHIND:
            raise CapacityError("rows-behind", f"{behind} received instances wait for their rows in the database")

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until every group so far has its rows. False: the time has passed before, or nobody writes them."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._is_done(), timeout_s)
            return self._is_done()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what waits; what cannot be written in time is found in the segments at the next start."""
        if not self.settle(timeout_s):
            log.warning("rows of received instances could not be written in time; the next start writes them")
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _is_done(self) -> bool:
        return not self._waiting and not self._busy

    def _run(self) -> None:
        try:
            self._work()
        finally:  # a thread that only dies wakes nobody
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _work(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                groups = self._take()
                self._busy = True
                begun = time.monotonic()
            try:
                self._add(groups)
                failures, self._error = 0, None
            except Exception as error:  # the database is full, locked or away: nothing is lost meanwhile
                with self._changed:
                    self._waiting[:0] = groups
                    self._error = error
                failures += 1
                log.error("rows of received instances wait", fault=fault(error))
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
            if failures:
                self._stopping.wait(min(LONGEST_PAUSE_S, 0.1 * 2**failures))
            else:
                self._gather(begun)

    def _take(self) -> list[Group]:
        taken, rows = 0, 0
        while taken < len(self._waiting) and (not taken or rows + len(self._waiting[taken].records) <= MOST_ROWS):
            rows += len(self._waiting[taken].records)
            taken += 1
        groups, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return groups

    def _gather(self, begun: float) -> None:
        """Leave those that come time to share the transaction after the one that began at `begun`."""
        while not self._stopping.is_set():
            due = min(max(begun, self._came_at) + GATHER_S, begun + LONGEST_GATHER_S)
            left = due - time.monotonic()
            if left <= 0:
                return
            self._stopping.wait(left)
