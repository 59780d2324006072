"""A header as well-formed Explicit VR Little Endian: the one walk by which all headers are read (PS3.5 chapter 7, A.2).

Values keep their bytes, in whatever encoding they came: only the order of bytes in binary numbers is turned, and odd
lengths are padded. Elements without VR get the dictionary's. Of an element that stands there twice the first counts.
What is irregular is noted (`gateway.dicom.encoding.notes`); what pydicom sees afterwards is regular at every level, so
both see the same elements. How many there are is bounded by the memory that they would take once they are decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from gateway.dicom.encoding import notes, vrs
from gateway.dicom.encoding.charset import python_encodings
from gateway.dicom.encoding.elements import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAX_DEPTH,
    SEQUENCE_END,
    UNDEFINED,
    VRS,
    Layout,
)
from gateway.dicom.encoding.fragments import even_fragments
from gateway.dicom.encoding.limits import Budget
from gateway.errors import DicomError

EXPLICIT = Layout(implicit=False, little_endian=True)
TRAILING_PADDING = 0xFFFCFFFC  # Data Set Trailing Padding
_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_DISPLAY_NUMBERS = frozenset({0x00281050, 0x00281051, 0x00281052, 0x00281053})  # window, rescale
_DECIMAL = re.compile(rb"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[\s\0]*")
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHI")
_ITEM = struct.Struct("<HHI")
_MAX_SHORT = 0xFFFE


@dataclass(frozen=True, repr=False)
class NormalForm:
    """A header that was walked. Its text form shows nothing of it (PHI).

    Attributes
    ----------
    elements
        Of the top level, in the order in which they came; values are bytes as in Explicit VR Little Endian.
    encodings
        Python's names of the character sets; empty where Specific Character Set is of no use.
    notes
        Codes of `gateway.dicom.encoding.notes`, each once.
    conflicts
        Tags, at any level, that stand in one data set twice with different values.
    numbers
        How many binary numbers the values hold.
    opaque
        A sequence somewhere could not be walked and stands there as it came.
    """

    elements: tuple[RawDataElement, ...]
    encodings: tuple[str, ...] = ("iso8859",)
    notes: tuple[str, ...] = ()
    conflicts: tuple[int, ...] = ()
    numbers: int = 0
    opaque: bool = False

    def dataset(self) -> Dataset:
        """A data set of its own each time; nothing in it is decoded yet."""
        ds = Dataset({element.tag: element for element in self.elements})
        ds.set_original_encoding(False, True, list(self.encodings) or ["iso8859"])
        return ds


def normal_form(header: bytes, layout: Layout, budget: Budget | None = None) -> NormalForm:
    """Walk a header (all elements before the pixel data, or behind it).

    Raises
    ------
    DicomError
        "too-many-elements", "too-many-items" beyond the budget, "nested-too-deep", "truncated", "bad-sequence".
    """
    layout = layout.found(header[:6], nested=False)
    walk = _Walk(header, layout, budget or Budget())
    try:
        walk.data_set(0, len(header), layout, 0, _signed_at_first(header, layout), delimited=False)
    except _Broken as broken:
        raise DicomError("bad-sequence", f"the header cannot be read beyond byte {broken.at}") from None
    elements = tuple(walk.top.values())
    encodings, usable = python_encodings(_value(walk.top, _CHARACTER_SET))
    if not usable:
        walk.note(notes.CHARACTER_SET)
    return NormalForm(elements, encodings, tuple(sorted(walk.notes)), tuple(walk.conflicts), walk.numbers, walk.opaque)


def duplicates(tags: Iterable[int]) -> DicomError:
    """The reason for which an object is held whose elements contradict each other."""
    named = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in sorted(set(tags))[:5])
    return DicomError(
        notes.DUPLICATE,
        f"{named} stands in one data set twice with different values (PS3.5 7.1): nobody can tell which one counts",
        "the sender has to send the object with one of them",
    )


class _Broken(Exception):
    """What stands here is no data element."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


@dataclass
class _DataSet:
    """What the walk knows of the data set that it is in."""

    signed: bool
    last: int = -1
    creators: dict[int, str] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] | None = None  # of values in the output; made once tags are out of order


class _Walk:
    def __init__(self, data: bytes, layout: Layout, budget: Budget) -> None:
        self._data = data
        self._budget = budget
        self._out = bytearray()
        self.top: dict[int, RawDataElement] = {}
        self.notes: set[str] = set()
        self.conflicts: list[int] = []
        self.numbers = 0
        self.opaque = False

    def note(self, code: str) -> None:
        self.notes.add(code)

    def data_set(self, at: int, stop: int, layout: Layout, depth: int, signed: bool, *, delimited: bool) -> int:
        """Walk elements from `at` to `stop`, or to the item's delimiter; gives the position behind it."""
        data, out, budget = self._data, self._out, self._budget
        here = _DataSet(signed)
        begin = len(out)
        long, short, tags = struct.Struct(layout.order + "I"), struct.Struct(layout.order + "H"), layout.order + "HH"
        unpack_tag = struct.Struct(tags).unpack_from
        while at < stop:
            if at + 8 > stop:
                raise _Broken(at)
            group, number = unpack_tag(data, at)
            tag = group << 16 | number
            if group == 0xFFFE:
                if tag == ITEM_END and delimited:
                    return at + 8
                raise _Broken(at)
            vr = b"" if layout.implicit else data[at + 4 : at + 6]
            if vr in LONG_VRS:
                if at + 12 > stop:
                    raise _Broken(at)
                length, at = long.unpack_from(data, at + 8)[0], at + 12
            elif vr and b"AA" <= vr <= b"ZZ":
                length, at = short.unpack_from(data, at + 6)[0], at + 8
            else:
                vr, length, at = b"", long.unpack_from(data, at + 4)[0], at + 8
            budget.element()
            if vr and vr != b"UN" and not group & 1:
                self._compare_with_dictionary(tag, vr)
            start = len(out)
            if length == UNDEFINED:
                vr, at = self._undefined(tag, vr, at, stop, layout, depth, here)
            else:
                end = at + length
                if end > stop:
                    raise _Broken(at)
                vr = self._defined(tag, vr, at, end, layout, depth, here)
                at = end
            self._keep(tag, start, begin, depth, here, vr)
        if delimited:
            raise _Broken(at)
        return at

    # -- values --------------------------------------------------------------------------------------------------------

    def _defined(self, tag: int, vr: bytes, at: int, end: int, layout: Layout, depth: int, here: _DataSet) -> bytes:
        """Write an element of known length; gives its VR."""
        found = vr
        if vr == b"UN" and not tag >> 16 & 1 and vrs.of_dictionary(tag) == "SQ":
            found = b"SQ"  # PS3.5 6.2.2: what was once a sequence, in Implicit VR Little Endian
        elif not vr or vr not in VRS:
            found = self._vr_of(tag, here)
        if found == b"SQ":
            inner = Layout(True, True) if vr == b"UN" and not layout.little_endian else layout
            if self._sequence(tag, at, end, inner, depth, here.signed):
                return b"SQ"
            found = vr if vr == b"SQ" and layout == EXPLICIT else b"UN"
            self._element(tag, found, self._data[at:end])
            return found
        value = self._data[at:end]
        word = vrs.WORDS.get(found)
        if word is not None:
            if len(value) % (vrs.NUMBERS.get(found) or word):
                self.note(notes.AGAINST_VR)
                found = b"UN"
            elif not layout.little_endian and vr != b"UN":
                value = _turned(value, word)
            self.numbers += len(value) // vrs.NUMBERS.get(found, UNDEFINED)
        elif found == b"DS":
            self._look_at_decimal(tag, value)
        if not vr and tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and value.endswith(b"\0"):
            value = value.rstrip(b"\0")  # a private creator gets its VR here, and LO is padded with spaces
            value += b" " * (len(value) & 1)
        if len(value) > _MAX_SHORT and found not in LONG_VRS:
            found = b"UN"  # PS3.5 6.2.2: longer than the VR has bits for
        if len(value) & 1:
            self.note(notes.ODD)
            value += b" " if found in vrs.TEXT else b"\0"
        if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            here.creators[tag & 0xFF] = value.decode("ascii", "replace").strip(" \0")
        elif tag == _PIXEL_REPRESENTATION and len(value) == 2:
            here.signed = value == b"\1\0"
        self._element(tag, found, value)
        return found

    def _undefined(
        self, tag: int, vr: bytes, at: int, stop: int, layout: Layout, depth: int, here: _DataSet
    ) -> tuple[bytes, int]:
        """Write an element without length: a sequence, or fragments; gives its VR and the position behind it."""
        if vr in (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV"):
            end = self._end_of_fragments(at, stop, layout)
            value, padded = even_fragments(self._data[at : end - 8])
            if padded:
                self.note(notes.ODD)
            self._out += _LONG.pack(tag >> 16, tag & 0xFFFF, vr, 0, UNDEFINED) + value
            self._out += _ITEM.pack(0xFFFE, 0xE0DD, 0)
            return vr, end
        if vr == b"UN":
            layout = Layout(True, True) if not layout.little_endian else layout
        self._out += _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, UNDEFINED)
        at = self._items(at, stop, layout, depth + 1, here.signed, delimited=True)
        self._out += _ITEM.pack(0xFFFE, 0xE0DD, 0)
        return b"SQ", at

    def _sequence(self, tag: int, at: int, end: int, layout: Layout, depth: int, signed: bool) -> bool:
        """Write a sequence of known length; False, with nothing written, where it cannot be followed."""
        before, conflicts = len(self._out), len(self.conflicts)
        self._out += _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, 0)
        start = len(self._out)
        try:
            self._items(at, end, layout, depth + 1, signed, delimited=False)
        except _Broken:
            del self._out[before:]
            del self.conflicts[conflicts:]
            self.opaque = True
            self.note(notes.UNREADABLE)
            return False
        struct.pack_into("<I", self._out, start - 4, len(self._out) - start)
        return True

    def _items(self, at: int, stop: int, layout: Layout, depth: int, signed: bool, *, delimited: bool) -> int:
        if depth > MAX_DEPTH:
            raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences before byte {at}")
        data, out = self._data, self._out
        while at < stop:
            if at + 8 > stop:
                raise _Broken(at)
            tag, length = layout.tag(data[at : at + 4]), struct.unpack_from(layout.order + "I", data, at + 4)[0]
            if tag == SEQUENCE_END and delimited:
                return at + 8
            if tag != ITEM:
                self._budget.item()
                raise _Broken(at)
            self._budget.item()
            at += 8
            inner = layout.found(data[at : min(at + 6, stop)], nested=True)
            place = len(out)
            if length == UNDEFINED:
                out += _ITEM.pack(0xFFFE, 0xE000, UNDEFINED)
                at = self.data_set(at, stop, inner, depth, signed, delimited=True)
                out += _ITEM.pack(0xFFFE, 0xE00D, 0)
            else:
                if at + length > stop:
                    raise _Broken(at)
                out += _ITEM.pack(0xFFFE, 0xE000, 0)
                at = self.data_set(at, at + length, inner, depth, signed, delimited=False)
                struct.pack_into("<I", out, place + 4, len(out) - place - 8)
        if delimited:
            raise _Broken(at)
        return at

    def _end_of_fragments(self, at: int, stop: int, layout: Layout) -> int:
        """The position behind fragments that a delimiter ends."""
        while at + 8 <= stop:
            tag = layout.tag(self._data[at : at + 4])
            length = struct.unpack_from(layout.order + "I", self._data, at + 4)[0]
            if tag == SEQUENCE_END:
                return at + 8
            if tag != ITEM or length == UNDEFINED:
                break
            self._budget.element()
            at += 8 + length
        raise _Broken(at)

    # -- elements ------------------------------------------------------------------------------------------------------

    def _element(self, tag: int, vr: bytes, value: bytes) -> None:
        if vr in LONG_VRS:
            self._out += _LONG.pack(tag >> 16, tag & 0xFFFF, vr, 0, len(value))
        else:
            self._out += _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value))
        self._out += value

    def _keep(self, tag: int, start: int, begin: int, depth: int, here: _DataSet, vr: bytes) -> None:
        """Keep what was written from `start` on, unless the element stood there before."""
        out = self._out
        if depth == 0:
            value = bytes(out[start + (12 if vr in LONG_VRS else 8) :])
            undefined = vr in LONG_VRS and out[start + 8 : start + 12] == b"\xff\xff\xff\xff"
            if undefined:
                value = value[:-8]
            out.clear()
            known = self.top.get(tag)
            if known is not None:
                self._twice(tag, known.value or b"", value)
                return
            self.top[BaseTag(tag)] = RawDataElement(
                BaseTag(tag), vr.decode(), UNDEFINED if undefined else len(value), value, 0, False, True
            )
            return
        if tag > here.last:
            here.last = tag
            if here.places is not None:
                here.places[tag] = (start, len(out))
            return
        if here.places is None:
            here.places = _places(out, begin, start)
        if tag in here.places:
            first, end = here.places[tag]
            self._twice(tag, _value_of(out, first, end), _value_of(out, start, len(out)))
            del out[start:]
        else:
            here.places[tag] = (start, len(out))

    def _twice(self, tag: int, first: bytes, second: bytes) -> None:
        if tag == TRAILING_PADDING or tag & 0xFFFF == 0:
            return  # says nothing, and goes from every copy; group lengths too
        if first.rstrip(b" \0") == second.rstrip(b" \0"):
            self.note(notes.DUPLICATE)
        else:
            self.conflicts.append(tag)

    def _vr_of(self, tag: int, here: _DataSet) -> bytes:
        """The VR of an element that has none, or one that nobody knows (PS3.5 6.2.2, A.1)."""
        if tag >> 16 & 1 and tag & 0xFFFF:
            if tag & 0xFFFF <= 0xFF:
                return b"LO"
            vr = vrs.of_private(tag, here.creators.get(tag >> 8 & 0xFF, ""))
        else:
            vr = vrs.of_dictionary(tag)
        if not vr:
            return b"UN"
        return vrs.choose(vr, here.signed) if len(vr) > 2 else vr.encode()

    def _compare_with_dictionary(self, tag: int, vr: bytes) -> None:
        known = vrs.of_dictionary(tag)
        if (
            known
            and vr in VRS
            and vr.decode() not in known
            and not (vr in vrs.FREE_TEXT and known.encode() in vrs.FREE_TEXT)
        ):
            self.note(notes.OTHER_VR)

    def _look_at_decimal(self, tag: int, value: bytes) -> None:
        if b"," in value:
            self.note(notes.COMMA)
        if tag in _DISPLAY_NUMBERS and value.strip(b" \0"):
            numbers = value.replace(b",", b".").split(b"\\")
            if not all(_DECIMAL.fullmatch(number) for number in numbers):
                self.note(notes.NO_NUMBER)


def _value(top: dict[int, RawDataElement], tag: int) -> bytes:
    return (top[tag].value or b"") if tag in top else b""


def _turned(value: bytes, word: int) -> bytes:
    """Big endian words as little endian ones."""
    out = bytearray(len(value))
    for place in range(word):
        out[place::word] = value[word - 1 - place :: word]
    return bytes(out)


def _signed_at_first(header: bytes, layout: Layout) -> bool:
    """Pixel Representation, which what comes before it may need to tell its own VR (US or SS)."""
    if not layout.implicit:
        return False
    head = struct.pack(layout.order + "HHIH", 0x0028, 0x0103, 2, 1)
    return head in header


def _places(out: bytearray, begin: int, end: int) -> dict[int, tuple[int, int]]:
    """Where the elements of a data set lie in the output, from `begin` to `end`."""
    found = {}
    at = begin
    while at < end:
        group, number, vr = struct.unpack_from("<HH2s", out, at)
        stop = _end_of(out, at, vr)
        found[group << 16 | number] = (at, stop)
        at = stop
    return found


def _end_of(out: bytearray, at: int, vr: bytes) -> int:
    """Where the element at `at` ends, in what was written here and is therefore well-formed."""
    if vr not in LONG_VRS:
        return at + 8 + struct.unpack_from("<H", out, at + 6)[0]
    length, at = struct.unpack_from("<I", out, at + 8)[0], at + 12
    if length != UNDEFINED:
        return at + length
    while True:
        tag, length = EXPLICIT.tag(bytes(out[at : at + 4])), struct.unpack_from("<I", out, at + 4)[0]
        at += 8
        if tag == SEQUENCE_END:
            return at
        if length != UNDEFINED:
            at += length
            continue
        while EXPLICIT.tag(bytes(out[at : at + 4])) != ITEM_END:
            at = _end_of(out, at, bytes(out[at + 4 : at + 6]))
        at += 8


def _value_of(out: bytearray, start: int, end: int) -> bytes:
    return bytes(out[start + (12 if bytes(out[start + 4 : start + 6]) in LONG_VRS else 8) : end])
