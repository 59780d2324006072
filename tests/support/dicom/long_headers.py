"""An enhanced MR of thousands of frames with a header of megabytes, encoded by hand: pydicom takes a minute for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from gateway.dicom.encoding.elements import LONG_VRS
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from tests.support.dicom.enhanced import ENHANCED_MR

FRAMES = 3600
_PRIVATE = 102  # numbers in each item of a frame's private sequence: 8 MB of header in all, where there is one each
_END, _ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


@dataclass(frozen=True)
class Writer:
    """Elements, little endian; `undefined`: sequences and items end with delimiters."""

    implicit: bool = False
    undefined: bool = False

    @property
    def transfer_syntax_uid(self) -> str:
        return IMPLICIT_LITTLE if self.implicit else EXPLICIT_LITTLE

    def head(self, tag: int, vr: bytes, length: int) -> bytes:
        group, number = tag >> 16, tag & 0xFFFF
        if self.implicit:
            return struct.pack("<HHI", group, number, length)
        if vr in LONG_VRS:
            return struct.pack("<HH2sHI", group, number, vr, 0, length)
        return struct.pack("<HH2sH", group, number, vr, length)

    def element(self, tag: int, vr: str, value: bytes | str | float) -> bytes:
        if isinstance(value, str):
            value = value.encode()
        elif not isinstance(value, bytes):
            value = struct.pack({"US": "<H", "UL": "<I", "FD": "<d", "FL": "<f", "SS": "<h"}[vr], value)
        value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) & 1)
        return self.head(tag, vr.encode(), len(value)) + value

    def sequence(self, tag: int, *items: bytes) -> bytes:
        sizes = (0xFFFFFFFF if self.undefined else len(item) for item in items)
        end = _ITEM_END if self.undefined else b""
        body = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, size) + item + end for size, item in zip(sizes, items, strict=True)
        )
        length = 0xFFFFFFFF if self.undefined else len(body)
        return self.head(tag, b"SQ", length) + body + (_END if self.undefined else b"")


def enhanced_mr(writer: Writer, frames: int = FRAMES, side: int = 32, items: int = 1) -> bytes:
    """The encoded data set: an axial stack of 60 places at 60 times, as a scanner's diffusion or perfusion run has.

    items
        of each frame's private sequence: more of them make the same header of fewer frames.
    """
    e, sq = writer.element, writer.sequence
    head = [
        e(0x00080005, "CS", "ISO_IR 100"),
        e(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\NONE"),
        e(0x00080016, "UI", ENHANCED_MR),
        e(0x00080018, "UI", f"1.2.826.0.1.96.{frames}.1"),
        e(0x00080020, "DA", "20260101"),
        e(0x00080060, "CS", "MR"),
        e(0x00100010, "PN", "PHANTOM^ENHANCED"),
        e(0x00100020, "LO", "P1"),
        e(0x00180015, "CS", "BRAIN"),
        e(0x0020000D, "UI", f"1.2.826.0.1.96.{frames}.2"),
        e(0x0020000E, "UI", f"1.2.826.0.1.96.{frames}.3"),
        e(0x00280002, "US", 1),
        e(0x00280004, "CS", "MONOCHROME2"),
        e(0x00280008, "IS", str(frames)),
        e(0x00280010, "US", side),
        e(0x00280011, "US", side),
        e(0x00280100, "US", 16),
        e(0x00280101, "US", 12),
        e(0x00280102, "US", 11),
        e(0x00280103, "US", 0),
        sq(0x52009229, sq(0x00189006, e(0x00180085, "SH", "1H"))),
        sq(0x52009230, *[_frame(writer, number, items) for number in range(frames)]),
    ]
    rows, columns = np.mgrid[0:side, 0:side] - side / 2
    body = (rows**2 + columns**2 < (side * 0.4) ** 2) * 900
    noise = np.random.default_rng(36).integers(0, 200, (frames, side, side))
    pixels = (noise + body).astype("<u2").tobytes()
    return b"".join(head) + writer.head(0x7FE00010, b"OW", len(pixels)) + pixels


def _frame(writer: Writer, n: int, items: int) -> bytes:
    e, sq = writer.element, writer.sequence
    code = e(0x00080100, "SH", "121311") + e(0x00080102, "SH", "DCM") + e(0x00080104, "LO", "Localizer")
    brain = e(0x00080100, "SH", "12738006") + e(0x00080102, "SH", "SCT") + e(0x00080104, "LO", "Brain")
    localizer = e(0x00081150, "UI", ENHANCED_MR) + e(0x00081155, "UI", f"1.2.826.0.1.96.77.{n % 17}")
    private = "Philips MR Imaging DD 001"
    numbers = b"".join(e(0x20051020 + i, *(("FL", 1.0) if i % 2 else ("SS", 1))) for i in range(_PRIVATE))
    kind = e(0x00089007, "CS", "ORIGINAL\\PRIMARY\\M\\NONE") + e(0x00089205, "CS", "MONOCHROME")
    kind += e(0x00089206, "CS", "VOLUME") + e(0x00089207, "CS", "NONE") + e(0x00089208, "CS", "MAGNITUDE")
    timing = e(0x00180080, "DS", "2000") + e(0x00180091, "IS", "35") + e(0x00181314, "DS", "90")
    gradient = sq(0x00189076, e(0x00189089, "FD", struct.pack("<3d", 0.1, 0.2, 0.97)))
    content = e(0x00189073, "DT", f"2026010112{n // 60 % 60:02}{n % 60:02}.00") + e(0x00189151, "FD", 12.5)
    content += e(0x00189220, "FD", 22.0) + e(0x00189236, "CS", "NONE") + e(0x00209056, "SH", "1")
    content += e(0x00209057, "UL", n % 60 + 1) + e(0x00209128, "UL", n // 60 + 1)
    measures = e(0x00180050, "DS", "3") + e(0x00180088, "DS", "3.3") + e(0x00280030, "DS", "1.75\\1.75")
    window = e(0x00281050, "DS", str(500 + n % 100)) + e(0x00281051, "DS", str(900 + n % 200))
    rescale = e(0x00281052, "DS", "0") + e(0x00281053, "DS", "1") + e(0x00281054, "LO", "US")
    return b"".join(
        (
            sq(0x00081140, localizer + sq(0x0040A170, code)),
            sq(0x00189112, timing),
            sq(0x00189114, e(0x00189082, "FD", 30.0 + n % 8)),
            sq(0x00189115, e(0x00189009, "CS", "NO") + e(0x00189020, "CS", "NONE")),
            sq(0x00189117, e(0x00189075, "CS", "DIRECTIONAL") + gradient + e(0x00189087, "FD", n % 32 * 100.0)),
            sq(0x00189119, e(0x00180083, "DS", "1")),
            sq(0x00189152, e(0x00189057, "CS", "NONE")),
            sq(0x00189226, kind),
            sq(0x00209071, sq(0x00082218, brain) + e(0x00209072, "CS", "U")),
            sq(0x00209111, content),
            sq(0x00209113, e(0x00200032, "DS", f"-120.5\\-118.2\\{n % 60 * 3.3 - 90:.4f}")),
            sq(0x00209116, e(0x00200037, "DS", "1\\0\\0\\0\\1\\0")),
            sq(0x00289110, measures),
            sq(0x00289132, window),
            sq(0x00289145, rescale),
            e(0x20050010, "LO", private),
            sq(0x2005140F, *[e(0x00080016, "UI", ENHANCED_MR) + e(0x20050010, "LO", private) + numbers] * items),
        )
    )
