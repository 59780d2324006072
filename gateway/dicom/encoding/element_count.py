"""How many elements and items an encoded header decodes to, counted in its bytes before any of them is decoded.

A sequence that the walk of `gateway.dicom.encoding.normal_form` cannot follow stays as it came, and pydicom decodes it
whole when it is looked at: 8 bytes become an element of some 300 in memory, or an item of some 700. So what pydicom
would take for a sequence is walked here as pydicom walks it, its tolerance included: whatever stands in the place of an
item is one, and an element may end behind its item. Where the two could differ, more is counted rather than less.
"""

from __future__ import annotations

import struct

from pydicom.datadict import dictionary_has_tag, dictionary_VR, private_dictionaries

from gateway.dicom.encoding.elements import ITEM, ITEM_END, LONG_VRS, MAX_DEPTH, SEQUENCE_END, UNDEFINED, Layout
from gateway.dicom.encoding.limits import HINT, Budget
from gateway.errors import DicomError

# Group ("0071", "60xx") and last byte of the element, of what pydicom knows as a sequence of some private creator.
_PRIVATE = frozenset(
    (tag[:4], tag[-2:]) for known in private_dictionaries.values() for tag, entry in known.items() if entry[0] == "SQ"
)
_MAX_SEARCHED = 1 << 30  # bytes that are searched in vain for delimiters; pydicom searches them again, at the same pace


def count(header: bytes, layout: Layout) -> tuple[int, int]:
    """Elements at all levels, and items.

    Raises
    ------
    DicomError
        "too-many-elements" and "too-many-items" as `Budget`, "nested-too-deep" beyond `MAX_DEPTH`, "bad-sequence"
        when value after value is searched for an end that is not there.
    """
    walk = _Walk(header, layout.little_endian)
    walk.data_set(0, len(header), len(header), layout.found(header[:6], nested=False), 0)
    return walk.elements, walk.items


class _Walk:
    """Positions are bytes into the header. `stop`: where a data set or sequence ends; `end`: where its bytes do."""

    def __init__(self, data: bytes, little_endian: bool) -> None:
        self._data = data
        order = "<" if little_endian else ">"
        self._tag = struct.Struct(order + "HH")
        self._long = struct.Struct(order + "I")
        self._short = struct.Struct(order + "H")
        self._item = self._tag.pack(ITEM >> 16, ITEM & 0xFFFF)
        self._end_tag = self._tag.pack(SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF)
        self.elements = self.items = self._searched = 0
        self._budget = Budget()

    def data_set(self, at: int, stop: int, end: int, layout: Layout, depth: int) -> int:
        """Count the elements from `at` on; gives the position behind them."""
        while at < stop and at + 8 <= end:
            group, number = self._tag.unpack_from(self._data, at)
            vr = b"" if layout.implicit else self._data[at + 4 : at + 6]
            if vr in LONG_VRS:
                length, at = self._length(at + 8, end), at + 12
            elif vr and b"AA" <= vr <= b"ZZ":
                length, at = self._short.unpack_from(self._data, at + 6)[0], at + 8
            else:
                vr, length, at = b"", self._length(at + 4, end), at + 8
            if group << 16 | number == ITEM_END:
                return at
            self._count_element()
            starts_item = self._data[at : at + 4] == self._item
            if length != UNDEFINED:
                if vr == b"SQ" or (vr in (b"", b"UN") and (starts_item or _is_known(group, number))):
                    self._sequence(at, min(at + length, end), min(at + length, end), layout, depth + 1)
                at += length
            elif vr in (b"SQ", b"UN") or (not vr and _is_sequence(group << 16 | number, starts_item)):
                at = self._sequence(at, end, end, layout, depth + 1)
            else:
                behind = self._behind_delimiter(at, end)
                if not behind:
                    return at
                at = behind
        return at

    def _count_element(self) -> None:
        self.elements += 1
        self._budget.element()

    def _sequence(self, at: int, stop: int, end: int, layout: Layout, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences before byte {at}")
        while at < stop and at + 8 <= end:
            group, number = self._tag.unpack_from(self._data, at)
            length = self._length(at + 4, end)
            at += 8
            if group << 16 | number == SEQUENCE_END:
                return at
            self.items += 1
            self._budget.item()
            found = layout.found(self._data[at : min(at + 6, end)], nested=True)
            at = self.data_set(at, end if length == UNDEFINED else at + length, end, found, depth)
        return at

    def _length(self, at: int, end: int) -> int:
        return self._long.unpack_from(self._data, at)[0] if at + 4 <= end else 0

    def _behind_delimiter(self, at: int, end: int) -> int:
        """The end of a value of unknown length that is no sequence: fragments, or anything up to a delimiter; or 0."""
        place = at
        while place + 8 <= end:
            group, number = self._tag.unpack_from(self._data, place)
            length = self._length(place + 4, end)
            place += 8
            if group << 16 | number == SEQUENCE_END:
                return place
            if group << 16 | number != ITEM or length == UNDEFINED:
                break
            self._count_element()
            place += length
        found = self._data.find(self._end_tag, at, end)
        if found >= 0:
            return min(found + 8, end)
        self._searched += end - at
        if self._searched > _MAX_SEARCHED:
            raise DicomError(
                "bad-sequence", f"values of undefined length have no end, before byte {at} and elsewhere", HINT
            )
        return 0


def _is_known(group: int, number: int) -> bool:
    """Whether pydicom takes an element of known length, but without a VR, for a sequence by its tag."""
    if group & 1:
        last = f"{number & 0xFF:02X}"
        return number > 0xFF and ((f"{group:04X}", last) in _PRIVATE or (f"{group >> 8:02X}xx", last) in _PRIVATE)
    return _is_sequence(group << 16 | number, False)


def _is_sequence(tag: int, starts_item: bool) -> bool:
    """The same for one of unknown length: what the dictionary has not is one when an item stands there."""
    return dictionary_VR(tag) == "SQ" if dictionary_has_tag(tag) else starts_item
