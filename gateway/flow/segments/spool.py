"""The spool of received data sets: in segments, or, where one is large, in a file of its own."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from gateway.errors import SealError
from gateway.flow.segments.body import Body, Memory
from gateway.flow.segments.format import (
    HEADER_SIZE,
    RECORD_HEADER_SIZE,
    SUFFIX,
    Place,
    read_record_head,
    read_segment_header,
)
from gateway.flow.spool import Spool

_SEGMENT = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")


@dataclass(frozen=True)
class SegmentInfo:
    """A segment as it lies in the folder; `is_open`: a process may append to it."""

    id: str
    kind: int
    path: Path
    size: int
    is_open: bool


def segment_name(segment: str) -> str:
    """The name of a segment's file."""
    return f"{segment}{SUFFIX}"


class ReceivedSpool(Spool):
    """A `Spool` that also reads what lies in segments; a place in one is named ``SEGMENT@OFFSET``."""

    def open(self, name: str) -> BinaryIO:
        """Open received bytes for reading; as `Spool.open`."""
        place = Place.parse(name)
        if place is None:
            return super().open(name)
        file = self.files.open(segment_name(place.segment))
        try:
            file.seek(place.offset)
            head = read_record_head(file.read(RECORD_HEADER_SIZE))
            if head is None:
                raise SealError("tampered", "no record begins where the instance table names one")
            body = _Window(file, place.offset + RECORD_HEADER_SIZE + head.facts, head.body)
            return cast(BinaryIO, self._cipher.reader(cast(BinaryIO, body), head.id))
        except BaseException:
            file.close()
            raise

    def exists(self, name: str) -> bool:
        """Whether a file, or the segment of a place, is there."""
        place = Place.parse(name)
        return super().exists(name) if place is None else self.files.exists(segment_name(place.segment))

    def delete(self, name: str) -> None:
        """Delete a file. What lies in a segment goes with the whole segment (`gateway.flow.segments.reclaim`)."""
        if Place.parse(name) is None:
            super().delete(name)

    def names(self, older_than_s: float) -> Iterator[str]:
        """Names of files, as `Spool.names`; segments are none."""
        return (name for name in super().names(older_than_s) if not name.endswith(SUFFIX))

    def new_body(self, memory: Memory) -> Body:
        """A data set on its way in."""
        return Body(self.files, self._cipher, memory)

    def seal_facts(self, facts: dict[str, object], name: str) -> bytes:
        """What a record says of the data set `name`, encrypted."""
        return self._cipher.seal_facts(json.dumps(facts).encode(), name)

    def open_facts(self, sealed: bytes, name: str) -> dict[str, Any]:
        """What `seal_facts` encrypted; SealError when it was changed."""
        return json.loads(self._cipher.open_facts(sealed, name))

    def segment_path(self, segment: str) -> Path:
        """Where a segment lies on this machine's disk."""
        return self.folder / segment_name(segment)

    def segment_paths(self) -> list[Path]:
        """Every segment in the folder, whatever is in it. What is no plain file, or has no segment's name, is none."""
        with os.scandir(self.folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if _SEGMENT.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )

    def segments(self) -> Iterator[SegmentInfo]:
        """All segments in the folder whose header can be read and tells their name."""
        for path in self.segment_paths():
            try:
                with open(path, "rb") as file:
                    header = read_segment_header(file.read(HEADER_SIZE))
                    is_open = _is_locked(file.fileno())
                    size = os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                continue
            if header is not None and header[0] == path.stem:
                yield SegmentInfo(header[0], header[1], path, size, is_open)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


class _Window(io.RawIOBase):
    """A part of a file as if it were the whole; closing it closes the file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        self._file.seek(self._start + self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = max(0, self._size - self._position)
        self._file.seek(self._start + self._position)
        count = self._file.readinto(memoryview(buffer)[:left])  # type: ignore[attr-defined]
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
