"""Segments in an object store: one group of records is one object, and its rows are committed before anybody is told.

So there is no tail to replay and no end to cut: an object is there whole or not at all. One whose rows never came was
acknowledged to nobody (or the database has lost them): any replica writes its rows, and what is in it is queued as all
else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence

import structlog
from sqlalchemy.exc import IntegrityError

from gateway.errors import CapacityError, SealError
from gateway.flow.segments.format import (
    HEADER_SIZE,
    RECEIVED,
    SUFFIX,
    Place,
    flushed_mark,
    read_segment_header,
    scan,
    segment_header,
)
from gateway.flow.segments.log import Group
from gateway.flow.segments.spool import ReceivedSpool, segment_name
from gateway.flow.shared import StoreFiles
from gateway.flow.store import FlowStore

OWNER = "owner"  # an object's name
LATE_S = 60.0  # an object without rows is younger only while its commit is under way
_SEGMENT = re.compile(rf"([0-9a-f]{{32}}){re.escape(SUFFIX)}")

log = structlog.get_logger(__name__)


class SegmentObject:
    """A segment that one group fills (`gateway.flow.segments.log.Segment`)."""

    takes_more = False

    def __init__(self, files: StoreFiles) -> None:
        self.id = secrets.token_hex(16)
        self.end = self.flushed = HEADER_SIZE
        self._files = files

    def append(self, records: Sequence[Sequence[bytes | memoryview]]) -> list[Place]:
        """Store the group with its mark, and give where each record begins; CapacityError as `Bucket`."""
        places = []
        for record in records:
            places.append(Place(self.id, self.flushed))
            self.flushed += sum(map(len, record))
        data = b"".join(
            (segment_header(self.id, RECEIVED), *(piece for one in records for piece in one), flushed_mark(self.id))
        )
        self.end = len(data)
        try:
            self._create(self._files.path(segment_name(self.id)), data)
        except CapacityError as error:  # the archive gets a sentence that fits, and no address of ours
            log.warning("a group of instances was not taken", code=error.code, reason=error.message)
            raise CapacityError(error.code, "the object store has not confirmed it", error.hint) from None
        return places

    def close(self) -> None:
        """Nothing is held open."""

    def _create(self, path: str, data: bytes) -> None:
        # the name is random: one that is there is ours, sent again because the answer was lost
        bucket = self._files.bucket
        if not bucket.create(path, data) and bucket.size(path) != len(data):
            raise bucket.away("it has another object in place of ours")


class CommittedRows:
    """Rows that are there before anybody is told of a group (`gateway.flow.segments.rows.Rows`)."""

    def __init__(self, add: Callable[[Sequence[Group]], None]) -> None:
        self._add = add

    def put(self, group: Group) -> None:
        """Commit the rows of a group; CapacityError when the database has not confirmed them."""
        add_once(self._add, group)

    def check(self) -> None:
        """Nothing waits."""

    def settle(self, timeout_s: float | None = None) -> bool:
        """Nothing waits."""
        return True

    def stop(self, timeout_s: float = 10.0) -> None:
        """Nothing waits."""


def add_once(add: Callable[[Sequence[Group]], None], group: Group) -> None:
    """Write the rows of a group that another process may be writing at this moment."""
    try:
        add([group])
    except IntegrityError:
        add([group])  # what has its row keeps it


class Orphans:
    """Objects whose rows never came."""

    def __init__(self, spool: ReceivedSpool, files: StoreFiles, store: FlowStore) -> None:
        self._spool = spool
        self._files = files
        self._store = store

    def is_ours(self) -> bool:
        """Whether this database is the one that has used the bucket first, as an object there says.

        A second one, of a copy of the site say, would take up what the first has in its hands, and delete what the
        first alone knows of.
        """
        bucket, ours = self._files.bucket, self._store.identity()
        try:
            owner = bucket.range(OWNER, 0, 200).data.decode("ascii", "replace")
        except FileNotFoundError:
            if bucket.create(OWNER, ours.encode()):
                return True
            owner = bucket.range(OWNER, 0, 200).data.decode("ascii", "replace")
        if owner != ours:
            log.error(
                "the object store's place is another database's: give each site a prefix of its own in [store] url, or,"
                f" where this database has taken the other's place, delete the object {OWNER} there"
            )
        return owner == ours

    def adopt(self, late_s: float = LATE_S) -> int:
        """Write the rows of all that are older than `late_s`. Returns how many instances got theirs."""
        if not self.is_ours():
            return 0
        adopted = 0
        for segment, size in self.found(late_s):
            try:
                adopted += self._adopt(segment, size)
            except FileNotFoundError:
                continue  # somebody else was quicker, and it is done already
            except SealError as error:
                log.error("an object without rows cannot be read; it stays", segment=segment, code=error.code)
        if adopted:
            log.warning("received instances got their rows from the object store", instances=adopted)
        return adopted

    def found(self, late_s: float = LATE_S) -> Iterator[tuple[str, int]]:
        """Ids and sizes of segments without rows, in the order they were stored, as the store tells it (to the second,
        often): of two versions of one object the newer is told of last.
        """
        listed = [
            (one.changed_at, found[1], one.size)
            for one in self._files.listed(late_s)
            if (found := _SEGMENT.fullmatch(one.name))
        ]
        told = set(self._store.told_segments()) if listed else set()
        return ((segment, size) for _, segment, size in sorted(listed) if segment not in told)

    def _adopt(self, segment: str, size: int) -> int:
        with self._files.open(segment_name(segment)) as file:
            header = read_segment_header(file.read(HEADER_SIZE))
            if header != (segment, RECEIVED):
                raise SealError("seal-format", "its header is not that of this segment")
            found, end = [], HEADER_SIZE
            for step in scan(file, segment, HEADER_SIZE, size):
                if step.kind in ("torn", "damaged"):
                    raise SealError("tampered", "a record in it cannot be read")
                if step.kind == "instance":
                    assert step.head is not None
                    facts = self._spool.open_facts(step.facts, step.head.id)
                    found.append((Place(segment, step.offset), facts))
                    end = step.offset + step.head.size
        add_once(self._store.add_received, Group(segment, end, found))
        return len(found)


class SharedReclaimer:
    """Deletes objects whose instances are all done, and adopts orphans; `Reclaimer` for segments in a store."""

    def __init__(self, orphans: Orphans, files: StoreFiles, store: FlowStore) -> None:
        self._orphans = orphans
        self._files = files
        self._store = store

    def once(self, now: float | None = None) -> int:
        """One pass. Returns how many were deleted."""
        self._orphans.adopt()
        deleted = 0
        for segment in self._store.finished_segments():
            self._files.delete(segment_name(segment))
            self._store.forget_segment(segment)
            deleted += 1
        return deleted

    def is_ours(self) -> bool:
        """As `Orphans.is_ours`."""
        return self._orphans.is_ours()

    def is_all_told(self) -> bool:
        """Whether every instance in a segment has its row."""
        return next(self._orphans.found(0), None) is None
