"""At the start of a receiving process: what dead ones left in their segments gets its rows."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.errors import ConfigError, SealError
from gateway.flow.segments.format import HEADER_SIZE, RECEIVED, Place, has_mark, read_segment_header, scan
from gateway.flow.segments.log import Group
from gateway.flow.segments.rows import MOST_ROWS
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.store import FlowStore

log = structlog.get_logger(__name__)


def take_over(spool: ReceivedSpool, store: FlowStore) -> int:
    """Replay the tails of all segments that no living process holds. Returns how many instances got their rows.

    They come in the order they were last written: of two versions of one object the newer is told of last. A torn tail,
    of which nobody was told, is cut off.

    Raises
    ------
    ConfigError
        ``segment-damaged``: what was acknowledged cannot be read. Nothing is cut and nothing is taken in until a person
        has looked.
    CapacityError
        The database cannot be written to.
    """
    replayed = 0
    for path in sorted(spool.segment_paths(), key=_written_at):
        # not for writing: segments that the worker copied are not ours to write
        with suppress(FileNotFoundError), open(path, "rb") as file:
            if _lock(file):
                replayed += _replay(file, path, spool, store)
    if replayed:
        log.warning("instances that were acknowledged before the last end got their rows", instances=replayed)
    return replayed


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lock(file: BinaryIO) -> bool:
    """Lock a segment; False when another process writes it, or replays it. One that only looks is waited for."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            time.sleep(0.001)
        else:
            return True


def _replay(file: BinaryIO, path: Path, spool: ReceivedSpool, store: FlowStore) -> int:
    name, size = path.stem, os.fstat(file.fileno()).st_size
    try:
        header = read_segment_header(file.read(HEADER_SIZE))
    except SealError as error:
        raise _damaged(name, 0, error.message) from None
    told = store.rows_until(name)
    if header is None:
        if told or has_mark(file, name, 0, size):
            raise _damaged(name, 0, "its header cannot be read")
        with suppress(PermissionError):  # of a worker that was copying and is another user
            os.truncate(path, 0)  # nobody was told of anything in it: `reclaim` deletes it
        return 0
    if header[0] != name:
        raise _damaged(name, 0, f"it is a copy of segment {header[0]}")
    if header[1] != RECEIVED:
        return 0
    if size < told:
        raise _damaged(name, size, f"it ends there, and rows name what lay behind, up to byte {told}")
    found: list[tuple[Place, dict[str, object]]] = []
    end = told or HEADER_SIZE
    for step in scan(file, name, end, size):
        end = step.offset
        if step.kind == "damaged":
            raise _damaged(name, step.offset, "a record cannot be read, and others were written behind it")
        if step.kind == "torn":
            os.truncate(path, step.offset)
            log.warning("a torn end was cut off, which nobody was told of", segment=name, bytes=size - step.offset)
        if step.kind == "instance":
            assert step.head is not None
            try:
                facts = spool.open_facts(step.facts, step.head.id)
            except SealError as error:
                raise _damaged(name, step.offset, error.message) from None
            found.append((Place(name, step.offset), facts))
    # what a killed process had written may not be on the disk yet, and rows must not be there before it
    if found:
        _flush(file)
    for start in range(0, len(found), MOST_ROWS):
        part = found[start : start + MOST_ROWS]
        last = start + MOST_ROWS >= len(found)
        store.add_received([Group(name, end if last else found[start + MOST_ROWS][0].offset, part)])
    return len(found)


def _flush(file: BinaryIO) -> None:
    try:
        os.fdatasync(file.fileno())
    except OSError:
        # The next start would find in the kernel's memory what the disk did not take, and a second flush may lie:
        # it has to read what the disk holds. What was acknowledged had been flushed before.
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        raise


def _damaged(name: str, offset: int, why: str) -> ConfigError:
    return ConfigError(
        "segment-damaged",
        f"segment {name} of the spool, byte {offset}: {why}. What was acknowledged may be lost; nothing was changed",
        "restore the file, or look at the disk and move the segment away by hand and let the archive send again",
    )
