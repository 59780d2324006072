"""The layout of a segment: a header, then records one behind the other (deploy/formats.md, "Segment").

A record says what was received (its *facts*, encrypted) and holds the encrypted data set (its *body*), or it is a
*mark*: all that stands before it was flushed to the disk. A group of records is written, flushed, and marked before the
next group is written. So a record that cannot be read is the torn end of a group that nobody was told of, unless a mark
stands behind it: then the disk, or somebody, has changed what was safe.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

from gateway.errors import SealError

SUFFIX = ".segment"
MAGIC, RECORD_MAGIC = b"MGSG", b"MGSR"
VERSION = 1
RECEIVED, FORWARDED = 0, 1  # kinds of segment
INSTANCE, MARK = 1, 2  # kinds of record

_HEAD = struct.Struct(">4sBB6x16s")
_RECORD = struct.Struct(">4sB3x16sIQ")
_CRC = struct.Struct(">I")
HEADER_SIZE = _HEAD.size + _CRC.size
RECORD_HEADER_SIZE = _RECORD.size + _CRC.size
LONGEST_FACTS = 1 << 16
_PIECE = 1 << 20

_NAME = re.compile(r"([0-9a-f]{32})@([0-9]{1,15})")


@dataclass(frozen=True)
class Place:
    """Where a record begins: its segment (32 hexadecimal digits) and the offset in bytes."""

    segment: str
    offset: int

    @property
    def name(self) -> str:
        """As the instance table names it."""
        return f"{self.segment}@{self.offset}"

    @classmethod
    def parse(cls, name: str) -> Place | None:
        """The place that a name tells; None when it is the name of a file."""
        found = _NAME.fullmatch(name)
        return cls(found[1], int(found[2])) if found else None


@dataclass(frozen=True)
class RecordHead:
    """What stands before a record's facts and body."""

    kind: int
    id: str  # 32 hexadecimal digits; the body is encrypted under this name
    facts: int  # bytes
    body: int  # bytes

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return RECORD_HEADER_SIZE + self.facts + self.body + _CRC.size


def segment_header(segment: str, kind: int) -> bytes:
    """The first bytes of a segment."""
    head = _HEAD.pack(MAGIC, VERSION, kind, bytes.fromhex(segment))
    return head + _CRC.pack(zlib.crc32(head))


def read_segment_header(data: bytes) -> tuple[str, int] | None:
    """Id and kind of a segment that begins with `data`; None when it is not a whole header.

    Raises
    ------
    SealError
        ``seal-format``: a whole header of a version that this reader does not know.
    """
    if len(data) < HEADER_SIZE or _CRC.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size]):
        return None
    magic, version, kind, identity = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or kind not in (RECEIVED, FORWARDED):
        raise SealError("seal-format", "a segment of the spool has a version that this release does not know")
    return identity.hex(), kind


def record(identity: str, facts: bytes, body: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """The pieces of an instance's record, in order; `facts` and `body` are encrypted already."""
    head = _RECORD.pack(RECORD_MAGIC, INSTANCE, bytes.fromhex(identity), len(facts), sum(map(len, body)))
    checksum = zlib.crc32(facts)
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    return [head + _CRC.pack(zlib.crc32(head)) + facts, *body, _CRC.pack(checksum)]


def flushed_mark(segment: str) -> bytes:
    """The record that says: all before me in this segment was flushed."""
    head = _RECORD.pack(RECORD_MAGIC, MARK, bytes.fromhex(segment), 0, 0)
    return head + _CRC.pack(zlib.crc32(head)) + _CRC.pack(0)


MARK_SIZE = RECORD_HEADER_SIZE + _CRC.size


def read_record_head(data: bytes) -> RecordHead | None:
    """The head of a record that begins with `data`; None when none does."""
    if len(data) < RECORD_HEADER_SIZE or data[:4] != RECORD_MAGIC:
        return None
    if _CRC.unpack_from(data, _RECORD.size)[0] != zlib.crc32(data[: _RECORD.size]):
        return None
    _, kind, identity, facts, body = _RECORD.unpack_from(data)
    if kind not in (INSTANCE, MARK) or facts > LONGEST_FACTS:
        return None
    return RecordHead(kind, identity.hex(), facts, body)


@dataclass(frozen=True)
class Found:
    """One step of `scan`: a whole record, or the end of what can be read.

    kind: ``instance`` and ``mark``: a record. ``end``: the segment ends here. ``torn``: from here on nothing can be
    read, and nobody was told of it. ``damaged``: what stands here was flushed, and cannot be read.
    """

    kind: Literal["instance", "mark", "end", "torn", "damaged"]
    offset: int
    head: RecordHead | None = None
    facts: bytes = b""


def scan(file: BinaryIO, segment: str, start: int, size: int) -> Iterator[Found]:
    """Read the records of a segment from `start`, each with its checksum; the last step tells how it ends.

    Parameters
    ----------
    file
        A segment of `size` bytes, seekable.
    segment
        Its id.
    start
        Where a record begins: `HEADER_SIZE`, or the end of one.
    """
    offset = start
    while True:
        if offset == size:
            yield Found("end", offset)
            return
        file.seek(offset)
        head = read_record_head(file.read(RECORD_HEADER_SIZE))
        facts = _whole(file, head, size - offset) if head else None
        if head is None or facts is None:
            yield Found("damaged" if has_mark(file, segment, offset + 1, size) else "torn", offset)
            return
        yield Found("instance" if head.kind == INSTANCE else "mark", offset, head, facts)
        offset += head.size


def _whole(file: BinaryIO, head: RecordHead, left: int) -> bytes | None:
    """The facts of the record whose head was just read; None when it is cut off or its checksum is wrong."""
    if head.size > left:
        return None
    facts = file.read(head.facts)
    checksum, missing = zlib.crc32(facts), head.body
    while missing:
        piece = file.read(min(_PIECE, missing))
        if not piece:
            return None
        checksum = zlib.crc32(piece, checksum)
        missing -= len(piece)
    return facts if file.read(_CRC.size) == _CRC.pack(checksum) else None


def has_mark(file: BinaryIO, segment: str, start: int, size: int) -> bool:
    """Whether a mark of this segment stands anywhere from `start` on: in random bytes once in 2^352 times.

    One of another segment counts for nothing: a disk may show, behind a torn end, what a deleted file had there.
    """
    mark, position, kept = flushed_mark(segment), start, b""
    file.seek(start)
    while position < size:
        piece = file.read(min(_PIECE, size - position))
        if not piece:
            break
        position += len(piece)
        if mark in kept + piece:
            return True
        kept = piece[-(MARK_SIZE - 1) :]
    return False
