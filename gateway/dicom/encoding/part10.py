"""DICOM files: the preamble and File Meta Information around a data set (PS3.10 section 7).

The data set itself passes untouched: `split_part10` says where it begins, `write_part10` puts a head before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, BinaryIO

from gateway.dicom.encoding.elements import LONG_VRS, VRS
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.errors import DicomError

# Ours, made once from a random UUID (PS3.5 B.2); also the device UID that marked copies name as their creator.
IMPLEMENTATION_CLASS_UID = "2.25.156049674139074867258356870861721613446"
IMPLEMENTATION_VERSION_NAME = "MIAD_GATEWAY_1"

_MAX_META_VALUE = 1 << 16
_MAX_META_ELEMENTS = 64


@dataclass(frozen=True)
class FileMeta:
    """What stands before the data set; the UIDs are "" when the file does not say (then the data set tells)."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def split_part10(stream: BinaryIO) -> tuple[FileMeta, int]:
    """Read the head of a DICOM file; the stream is left at the first byte of the data set.

    Also takes files without preamble, and bare data sets, whose encoding is told from their first element.

    Parameters
    ----------
    stream
        Seekable, at its beginning.

    Returns
    -------
    (FileMeta, int)
        and the offset of the data set.

    Raises
    ------
    DicomError
        "not-dicom", "truncated" (within the File Meta), "missing-transfer-syntax".
    """
    head = stream.read(132)
    if head[128:] == b"DICM":
        start = 132
    elif head[:4] == b"\x02\0\0\0" or (head[:2] == b"\x02\0" and head[4:6] in VRS):
        start = 0
    else:
        meta = FileMeta(_guess(head), "", "")
        stream.seek(0)
        return meta, 0
    stream.seek(start)
    values, offset = _read_meta(stream, start)
    syntax = values.get(0x0010, "")
    if not syntax:
        following = stream.read(8)
        if len(following) < 8:
            raise DicomError("missing-transfer-syntax", "the file names no transfer syntax and holds no data set")
        syntax = _guess(following)
    stream.seek(offset)
    return FileMeta(syntax, values.get(0x0002, ""), values.get(0x0003, "")), offset


def write_part10(
    out: IO[bytes],
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    dataset: Iterable[bytes],
) -> None:
    """Write a DICOM file: preamble, File Meta Information (version 1), then the data set's bytes as they come."""
    meta = b"".join(
        (
            _element(0x0001, b"OB", b"\0\1"),
            _element(0x0002, b"UI", _uid(sop_class_uid)),
            _element(0x0003, b"UI", _uid(sop_instance_uid)),
            _element(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
        )
    )
    out.write(bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(meta))) + meta)
    for chunk in dataset:
        out.write(chunk)


def _read_meta(stream: BinaryIO, offset: int) -> tuple[dict[int, str], int]:
    """Group 0002 by element number, as text, and where it ends. Its group length is often wrong and not used."""
    values: dict[int, str] = {}
    for _ in range(_MAX_META_ELEMENTS):
        head = stream.read(8)
        if head[:2] != b"\x02\0":
            return values, offset
        if len(head) < 8:
            raise DicomError("truncated", "the file ends inside its File Meta Information")
        element = int.from_bytes(head[2:4], "little")
        if head[4:6] in LONG_VRS:
            head += stream.read(4)
            if len(head) < 12:
                raise DicomError("truncated", "the file ends inside its File Meta Information")
            length, size = int.from_bytes(head[8:], "little"), 12
        elif head[4:6] in VRS:
            length, size = int.from_bytes(head[6:8], "little"), 8
        else:  # implicit File Meta: wrong, but written by some
            length, size = int.from_bytes(head[4:8], "little"), 8
        if length > _MAX_META_VALUE:
            raise DicomError("not-dicom", "an element of the File Meta Information is larger than the standard allows")
        value = stream.read(length)
        if len(value) < length:
            raise DicomError("truncated", "the file ends inside its File Meta Information")
        values[element] = value.decode("ascii", "replace").strip(" \0")
        offset += size + length
    raise DicomError("not-dicom", "the File Meta Information does not end")


def _guess(head: bytes) -> str:
    """The encoding of a bare data set, from its first element (which is in group 0008 or below 0010).

    Raises DicomError "not-dicom".
    """
    if len(head) < 8:
        raise DicomError("not-dicom", "the file is shorter than one data element")
    explicit = head[4:6] in VRS
    if 0 < int.from_bytes(head[:2], "little") <= 0x0010:
        return EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    if explicit and 0 < int.from_bytes(head[:2], "big") <= 0x0010:
        return EXPLICIT_BIG
    raise DicomError("not-dicom", "the file is neither a DICOM file nor a bare data set")


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    size = struct.pack("<HI", 0, len(value)) if vr in LONG_VRS else struct.pack("<H", len(value))
    return struct.pack("<HH", 0x0002, element) + vr + size + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" if len(value) % 2 else value
