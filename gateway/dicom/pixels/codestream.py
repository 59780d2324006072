"""What a compressed frame says of itself, read before any decoder sees it.

Decoders allocate by the size in the codestream, and pydicom's own reader of JP2 boxes does not end on a box of length
0: so size and shape are compared with the header here, and a JP2 wrapper is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dicom.encoding.syntaxes import Syntax
from gateway.errors import DicomError

_JP2 = b"\x00\x00\x00\x0cjP  "
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame; F7 is JPEG-LS
_COD, _SOT = 0x52, 0x90  # JPEG 2000: coding style default, start of tile-part
_STANDALONE = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class Codestream:
    """Size of one compressed frame, and its bytes without any wrapper."""

    rows: int
    columns: int
    components: int
    precision: int
    data: bytes


def inspect(frame: bytes, syntax: Syntax) -> Codestream | None:
    """Read the head of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame; None for RLE, which has no size of its own.

    Raises
    ------
    DicomError
        "undecodable-pixels" when there is no such head.
    """
    if syntax.codec == "rle":
        return None
    try:
        return _jpeg_2000(frame) if syntax.codec == "jpeg-2000" else _jpeg(frame)
    except IndexError:
        raise _broken() from None


def starts_frame(fragment: bytes, syntax: Syntax) -> bool:
    """True when a fragment begins a codestream rather than going on with one."""
    if syntax.codec == "jpeg-2000":
        return fragment[:4] == b"\xff\x4f\xff\x51" or fragment[:8] == _JP2
    return fragment[:2] == b"\xff\xd8"


def has_component_transform(data: bytes) -> bool:
    """Whether a JPEG 2000 or HTJ2K codestream turned its first three components (ISO/IEC 15444-1 A.6.1, SGcod)."""
    try:
        position = 2
        while data[position] == 0xFF and data[position + 1] != _SOT:
            if data[position + 1] == _COD:
                return data[position + 8] == 1
            position += 2 + _short(data, position + 2)
    except IndexError:
        pass
    return False


def _jpeg(data: bytes) -> Codestream:
    """ISO/IEC 10918-1 B.1, B.2.2; ISO/IEC 14495-1 annex C has the same frame head."""
    if data[:2] != b"\xff\xd8":
        raise _broken()
    position = 2
    while True:
        if data[position] != 0xFF:
            raise _broken()
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _STANDALONE:
            position += 2
        elif marker in _SOF:
            head = position + 4
            rows, columns = _short(data, head + 1), _short(data, head + 3)
            return Codestream(rows, columns, data[head + 5], data[head], data)
        else:
            position += 2 + _short(data, position + 2)


def _jpeg_2000(data: bytes) -> Codestream:
    """ISO/IEC 15444-1 A.5.1 (SIZ), I.4 (boxes)."""
    if data[:8] == _JP2:
        data = _unwrap(data)
    if data[:4] != b"\xff\x4f\xff\x51":
        raise _broken()
    right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    components = _short(data, 40)
    for component in range(min(components, 4)):
        if data[43 + 3 * component] != 1 or data[44 + 3 * component] != 1:
            raise DicomError("undecodable-pixels", "the components of a JPEG 2000 frame are subsampled")
    return Codestream(bottom - top, right - left, components, (data[42] & 0x7F) + 1, data)


def _unwrap(data: bytes) -> bytes:
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"jp2c":
            return data[position + 8 :]
        if length < 8:
            break
        position += length
    raise _broken()


def _short(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _broken() -> DicomError:
    return DicomError("undecodable-pixels", "a compressed frame has no readable head")
