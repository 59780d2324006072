"""Whole segments go when all their instances are done; of one that few still need, these are copied forward."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from gateway.flow.segments.file import SegmentFile
from gateway.flow.segments.format import (
    FORWARDED,
    HEADER_SIZE,
    MARK_SIZE,
    RECEIVED,
    Place,
    read_record_head,
    scan,
)
from gateway.flow.segments.format import RECORD_HEADER_SIZE as HEAD
from gateway.flow.segments.spool import ReceivedSpool, SegmentInfo
from gateway.flow.spool import sync_folder
from gateway.flow.store import FlowStore

FEW = 0.5  # of a segment's bytes: when no more are needed, they are copied forward
REST_S = 3600.0  # a segment is copied only when it was left alone so long: most are done by then
MOST_COPIED = 64 << 20  # bytes in one pass

log = structlog.get_logger(__name__)


class Reclaimer:
    """Frees the disk that segments take."""

    def __init__(self, spool: ReceivedSpool, store: FlowStore) -> None:
        self._spool = spool
        self._store = store

    def once(self, now: float | None = None) -> int:
        """One pass over all closed segments. Returns how many were deleted."""
        now = time.time() if now is None else now
        deleted, left = self._sweep_empty(now), MOST_COPIED
        for segment in list(self._spool.segments()):
            if segment.is_open or not self._is_told(segment):
                continue
            needed = self._store.places_in(segment.id)
            if not needed:
                segment.path.unlink(missing_ok=True)
                deleted += 1
            elif left > 0 and now - segment.path.stat().st_mtime >= REST_S:
                left -= self._copy_forward(segment, needed)
        gone = [one for one in self._store.told_segments() if not self._spool.segment_path(one).exists()]
        if deleted or gone:  # also those of a pass whose flush failed
            sync_folder(self._spool.folder)  # one that came back after its row was forgotten would be replayed
        for one in gone:
            self._store.forget_segment(one)
        return deleted

    def is_ours(self) -> bool:
        """The folder is this site's alone."""
        return True

    def is_all_told(self) -> bool:
        """Whether every instance in a segment has its row: else a file that no row names may still be needed."""
        paths = {path for path in self._spool.segment_paths() if path.stat().st_size >= HEADER_SIZE}
        known = list(self._spool.segments())
        unreadable = paths - {segment.path for segment in known}  # their headers were damaged: they wait for a person
        return not unreadable and all(map(self._is_told, known))

    def _is_told(self, segment: SegmentInfo) -> bool:
        """Whether the rows of a segment are written; of one that was copied forward they were there before."""
        if segment.kind != RECEIVED or segment.size <= HEADER_SIZE:
            return True
        return self._store.rows_until(segment.id) + MARK_SIZE >= segment.size  # a mark may stand behind; no record can

    def _sweep_empty(self, now: float) -> int:
        """Segments that a kill left before their header was whole; nothing in them was ever acknowledged."""
        deleted = 0
        for path in self._spool.segment_paths():
            with suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size < HEADER_SIZE and now - status.st_mtime >= REST_S:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # by a clock that jumped, one that is begun is old
                    if os.fstat(file.fileno()).st_size < HEADER_SIZE:
                        path.unlink()
                        deleted += 1
        return deleted

    def _copy_forward(self, segment: SegmentInfo, needed: Sequence[Place]) -> int:
        """Copy records to a segment of their own and let the rows name them there. Returns the bytes copied."""
        records: list[tuple[Place, int]] = []
        with open(segment.path, "rb") as file:
            for place in needed:
                file.seek(place.offset)
                head = read_record_head(file.read(HEAD))
                if head is None:
                    log.error("a record of the spool cannot be read; its segment stays", segment=segment.id)
                    return 0
                records.append((place, head.size))
            if sum(size for _, size in records) > FEW * segment.size:
                return 0
            copies = []
            for place, size in records:
                if next(scan(file, segment.id, place.offset, segment.size)).kind != "instance":
                    log.error("a record of the spool was changed; its segment stays", segment=segment.id)
                    return 0
                file.seek(place.offset)
                copies.append([file.read(size)])
        target = SegmentFile(segment.path.parent, FORWARDED)
        try:
            placed = target.append(copies)
            # while it is locked: without rows, a segment that is closed is deleted by whoever passes
            self._store.moved({old.name: new.name for (old, _), new in zip(records, placed, strict=True)})
        finally:
            target.close()
        log.info("copied forward", instances=len(records), segment=segment.id)
        return sum(size for _, size in records)
