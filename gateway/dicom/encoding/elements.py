"""Walking the data elements of an encoded data set without decoding or changing anything (PS3.5 chapter 7).

The walker reads what is found in hospitals, not only what conforms: it follows an implicit data set labelled explicit
and the reverse, implicit items inside explicit sequences (PS3.5 6.2.2), unknown VRs, and a tail of zeros. It is lenient
in the same places as pydicom, which decodes the header afterwards, so that both see the same elements.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.dicom.encoding.source import Source
from gateway.errors import DicomError

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
_PIXEL_GROUP = 0x7FE0
_LEAST_BYTES = 8  # of a head; no more is asked for where the next element may be the pixel data
_HEAD_BYTES = 14  # of an item's head and what tells its layout; no head of an element is longer
MAX_DEPTH = 48  # nested sequences of undefined length

VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # 32-bit length after two reserved bytes
BULK_VRS = frozenset(b"OB OD OF OL OV OW UN".split())


@dataclass(frozen=True, slots=True)
class Element:
    """The head of one data element; its value starts at `value` bytes into the data set."""

    tag: int
    vr: bytes  # b"" when the encoding is implicit
    length: int  # UNDEFINED for sequences and fragments that end with a delimiter
    start: int
    value: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How the bytes that follow are laid out: the transfer syntax, or what was found instead."""

    implicit: bool
    little_endian: bool

    @property
    def order(self) -> str:
        return "<" if self.little_endian else ">"

    def tag(self, data: bytes) -> int:
        group, element = struct.unpack_from(self.order + "HH", data)
        return group << 16 | element

    def found(self, head: bytes, nested: bool) -> Layout:
        """This layout, or its explicit/implicit twin when the first six bytes of a data set tell so.

        Inside a sequence implicit never turns explicit: a length may look like letters there.
        """
        if len(head) < 6 or (nested and self.implicit):
            return self
        implicit = not (0x40 < head[4] < 0x5B and 0x40 < head[5] < 0x5B)
        return self if implicit == self.implicit else Layout(implicit, self.little_endian)


def read_head(source: Source, layout: Layout) -> Element:
    """Read tag, VR and length of the element that begins here. Raises DicomError "truncated", "too-many-elements"."""
    source.count_element()
    start = source.position
    head = source.take(8)
    tag = layout.tag(head)
    if tag >> 16 == 0xFFFE:  # items and delimiters have no VR in any syntax
        return Element(tag, b"", struct.unpack_from(layout.order + "I", head, 4)[0], start, source.position)
    vr = b"" if layout.implicit else head[4:6]
    if vr in LONG_VRS:
        length = struct.unpack(layout.order + "I", source.take(4))[0]
    elif vr and b"AA" <= vr <= b"ZZ":  # also VRs that nobody knows: short length, as pydicom reads them
        length = struct.unpack_from(layout.order + "H", head, 6)[0]
    else:
        vr = b""
        length = struct.unpack_from(layout.order + "I", head, 4)[0]
    return Element(tag, vr, length, start, source.position)


def top_level(source: Source, layout: Layout) -> Iterator[Element]:
    """Yield the head of every top-level element; the caller must consume the value (`skip_value`) before going on.

    A tail of zero bytes, left behind by some writers, ends the data set.

    Raises
    ------
    DicomError
        "truncated", "too-many-elements", or "stray-delimiter" for an item or delimiter outside any sequence.
    """
    while head := source.peek(8):
        if not any(head):
            if not source.rest_is_zero():
                raise DicomError("trailing-bytes", f"bytes that are no data element follow byte {source.position}")
            return
        element = read_head(source, layout)
        if element.tag >> 16 == 0xFFFE:
            raise DicomError("stray-delimiter", f"an item or delimiter outside a sequence at byte {element.start}")
        yield element


def skip_plain(source: Source, layout: Layout, longest: int) -> None:
    """Go past top-level elements in one loop, as far as they are read ahead and are plain: of a defined length up to
    `longest`, before the pixel data. What it stops at is for `top_level`, which says what is wrong with it.
    """
    data, at = source.ahead(_LEAST_BYTES)
    begin, end, elements, most = at, len(data) - _HEAD_BYTES, 0, source.elements_left
    unpack, long, short = (struct.Struct(layout.order + kind).unpack_from for kind in ("HH", "I", "H"))
    implicit = layout.implicit
    while at <= end and elements < most:
        group, number = unpack(data, at)
        if group >= _PIXEL_GROUP or not (group or number):
            break
        vr = b"" if implicit else data[at + 4 : at + 6]
        if vr in LONG_VRS:
            length, value = long(data, at + 8)[0], at + 12
        elif vr and b"AA" <= vr <= b"ZZ":
            length, value = short(data, at + 6)[0], at + 8
        else:
            length, value = long(data, at + 4)[0], at + 8
        if length > longest or value + length > len(data):
            break
        at = value + length
        elements += 1
    source.advance(at - begin, elements)


def skip_value(source: Source, element: Element, layout: Layout, depth: int = 0) -> int:
    """Go past the value of `element`; returns the number of items, which is 0 for a defined length.

    Raises
    ------
    DicomError
        "truncated", "bad-sequence" (something else than items), "nested-too-deep", "too-many-elements".
    """
    if element.length != UNDEFINED:
        source.skip(element.length)
        return 0
    if depth >= MAX_DEPTH:
        raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences at byte {element.start}")
    return _Skip(source, layout, depth).items()


class _Skip:
    """Goes past items of undefined length, nested ones too: as far as they are read ahead in one loop."""

    def __init__(self, source: Source, layout: Layout, depth: int) -> None:
        self._source = source
        self._around: list[Layout] = []  # layouts of the items in which a sequence is open
        self._layout = layout
        self._in_item = False
        self._depth = depth  # of sequences around the outermost one
        self._found = 0

    def items(self) -> int:
        """Go past them and their delimiter; gives how many there are, those in nested sequences not counted."""
        while not (self._ahead() or self._next()):
            pass
        return self._found

    def _ahead(self) -> bool:
        """Go past what is read ahead, up to what needs a closer look; True behind the last delimiter."""
        data, at = self._source.ahead(_HEAD_BYTES)
        begin, end, elements, most = at, len(data) - _HEAD_BYTES, 0, self._source.elements_left
        around, in_item, is_done = self._around, self._in_item, False
        order = self._layout.order
        unpack, long, short = (struct.Struct(order + kind).unpack_from for kind in ("HH", "I", "H"))
        implicit = self._layout.implicit
        while at <= end and elements < most:
            group, number = unpack(data, at)
            if group == 0xFFFE:
                (length,) = long(data, at + 4)
                if in_item:
                    if number != 0xE00D:
                        break
                    at, in_item = at + 8, False
                    self._layout = around.pop()
                    implicit = self._layout.implicit
                elif number == 0xE0DD:
                    at, in_item = at + 8, True
                    if not around:
                        is_done, elements = True, elements + 1
                        break
                elif number != 0xE000:
                    break
                elif length != UNDEFINED:
                    if at + 8 + length > end:
                        break
                    self._found += not around
                    at += 8 + length
                else:
                    self._found += not around
                    at, in_item = at + 8, True
                    around.append(self._layout)
                    self._layout = self._layout.found(data[at : at + 6], nested=True)
                    implicit = self._layout.implicit
                elements += 1
                continue
            if not in_item:
                break
            vr = b"" if implicit else data[at + 4 : at + 6]
            if vr in LONG_VRS:
                length, value = long(data, at + 8)[0], at + 12
            elif vr and b"AA" <= vr <= b"ZZ":
                length, value = short(data, at + 6)[0], at + 8
            else:
                length, value = long(data, at + 4)[0], at + 8
            if length == UNDEFINED:
                if self._depth + len(around) >= MAX_DEPTH:
                    break
                at, in_item = value, False
            elif value + length > end:
                break
            else:
                at = value + length
            elements += 1
        self._in_item = in_item
        self._source.advance(at - begin, elements)
        return is_done

    def _next(self) -> bool:
        """Go past one head and its value, whatever it is; True behind the last delimiter."""
        source = self._source
        head = read_head(source, self._layout)
        if not self._in_item:
            if head.tag == SEQUENCE_END:
                self._in_item = True
                return not self._around
            if head.tag != ITEM:
                raise DicomError("bad-sequence", f"neither item nor delimiter inside a sequence at byte {head.start}")
            self._found += not self._around
            if head.length != UNDEFINED:
                source.skip(head.length)
                return False
            self._around.append(self._layout)
            self._layout = self._layout.found(source.peek(6), nested=True)
            self._in_item = True
            return False
        if head.tag == ITEM_END:
            self._layout = self._around.pop()
            self._in_item = False
        elif head.tag >> 16 == 0xFFFE:
            raise DicomError("bad-sequence", f"an item is not closed before byte {head.start}")
        elif head.length != UNDEFINED:
            source.skip(head.length)
        elif self._depth + len(self._around) >= MAX_DEPTH:
            raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences at byte {head.start}")
        else:
            self._in_item = False
        return False
