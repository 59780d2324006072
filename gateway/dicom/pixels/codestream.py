"""What a compressed frame says of itself, read before any decoder sees it.

Decoders allocate by the size in the codestream, and pydicom's own reader of JP2 boxes does not end on a box of length
0: so size and shape are compared with the header here, a JP2 wrapper is taken off, and the end is looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.dicom.encoding.syntaxes import Syntax
from gateway.errors import DicomError

END = b"\xff\xd9"  # ISO/IEC 10918-1 B.1.1.3 end of image; ISO/IEC 15444-1 A.4.4 end of codestream
_FILL = b"\0\xff"  # what pads a fragment
_JP2 = b"\x00\x00\x00\x0cjP  "
_J2K = b"\xff\x4f\xff\x51"
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame; F7 is JPEG-LS
_WHOLE_BY_SCANS = {0xC0, 0xC1, 0xC3, 0xF7}  # a component is whole with its scan; in the progressive ones never for sure
_SOS, _EOI = 0xDA, 0xD9
_SIZ, _COD, _SOT = 0x51, 0x52, 0x90  # JPEG 2000: image and tile size, coding style default, start of tile-part
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
# What ends entropy-coded data: in JPEG no stuffed zero, fill byte or restart marker (B.1.1.5); in JPEG-LS, which stuffs
# a bit, nothing below 80 either (ISO/IEC 14495-1 C.1).
_MARKER = {"jpeg": re.compile(rb"\xff[^\x00\xd0-\xd7\xff]"), "jpeg-ls": re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")}


@dataclass(frozen=True)
class Codestream:
    """One compressed frame without any wrapper.

    Attributes
    ----------
    rows, columns, components, precision, signed
        As the codestream says; sign only in JPEG 2000, False elsewhere.
    data
        From the first marker to the end marker; an end marker that was missing is put there.
    head
        How many of the first bytes come before the first scan or tile-part: they say how to decode.
    process
        JPEG: the start of frame marker (C0 to CF, F7). JPEG 2000: 0.
    sampling, ids
        JPEG: horizontal and vertical sampling factor, and identifier, of each component.
    application
        JPEG: (number, content) of the application segments before the frame.
    transformed
        JPEG 2000: whether the first three components went through a component transform.
    lossy
        Whether decoders may differ in the last digit.
    fault
        In what the end is not as it should be, as a clause; empty when it is.
    missing_end
        The end marker was missing.
    """

    rows: int
    columns: int
    components: int
    precision: int
    data: bytes
    signed: bool = False
    head: int = 0
    process: int = 0
    sampling: tuple[tuple[int, int], ...] = ()
    ids: tuple[int, ...] = ()
    application: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    transformed: bool = False
    lossy: bool = False
    fault: str = ""
    missing_end: bool = False


def inspect(frame: bytes, syntax: Syntax) -> Codestream | None:
    """Read a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame; None for RLE, which has no size of its own.

    Raises
    ------
    DicomError
        "undecodable-pixels" when there is no such head, or the frame is cut off; "wrong-number-of-frames" when another
        codestream comes behind the first.
    """
    if syntax.codec == "rle":
        return None
    try:
        return _jpeg_2000(frame) if syntax.codec == "jpeg-2000" else _jpeg(frame, syntax.codec)
    except IndexError:
        raise _broken() from None


def starts_frame(fragment: bytes, syntax: Syntax) -> bool:
    """True when a fragment begins a codestream rather than going on with one."""
    if syntax.codec == "jpeg-2000":
        return fragment[:4] == _J2K or fragment[:8] == _JP2
    return fragment[:2] == b"\xff\xd8"


def has_component_transform(data: bytes) -> bool:
    """Whether a JPEG 2000 or HTJ2K codestream turned its first three components (ISO/IEC 15444-1 A.6.1, SGcod)."""
    try:
        return _coding_style(data)[0]
    except IndexError:
        return False


def _jpeg(data: bytes, codec: str) -> Codestream:
    """ISO/IEC 10918-1 B.1, B.2.2; ISO/IEC 14495-1 annex C has the same frame head."""
    if data[:2] != b"\xff\xd8":
        raise _broken()
    position, application, sizes = 2, [], None
    while True:
        if data[position] != 0xFF:
            raise _broken()
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        length = _short(data, position + 2)
        content = data[position + 4 : position + 2 + length]
        if marker in (_SOS, _EOI):
            break
        if 0xE0 <= marker <= 0xEF:
            application.append((marker - 0xE0, bytes(content)))
        elif marker in _SOF and sizes is None:
            sizes = (marker, content)
        position += 2 + length
    if sizes is None:
        raise _broken()
    process, frame = sizes
    components = range(frame[5])
    end, scanned, missing = _end_of_jpeg(data, position, codec)
    fault, rest = "", data[end:]
    if missing:
        if scanned < frame[5] or process not in _WHOLE_BY_SCANS:
            raise DicomError("undecodable-pixels", "a compressed frame is cut off: it ends before its last scan")
        fault = "has no end marker"
    elif rest.strip(_FILL):
        _only_one(rest, (b"\xff\xd8\xff",))
        fault = "has bytes behind its end marker"
    return Codestream(
        rows=_short(frame, 1),
        columns=_short(frame, 3),
        components=frame[5],
        precision=frame[0],
        data=data + END if missing else data[:end],
        head=position,
        process=process,
        sampling=tuple((frame[7 + 3 * index] >> 4, frame[7 + 3 * index] & 15) for index in components),
        ids=tuple(frame[6 + 3 * index] for index in components),
        application=tuple(application),
        lossy=process not in (0xC3, 0xF7),
        fault=fault,
        missing_end=missing,
    )


def _end_of_jpeg(data: bytes, position: int, codec: str) -> tuple[int, int, bool]:
    """Where the image ends (behind the end marker), how many components its scans hold, and whether the end is missing.

    `position`: of the first scan's head.
    """
    pattern, scanned = _MARKER[codec], 0
    while True:
        if position + 2 > len(data):
            return len(data), scanned, True
        marker = data[position + 1]
        if marker == _EOI:
            return position + 2, scanned, False
        if marker == _SOS and position + 4 < len(data):
            scanned += data[position + 4]
        if marker == 0xD8:  # the start of another image where this one should go on
            raise _another()
        skip = 2 if marker in _STANDALONE or position + 4 > len(data) else 2 + _short(data, position + 2)
        found = pattern.search(data, position + skip)
        position = found.start() if found else len(data)


def _jpeg_2000(data: bytes) -> Codestream:
    """ISO/IEC 15444-1 A.4.2 (SOT), A.5.1 (SIZ), A.6.1 (COD), I.4 (boxes)."""
    if data[:8] == _JP2:
        data = _unwrap(data)
    if data[:4] != _J2K:
        raise _broken()
    right, bottom, left, top = (_long(data, at) for at in (8, 12, 16, 20))
    components = _short(data, 40)
    for component in range(min(components, 4)):
        if data[43 + 3 * component] != 1 or data[44 + 3 * component] != 1:
            raise DicomError("undecodable-pixels", "the components of a JPEG 2000 frame are subsampled")
    transformed, reversible = _coding_style(data)
    head, end, missing = _end_of_jpeg_2000(data)
    fault, rest = "", data[end:]
    if missing:
        fault = "has no end marker"
    elif rest.strip(_FILL):
        _only_one(rest, (_J2K, _JP2))
        fault = "has bytes behind its end marker"
    return Codestream(
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(data[42] & 0x7F) + 1,
        data=data[:end] + END if missing else data[:end],
        signed=bool(data[42] & 0x80),
        head=head,
        transformed=transformed,
        lossy=not reversible,
        fault=fault,
        missing_end=missing,
    )


def _coding_style(data: bytes) -> tuple[bool, bool]:
    """Whether there is a component transform, and whether the wavelet is the reversible one."""
    position = 2
    while data[position] == 0xFF and data[position + 1] != _SOT:
        if data[position + 1] == _COD:
            return data[position + 8] == 1, data[position + 13] == 1
        position += 2 + _short(data, position + 2)
    return False, False


def _end_of_jpeg_2000(data: bytes) -> tuple[int, int, bool]:
    """Where the first tile-part begins, where the codestream ends, and whether its end marker is missing."""
    position = 2
    while data[position] == 0xFF and data[position + 1] != _SOT:
        position += 2 + _short(data, position + 2)
    head, tiles = position, set()
    while data[position : position + 2] == b"\xff\x90":
        tiles.add(_short(data, position + 4))
        length = _long(data, position + 6)
        if length == 0:  # the last one, up to the end marker (A.4.2)
            whole = data.rstrip(b"\0")
            if whole[-2:] != END:
                raise DicomError("undecodable-pixels", "a JPEG 2000 frame has neither an end marker nor a length")
            return head, len(whole), False
        position += max(length, 12)
    # The end marker cannot stand in a tile's data (A.1.3): where it does, the tile is shorter than it says.
    if position > len(data) or (data[position : position + 2] != END and data[position - 2 : position] == END):
        raise DicomError("undecodable-pixels", "a compressed frame is cut off: it ends inside a tile")
    if data[position : position + 2] == END:
        return head, position + 2, False
    if data[position:].strip(b"\0"):  # what comes behind the last tile is neither a tile nor the end
        if data[position:].startswith((_J2K, _JP2)):
            raise _another()
        raise DicomError("undecodable-pixels", "a JPEG 2000 frame has neither tile nor end marker where one should be")
    across, down = (-(-(_long(data, 8 + at) - _long(data, 32 + at)) // max(_long(data, 24 + at), 1)) for at in (0, 4))
    if len(tiles) != across * down:
        raise DicomError("undecodable-pixels", "a compressed frame is cut off: it ends before its last tile")
    return head, position, True


def _only_one(rest: bytes, starts: tuple[bytes, ...]) -> None:
    if any(start in rest for start in starts):
        raise _another()


def _unwrap(data: bytes) -> bytes:
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"jp2c":
            return data[position + 8 : position + length] if length >= 8 else data[position + 8 :]
        if length < 8:
            break
        position += length
    raise _broken()


def _short(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _long(data: bytes, at: int) -> int:
    return _short(data, at) << 16 | _short(data, at + 2)


def _broken() -> DicomError:
    return DicomError("undecodable-pixels", "a compressed frame has no readable head")


def _another() -> DicomError:
    return DicomError(
        "wrong-number-of-frames",
        "the pixel data holds more frames than the header says: a second one comes behind the first",
        "Number of Frames (0028,0008) or the offset table is wrong: correct and send it again",
    )
