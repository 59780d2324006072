"""One segment being written: whole groups of records, each flushed and marked before the next is written."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.flow.segments.format import HEADER_SIZE, RECEIVED, SUFFIX, Place, flushed_mark, segment_header
from gateway.flow.spool import sync_folder

_MOST_PIECES = 512  # of one writev; Linux takes 1024


class FlushFailed(OSError):
    """The disk did not take a flush. A second one might succeed and lie (the kernel drops what it could not write)."""


class SegmentFile:
    """A new segment in `folder`, locked by this process for as long as it is open.

    The lock tells others that more may follow; the kernel drops it when the process ends, however that comes.
    Not for several threads at once. `flushed`: the byte up to which all is durable; a mark may stand behind it.

    Raises
    ------
    OSError
        It cannot be made.
    """

    takes_more = True

    def __init__(self, folder: Path, kind: int = RECEIVED) -> None:
        self.id = secrets.token_hex(16)
        self._path = folder / f"{self.id}{SUFFIX}"
        self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # others may look at it for a moment
            if self._is_gone():
                raise OSError(errno.ENOENT, "the segment was deleted")
            _write_all(self._file, [segment_header(self.id, kind)])
            sync_folder(folder)  # the folder's entry is durable before anything in the segment is said to be
        except BaseException:
            os.close(self._file)
            with suppress(OSError):
                self._path.unlink()
            raise
        self.end = self.flushed = HEADER_SIZE

    def append(self, records: Sequence[Sequence[bytes | memoryview]]) -> list[Place]:
        """Write a group of records, each in pieces, and flush it. Returns where each begins.

        Raises
        ------
        FlushFailed
            Nothing more may be written here: close it.
        OSError
            The disk is full, or the like: nothing of the group was written, the next one may be.
        """
        places: list[Place] = []
        pieces: list[bytes | memoryview] = []
        end = self.end
        for record in records:
            places.append(Place(self.id, end))
            pieces += record
            end += sum(map(len, record))
        try:
            _write_all(self._file, pieces)
        except OSError:
            self._cut()
            raise
        self._flush()
        self.end = self.flushed = end
        self._mark()
        return places

    def close(self) -> None:
        """Close it and let go of the lock: nothing more follows."""
        with suppress(OSError):  # what counts was flushed
            os.close(self._file)

    def _flush(self) -> None:
        try:
            os.fdatasync(self._file)
            if self._is_gone():
                raise OSError(errno.ENOENT, "the segment was deleted")
        except OSError as error:
            with suppress(OSError):  # nobody is told of the group; what the disk holds of it now is not known
                os.ftruncate(self._file, self.end)
            raise FlushFailed(error.errno, error.strerror) from None

    def _is_gone(self) -> bool:
        """What has no name any more takes every byte and every flush, and is lost when it is closed."""
        return os.fstat(self._file).st_nlink == 0

    def _mark(self) -> None:
        """Say that all so far was flushed, before anybody else is told. Not flushed itself: it only helps to tell a
        torn end from damage.
        """
        mark = flushed_mark(self.id)
        try:
            _write_all(self._file, [mark])
        except OSError:
            self._cut()
        else:
            self.end += len(mark)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._file, self.end)
        except OSError as error:
            raise FlushFailed(error.errno, error.strerror) from None


def _write_all(file: int, pieces: Sequence[bytes | memoryview]) -> None:
    waiting = [view for piece in pieces if len(view := memoryview(piece).cast("B"))]
    start = 0
    while start < len(waiting):
        written = os.writev(file, waiting[start : start + _MOST_PIECES])
        while written and written >= len(waiting[start]):
            written -= len(waiting[start])
            start += 1
        if written:
            waiting[start] = waiting[start][written:]
