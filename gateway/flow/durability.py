"""What has to happen before the archive hears success, and who cleans up after it: on this disk, or in the cluster.

One seam. Where files lie (`gateway.flow.spool.Files`) decides it; everything else in the flow knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from gateway.errors import CapacityError
from gateway.flow.segments.file import SegmentFile
from gateway.flow.segments.log import SegmentLog
from gateway.flow.segments.reclaim import Reclaimer
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.rows import Rows, RowWriter
from gateway.flow.segments.shared import CommittedRows, Orphans, SegmentObject, SharedReclaimer
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.shared import StoreFiles
from gateway.flow.store import FlowStore

# While one group is on its way into the store, another is: with n groups n of n + 1 of those who send and wait are on
# their way. More are faster, and many more objects, each of which costs the store (`tests.benchmarks.groups`).
GROUPS_AT_ONCE = 2

log = structlog.get_logger(__name__)


class Reclaiming(Protocol):
    """What frees the room that segments take."""

    def once(self, now: float | None = None) -> int:
        """One pass; returns how many were deleted."""

    def is_ours(self) -> bool:
        """Whether the files are this site's alone: else one that no row names may be another's."""

    def is_all_told(self) -> bool:
        """Whether every instance in a segment has its row: else a file that no row names may still be needed."""


class Durability(Protocol):
    """How received instances become durable."""

    folders: list[Path]  # of this machine, which will need room for what is received

    def rows(self) -> Rows:
        """What writes rows."""

    def log(self, rows: Rows, segment_bytes: int, failed: Callable[[], None]) -> SegmentLog:
        """What all associations of this process append to."""

    def take_over(self) -> int:
        """At a start: give what dead processes left its rows; returns how many instances got theirs."""

    def reclaimer(self) -> Reclaiming:
        """What deletes segments that nobody needs any more."""


class OnDisk:
    """One flush of this machine's disk; rows follow, and a start replays the tail."""

    def __init__(self, spool: ReceivedSpool, store: FlowStore) -> None:
        self._spool = spool
        self._store = store
        # disks that it passes on its way: each may be a volume of its own
        self.folders = [spool.folder, *(spool.folder.parent / name for name in ("vault", "derived", "database"))]

    def rows(self) -> Rows:
        """Rows follow."""
        return RowWriter(self._store.add_received)

    def log(self, rows: Rows, segment_bytes: int, failed: Callable[[], None]) -> SegmentLog:
        """Segments in the spool's folder."""
        return SegmentLog(partial(SegmentFile, self._spool.folder), segment_bytes, rows.put, failed)

    def take_over(self) -> int:
        """Replay tails; ConfigError as `gateway.flow.segments.recovery.take_over`."""
        return take_over(self._spool, self._store)

    def reclaimer(self) -> Reclaimer:
        """Of the folder."""
        return Reclaimer(self._spool, self._store)


class InCluster:
    """One object in the store and its rows at a synchronous standby, both before success."""

    def __init__(self, spool: ReceivedSpool, files: StoreFiles, store: FlowStore) -> None:
        self._files = files
        self._store = store
        self._orphans = Orphans(spool, files, store)
        self.folders = [files.folder]

    def rows(self) -> Rows:
        """Committed at once."""
        return CommittedRows(self._store.add_received)

    def log(self, rows: Rows, segment_bytes: int, failed: Callable[[], None]) -> SegmentLog:
        """A group is an object."""
        return SegmentLog(partial(SegmentObject, self._files), segment_bytes, rows.put, failed, GROUPS_AT_ONCE)

    def take_over(self) -> int:
        """Of any replica. Where the store is away nothing is received; once it is back, workers look every minute."""
        try:
            return self._orphans.adopt()
        except CapacityError as error:
            log.warning("objects without rows are looked for later", code=error.code)
            return 0

    def reclaimer(self) -> SharedReclaimer:
        """Of the store."""
        return SharedReclaimer(self._orphans, self._files, self._store)


def durability_of(spool: ReceivedSpool, store: FlowStore) -> Durability:
    """As the place of the spool's files says."""
    if isinstance(spool.files, StoreFiles):
        return InCluster(spool, spool.files, store)
    return OnDisk(spool, store)
