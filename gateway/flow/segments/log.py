"""The log that all associations of a receiving process share: one flush for all that wait.

It flushes whenever the last flush has ended, never on a timer: under load each flush carries all that came meanwhile.
A record that comes alone is written by the thread that brings it, which need not wait for another to wake up; what
comes while something is being written goes together, written by a thread of the log. Where groups do not share a
segment, several may be under way at once: the way to a store is long. They are told of in the order they were begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from gateway.errors import CapacityError, fault
from gateway.flow.faults import not_spooled
from gateway.flow.segments.file import FlushFailed
from gateway.flow.segments.format import Place

MOST_BYTES = 64 << 20  # of all groups under way, unless one record alone is longer
OLDEST_S = 600.0  # a segment is closed after this time, that what it holds can go when it is done

log = structlog.get_logger(__name__)


@dataclass
class Appended:
    """One record that waits for its flush, and then where it stands."""

    pieces: Sequence[bytes | memoryview]
    facts: dict[str, object]
    done: threading.Event = field(default_factory=threading.Event)
    place: Place | None = None
    error: CapacityError | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True)
class Group:
    """Records that one flush has made durable."""

    segment: str
    end: int  # offset behind the group; its mark is not flushed and does not count
    records: Sequence[tuple[Place, dict[str, object]]]


class Segment(Protocol):
    """A segment being written. `flushed`: the byte up to which all is durable; `end`: a mark may stand behind it."""

    id: str
    end: int
    flushed: int

    @property
    def takes_more(self) -> bool:
        """Whether another group may follow; else it is left alone after its first."""

    def append(self, records: Sequence[Sequence[bytes | memoryview]]) -> list[Place]:
        """Make a group of records durable and return where each begins; FlushFailed, OSError, CapacityError."""

    def close(self) -> None:
        """Nothing more follows."""


class SegmentLog:
    """Appends records to segments.

    Parameters
    ----------
    begin
        Makes a new segment.
    segment_bytes
        A segment that is longer is closed.
    flushed
        Called with each group, in order, before those who wait are told; CapacityError is what they are told then.
    failed
        Called once, after a flush that failed, of however many groups: the process must end and be started anew.
    at_once
        How many groups may be under way; more than one only where segments take no second group.
    """

    def __init__(
        self,
        begin: Callable[[], Segment],
        segment_bytes: int,
        flushed: Callable[[Group], None],
        failed: Callable[[], None] = lambda: None,
        at_once: int = 1,
    ) -> None:
        self._begin = begin
        self._segment_bytes = segment_bytes
        self._flushed = flushed
        self._on_failure = failed
        self._changed = threading.Condition()
        self._waiting: list[Appended] = []
        self._at_once = at_once
        self._under_way: list[int] = []  # numbers of turns, in order; a thread's, and its segment with it
        self._turns = 0
        self._stopping = False
        self._roll = False
        self._ended = False
        self.failed = False
        self._segment: Segment | None = None
        self._opened_at = 0.0
        self._threads = [threading.Thread(target=self._run, name="flusher", daemon=True) for _ in range(at_once)]
        for thread in self._threads:
            thread.start()

    def append(self, pieces: Sequence[bytes | memoryview], facts: dict[str, object]) -> Place:
        """Write a record and return its place when it is durable.

        Raises
        ------
        CapacityError
            ``disk-full``, ``spool-unwritable``, ``flush-failed`` or ``stopping``: it is not, and will not be.
        """
        item, turn = Appended(pieces, facts), None
        with self._changed:
            self.check()
            if self._is_free() and not (self._is_asked() or _is_interruptible()):
                turn = self._begin_turn()
            else:
                self._waiting.append(item)
                if self._is_free():  # else who writes tells the flusher
                    self._changed.notify_all()
        if turn is not None:
            self._write_alone(item, turn)
        else:
            item.done.wait()
        if item.error:
            raise item.error
        assert item.place is not None
        return item.place

    def roll(self) -> None:
        """Close the segment that is written now; returns when it is closed."""
        with self._changed:
            self._roll = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._roll or self._ended)

    def stop(self) -> None:
        """Flush what waits, close the segment, and take nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """CapacityError when nothing more is taken: ``flush-failed`` or ``stopping``."""
        if self.failed:
            raise CapacityError("flush-failed", "the disk of the spool did not take a flush; this role starts anew")
        if self._stopping:
            raise CapacityError("stopping", "this role is ending")

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # nobody may wait for a thread that is gone
            if self.failed:
                raise
            self._fail((), error)
        finally:  # a thread that only dies wakes nobody
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_begin, timeout=OLDEST_S / 10)
                if not self._is_free():
                    continue
                ending, rolling = self._stopping and not (self._waiting or self._under_way), self._roll
                group, turn = self._take(), self._begin_turn()
            try:
                if group:
                    self._write(group, turn)
                if ending or rolling or self._is_old():
                    self._close()
            finally:
                self._end_turn(turn)
            if rolling:
                with self._changed:
                    self._roll = False
                    self._changed.notify_all()
            if ending:
                return

    def _is_asked(self) -> bool:
        return bool(self._waiting or self._stopping or self._roll)

    def _is_free(self) -> bool:
        return len(self._under_way) < self._at_once

    def _may_begin(self) -> bool:
        if self._waiting or self._roll:
            return self._is_free()
        return self._stopping and not self._under_way

    def _begin_turn(self) -> int:
        """Under the lock."""
        self._turns += 1
        self._under_way.append(self._turns)
        return self._turns

    def _end_turn(self, turn: int) -> None:
        with self._changed:
            self._under_way.remove(turn)
            if self._under_way or self._is_asked():  # one that waits until it is the first, or a flusher
                self._changed.notify_all()

    def _write_alone(self, item: Appended, turn: int) -> None:
        """Write one record in the thread that brought it; `item` says what became of it."""
        try:
            self._write([item], turn)
            if self._is_old():
                self._close()
        except Exception as error:  # after `item` was told: the role is told, if it was not
            if not self.failed:
                self._fail((), error)
        finally:
            self._end_turn(turn)

    def _take(self) -> list[Appended]:
        """The oldest of those that wait, up to a turn's part of `MOST_BYTES`."""
        size, count = 0, 0
        for item in self._waiting:
            size += item.size
            if count and size > MOST_BYTES // self._at_once:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _write(self, group: Sequence[Appended], turn: int) -> None:
        try:
            segment = self._segment or self._begin()
            if segment.takes_more and self._segment is None:
                self._segment, self._opened_at = segment, time.monotonic()
            places = segment.append([item.pieces for item in group])
            for item, place in zip(group, places, strict=True):
                item.place = place
            told = [(place, item.facts) for place, item in zip(places, group, strict=True)]
            with self._changed:  # of two versions of one object the newer one is told of last
                self._changed.wait_for(lambda: self._under_way[0] == turn)
            self._flushed(Group(segment.id, segment.flushed, told))
        except FlushFailed as error:
            self._fail(group, error)
        except CapacityError as error:  # a store or a database that does not confirm: the archive tries again
            for item in group:
                item.error = error
        except OSError as error:
            for item in group:
                item.error = not_spooled(error)
        except BaseException as error:  # also a library's panic, which is no Exception
            self._fail(group, error)  # what of the group is on the disk, nobody knows: as after a failed flush
        for item in group:
            item.done.set()

    def _fail(self, group: Sequence[Appended], error: BaseException) -> None:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        refused = CapacityError("flush-failed", f"the disk of the spool did not take a flush: {reason}")
        with self._changed:
            is_first, self.failed = not self.failed, True
            left, self._waiting = self._waiting, []
        for item in (*group, *left):
            item.error = refused
            item.done.set()
        try:
            log.error("a flush failed: nothing more is taken, this role starts anew", fault=fault(error), reason=reason)
            self._close()
        finally:  # a role that is not told would refuse for ever
            if is_first:
                self._on_failure()

    def _is_old(self) -> bool:
        if self._segment is None:
            return False
        if self._segment.end >= self._segment_bytes:
            return True
        return time.monotonic() - self._opened_at >= OLDEST_S

    def _close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def _is_interruptible() -> bool:
    """Whether a signal may raise here: a write that is cut off leaves a segment that nobody can go on with."""
    return threading.current_thread() is threading.main_thread()
