"""Words over a marked copy: an overlay plane (PS3.3 C.9.2) that viewers draw on top. The pixels are not touched."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.errors import HoldError

# From few long lines to many short ones: the first that fits is taken.
LAYOUTS = (
    ("MARKED COPY", "NOT FOR DIAGNOSIS OR ALGORITHMS"),
    ("MARKED COPY", "NOT FOR DIAGNOSIS", "OR ALGORITHMS"),
    ("MARKED", "COPY", "NOT FOR", "DIAGNOSIS", "OR", "ALGORITHMS"),
)
_NONE_ALLOWED = frozenset(f"1.2.840.10008.5.1.4.1.1.7.{kind}" for kind in (1, 2, 3, 4))
_GROUPS = range(0x6000, 0x6020, 2)  # PS3.5 7.6
_LEAST = 8  # pixels from line to line: smaller letters do not read
_SHARE = 32  # a line is so many times lower than the image
_MARGIN = 2  # pixels
_LABEL = "MARKED COPY"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def add_words(ds: Dataset, rows: int, columns: int) -> None:
    """Put the words into the first free overlay group, along the lower edge, for all frames.

    Number of Frames in Overlay and Image Frame Origin are left out: then the plane applies to every frame (C.9.2).
    Raises as `room_for_words`.
    """
    group, plane = room_for_words(ds, rows, columns)
    _write(ds, group, plane)


def room_for_words(ds: Dataset, rows: int, columns: int) -> tuple[int, np.ndarray]:
    """The first free overlay group of an image, and the plane of words for it, (H, W) bool.

    Raises
    ------
    HoldError
        "no-overlay-allowed" for images whose IODs forbid overlay planes (PS3.3 A.8.2 to A.8.5, multi-frame secondary
        capture; A.36, A.38, A.47 and others with functional groups); "no-free-overlay"
        when all 16 groups are taken; "no-room-for-words" for an image too small for letters that read.
    """
    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    if values.text(ds, "SOPClassUID") in _NONE_ALLOWED or any(keyword in ds for keyword in groups):
        message = "an image of this kind takes no overlay plane, and the route wants visible text"
        raise HoldError("no-overlay-allowed", message, "send it by a route without visible_text")
    used = {int(tag) >> 16 for tag in ds.keys()}  # noqa: SIM118 - iterating a Dataset would decode every element
    group = next((group for group in _GROUPS if group not in used), None)
    if group is None:
        message = "all 16 overlay groups of the image are taken"
        raise HoldError("no-free-overlay", message, "send it by a route without visible_text")
    return group, words_plane(rows, columns)


def _write(ds: Dataset, group: int, plane: np.ndarray) -> None:
    rows, columns = plane.shape
    bits = np.packbits(plane.reshape(-1), bitorder="little").tobytes()  # PS3.5 8.1.2: first pixel in the lowest bit
    for element, vr, value in (
        (0x0010, "US", rows),
        (0x0011, "US", columns),
        (0x0022, "LO", "Words of the gateway that marked this copy"),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x1500, "LO", _LABEL),
        (0x3000, "OW", bits + b"\0" * (len(bits) % 2)),
    ):
        ds.add_new(group << 16 | element, vr, value)


def words_plane(rows: int, columns: int) -> np.ndarray:
    """The words as an (H, W) bool plane; HoldError "no-room-for-words"."""
    height = max(_LEAST, rows // _SHARE)
    for size in dict.fromkeys((height, (height + _LEAST) // 2, _LEAST)):
        font = ImageFont.load_default(size)  # a FreeType font, since a size is given
        for lines in LAYOUTS:
            width = int(max(font.getbbox(line, mode="1")[2] for line in lines))
            if width + 2 * _MARGIN <= columns and len(lines) * size + 2 * _MARGIN <= rows:
                return _drawn(rows, columns, lines, font, size)
    message = f"{rows} x {columns} pixels are too few for words that can be read, and the route wants visible text"
    raise HoldError("no-room-for-words", message, "send it by a route without visible_text")


def _drawn(rows: int, columns: int, lines: tuple[str, ...], font: Font, size: int) -> np.ndarray:
    plane = Image.new("1", (columns, rows))
    draw = ImageDraw.Draw(plane)
    top = rows - len(lines) * size - _MARGIN
    for number, line in enumerate(lines):
        draw.text((_MARGIN, top + number * size), line, fill=1, font=font)
    return np.asarray(plane)
