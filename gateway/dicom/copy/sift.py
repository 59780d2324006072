"""Leaving out of an encoded instance what may not ride along in its copy (`gateway.dicom.copy.bulk`).

Works on the encoded bytes, in any encoding: elements that stay keep every byte, and only the lengths of the sequences
and items around one that goes are written anew. What the walk cannot look into is taken for one value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from gateway.dicom.copy import bulk
from gateway.dicom.copy.bulk import LeftOut, RideAlong
from gateway.dicom.encoding.elements import ITEM, ITEM_END, LONG_VRS, MAX_DEPTH, SEQUENCE_END, UNDEFINED, Layout
from gateway.dicom.encoding.parts import Parts
from gateway.errors import DicomError, HoldError

_MAX_GUISE = 8 << 20  # a longer value without a VR of its own is not looked into: it is bulk
_STEPS = 2  # heads that are read for each byte: a level of a sequence may be looked at more than once, not without end
_LEAST_STEPS, _MOST_STEPS = 1 << 18, 1 << 24
_TRACE = 32  # bytes: no shorter value can show anything
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_UNKNOWN = frozenset({"", "UN"})
_MAYBE_SEQUENCE = frozenset({"", "UN", "OB", "OW"})
_NUMBERS = {True: (struct.Struct("<HH"), struct.Struct("<H"), struct.Struct("<I"))}
_NUMBERS[False] = (struct.Struct(">HH"), struct.Struct(">H"), struct.Struct(">I"))
Chunks = list[bytes | memoryview]


def sift(parts: Parts, rules: RideAlong, overlays: frozenset[int] = frozenset()) -> tuple[Parts, list[LeftOut]]:
    """The same instance with only what may ride along, and what was left out.

    Parameters
    ----------
    overlays
        Overlay groups (6000 to 601E) whose planes show the picture.

    Raises
    ------
    HoldError
        "private-bulk" where the route wants objects with too large private values held.
    DicomError
        "bad-sequence", "nested-too-deep": a standard sequence that cannot be looked into.
    """
    own = bulk.OWN_CONTENT.get(parts.header.sop_class_uid, frozenset())
    top = _Place()
    left_out: list[LeftOut] = []
    cut = []
    for data in (parts.header_bytes, parts.trailer_bytes):
        walk = _Walk(data, rules, own, overlays, left_out)
        try:
            _, kept = walk.elements(0, len(data), parts.layout, top, False, 0)
        except _BadError as error:
            raise DicomError("bad-sequence", f"{error}: what it holds cannot be told") from None
        cut.append(data if kept is None else b"".join(kept))
    by_choice = [one for one in left_out if one.private]
    if by_choice and rules.private == "hold":
        raise HoldError(
            "private-bulk",
            f"{len(by_choice)} private elements may hold its picture, the first is {by_choice[0]}",
            'leave them out with private_bulk = "drop" on the route, or name their creator in its private_keep',
        )
    return parts.with_elements(*cut), left_out


class _BadError(Exception):
    """What should be a sequence is none."""


@dataclass
class _Place:
    """The data set or item that the walk goes through, and what is known of it.

    Attributes
    ----------
    private, kept
        Inside a private sequence; of a private creator that stays.
    budget
        Bytes that the private block around may still keep, shared by all that stands in it.
    has_image
        It describes an image: then no binary value of it stays.
    """

    path: str = ""
    nested: bool = False
    private: bool = False
    kept: bool = False
    budget: list[int] | None = None
    has_image: bool = False
    has_binary: bool = False
    seen: set[int] = field(default_factory=set)  # of _ROWS and _COLUMNS
    creators: dict[int, str] = field(default_factory=dict)  # group and block -> private creator
    budgets: dict[int, list[int]] = field(default_factory=dict)


class _Head(NamedTuple):
    tag: int
    vr: str
    length: int
    start: int
    value: int
    end: int  # of the value, its delimiter included


class _Walk:
    def __init__(
        self, data: bytes, rules: RideAlong, own: frozenset[int], overlays: frozenset[int], left_out: list[LeftOut]
    ) -> None:
        self._data = memoryview(data)
        self._rules = rules
        self._own = own
        self._overlays = overlays
        self._left_out = left_out
        self._unlisted = rules.block_bytes  # of small standard binary values that no list has, all together
        self._steps = min(max(_LEAST_STEPS, _STEPS * len(data)), _MOST_STEPS)

    # -- structure -----------------------------------------------------------------------------------------------------

    def elements(
        self, at: int, end: int, layout: Layout, place: _Place, delimited: bool, depth: int
    ) -> tuple[int, Chunks | None]:
        """Where the elements from `at` stop (at `end`, or behind the item's delimiter), and what stays; None: all."""
        out: Chunks = []
        run = at  # from here on all stays as it is
        group_lengths = []  # they are wrong once something goes
        is_changed = False
        while at < end:
            start = at
            tag, vr, length, at = self._head(at, end, layout)
            if tag == 0 and not place.nested and not any(self._data[start:end]):
                break  # a tail of zeros, which ends the data set
            if tag >> 16 == 0xFFFE:
                if tag != ITEM_END or not delimited:
                    raise _BadError(f"an item or delimiter outside a sequence, in {_name(place)}")
                break
            if length != UNDEFINED and at + length > end:
                raise _BadError(f"an element ends behind its data set, in {_name(place)}")
            if self._is_plain(tag, vr, length, place):
                at += length
                continue
            head = _Head(tag, vr, length, start, at, self._end_of(at, length, end, layout, depth))
            at = head.end
            new = self._element(head, layout, place, depth)
            if new is not None:
                is_changed = True
                out += [self._data[run:start], *new]
                run = at
            elif tag & 0xFFFF == 0:
                out += [self._data[run:start], self._data[start:at]]
                group_lengths.append(len(out) - 1)
                run = at
        else:
            if delimited:
                raise _BadError(f"an item of {place.path} is not closed")
        if not is_changed:
            return at, None
        out.append(self._data[run:start] if delimited else self._data[run:end])
        for index in group_lengths:
            out[index] = b""
        return at, out

    def _items(self, head: _Head, layout: Layout, place: _Place, depth: int) -> Chunks | None:
        """What stays of the items of a sequence, their heads included; None: all of them as they are."""
        if depth >= MAX_DEPTH:
            raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences")
        out: Chunks = []
        at, is_changed = head.value, False
        while at < head.end:
            start = at
            tag, _, length, at = self._head(at, head.end, layout)
            if tag == SEQUENCE_END and head.length == UNDEFINED:
                out.append(self._data[start:at])
                break
            if tag != ITEM:
                raise _BadError(f"neither item nor delimiter inside {place.path}")
            is_open = length == UNDEFINED
            if not is_open and at + length > head.end:
                raise _BadError(f"an item ends behind its sequence, in {place.path}")
            end = head.end if is_open else at + length
            at, new = self._item(
                at, end, layout.found(bytes(self._data[at : at + 6]), nested=True), place, is_open, depth
            )
            if new is None:
                out.append(self._data[start:at])
                continue
            is_changed = True
            size = sum(map(len, new))
            out.append(_packed(ITEM, layout) + (UNDEFINED if is_open else size).to_bytes(4, _order(layout)))
            out += new
            if is_open:
                out.append(_packed(ITEM_END, layout) + bytes(4))
        return out if is_changed else None

    def _item(
        self, at: int, end: int, layout: Layout, around: _Place, is_open: bool, depth: int
    ) -> tuple[int, Chunks | None]:
        place = _Place(around.path, True, around.private, around.kept, around.budget, around.has_image)
        spent = self._spent(place)
        after, new = self.elements(at, end, layout, place, is_open, depth + 1)
        if place.private and place.has_binary and len(place.seen) == 2 and not place.has_image:
            self._take_back(place, spent)
            place = replace(place, has_image=True, seen=set(), creators={}, budgets={})
            after, new = self.elements(at, end, layout, place, is_open, depth + 1)
        return after, new

    def _spent(self, place: _Place) -> tuple[int, int]:
        """What a walk changes besides the bytes, to be taken back when it has to be done otherwise."""
        return place.budget[0] if place.budget else 0, len(self._left_out)

    def _take_back(self, place: _Place, spent: tuple[int, int]) -> None:
        if place.budget:
            place.budget[0] = spent[0]
        del self._left_out[spent[1] :]

    # -- the rule ------------------------------------------------------------------------------------------------------

    def _is_plain(self, tag: int, vr: str, length: int, place: _Place) -> bool:
        """Whether an element of the usual kind stays: text or numbers under a standard tag, of known length."""
        group = tag >> 16
        if group & 1 or place.private or length == UNDEFINED or not tag & 0xFFFF or group >> 8 in (0x60, 0x7F):
            return False
        if vr in _UNKNOWN:
            known = bulk.dictionary_vrs(tag)
            return bool(known) and not known & bulk.BULK_VRS and "SQ" not in known and tag not in bulk.NEVER
        return vr != "SQ" and tag not in bulk.NEVER and not bulk.is_bulk(tag, vr)

    def _element(self, head: _Head, layout: Layout, place: _Place, depth: int) -> Chunks | None:
        """What becomes of one element: None as it is, [] nothing."""
        tag, group = head.tag, head.tag >> 16
        if why := bulk.never(tag, place.nested, self._own):
            return self._leave_out(head, why, place, private=False)
        if group in self._overlays and not place.nested:
            return self._leave_out(head, "an overlay plane that shows the picture", place, private=False)
        private, kept, budget = self._standing(head, place)
        if bulk.is_pixel_group(group) and not kept:
            return self._leave_out(head, "raw data of a scanner", place, private=True)
        for inside in self._layouts(head, layout):
            inner = _Place(_path(place, tag), True, private, kept, budget, place.has_image)
            spent = self._spent(inner)
            try:
                new = self._items(head, inside, inner, depth)
            except _BadError:
                if self._is_surely_sequence(head):
                    raise
                self._take_back(inner, spent)
                continue
            return None if new is None else [self._new_head(head, new, layout), *new]
        return self._leaf(head, place, private, kept, budget)

    def _leaf(self, head: _Head, place: _Place, private: bool, kept: bool, budget: list[int] | None) -> Chunks | None:
        size = head.end - head.value
        if head.tag in (_ROWS, _COLUMNS):
            place.seen.add(head.tag)
        is_text = head.vr not in bulk.BULK_VRS and head.vr not in _UNKNOWN
        place.has_binary = place.has_binary or (not is_text and size > _TRACE)
        if not private:
            if head.tag in bulk.LISTED or head.tag in self._own or head.tag & 0xFFFF == 0:
                return None
            if head.tag >> 16 & 0xFFE1 == 0x6000 and not place.nested and head.length != UNDEFINED:
                return None  # Overlay Data (60xx,3000): those that show the picture are gone
            if not bulk.is_bulk(head.tag, head.vr) and bulk.dictionary_vrs(head.tag):
                return None
            if size <= self._rules.value_bytes and head.length != UNDEFINED:
                self._unlisted -= 0 if is_text else size + 8
                if self._unlisted >= 0:
                    return None
            return self._leave_out(head, "binary data that is not on the list", place, private=False)
        if kept:
            return None
        if place.has_image and not is_text and size > _TRACE:
            return self._leave_out(head, "binary data of a private image", place, private=True)
        if size > self._rules.value_bytes or head.length == UNDEFINED:
            return self._leave_out(head, "a private value that is too large", place, private=True)
        if budget is not None:
            budget[0] -= size + 8
            if budget[0] < 0:
                return self._leave_out(head, "more than a private block may have", place, private=True)
        return None

    def _standing(self, head: _Head, place: _Place) -> tuple[bool, bool, list[int] | None]:
        """Whether an element is private, whether its creator stays, and what its private block may still keep."""
        group, number = head.tag >> 16, head.tag & 0xFFFF
        if not group & 1:
            return place.private, place.kept, place.budget
        block = group << 16 | (number if number <= 0xFF else number >> 8)
        if 0x10 <= number <= 0xFF:
            text = bytes(self._data[head.value : min(head.end, head.value + 64)])
            place.creators[block] = text.decode("latin-1").strip(" \0")
        kept = place.kept or self._rules.private == "keep" or place.creators.get(block) in self._rules.keep
        if place.budget is not None:
            return True, kept, place.budget
        return True, kept, place.budgets.setdefault(block, [self._rules.block_bytes])

    def _is_surely_sequence(self, head: _Head) -> bool:
        return not head.tag >> 16 & 1 and (head.vr == "SQ" or "SQ" in bulk.dictionary_vrs(head.tag))

    def _layouts(self, head: _Head, layout: Layout) -> list[Layout]:
        """How the items of an element may be encoded, the likeliest first; [] where it is no sequence.

        What stands under UN is implicit and little endian, whatever is around it (PS3.5 6.2.2).
        """
        if head.vr == "SQ" or (not head.vr and "SQ" in bulk.dictionary_vrs(head.tag)):
            return [layout]
        is_too_long = head.end - head.value > _MAX_GUISE and not self._is_surely_sequence(head)
        if head.vr not in _MAYBE_SEQUENCE or is_too_long:
            return []
        if not head.vr:
            return [layout] if self._begins_with_item(head, layout) else []
        likely = [Layout(True, True), Layout(False, True), layout]
        return [one for one in dict.fromkeys(likely) if self._begins_with_item(head, one)]

    def _begins_with_item(self, head: _Head, layout: Layout) -> bool:
        return bytes(self._data[head.value : head.value + 4]) == _packed(ITEM, layout)

    def _leave_out(self, head: _Head, why: str, place: _Place, *, private: bool) -> Chunks:
        self._left_out.append(LeftOut(_path(place, head.tag), why, head.end - head.value, private))
        return []

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _head(self, at: int, end: int, layout: Layout) -> tuple[int, str, int, int]:
        """Tag, VR ("" without one), length, and where the value begins, as `gateway.dicom.encoding.elements` has it."""
        data = self._data
        tags, short, long = _NUMBERS[layout.little_endian]
        self._steps -= 1
        if self._steps < 0:
            raise DicomError("too-many-elements", "the sequences of the header have too many elements to be searched")
        if at + 8 > end:
            raise _BadError("an element has no head")
        group, number = tags.unpack_from(data, at)
        vr = b"" if layout.implicit or group == 0xFFFE else bytes(data[at + 4 : at + 6])
        if vr in LONG_VRS:
            if at + 12 > end:
                raise _BadError("an element has no head")
            return group << 16 | number, vr.decode(), long.unpack_from(data, at + 8)[0], at + 12
        if vr and b"AA" <= vr <= b"ZZ":
            return group << 16 | number, vr.decode("latin-1"), short.unpack_from(data, at + 6)[0], at + 8
        return group << 16 | number, "", long.unpack_from(data, at + 4)[0], at + 8

    def _end_of(self, at: int, length: int, end: int, layout: Layout, depth: int) -> int:
        """Behind the value that begins `at`; of undefined length: behind its delimiter."""
        if length != UNDEFINED:
            return at + length
        if depth >= MAX_DEPTH:
            raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences")
        while True:
            tag, _, size, at = self._head(at, end, layout)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM or (size != UNDEFINED and at + size > end):
                raise _BadError("neither item nor delimiter inside a sequence")
            if size != UNDEFINED:
                at += size
                continue
            inside = layout.found(bytes(self._data[at : at + 6]), nested=True)
            while True:
                tag, _, size, at = self._head(at, end, inside)
                if tag == ITEM_END:
                    break
                at = self._end_of(at, size, end, inside, depth + 1)

    def _new_head(self, head: _Head, new: Chunks, layout: Layout) -> bytes:
        """The element's own head with the length that its value has now."""
        old = bytes(self._data[head.start : head.value])
        return old if head.length == UNDEFINED else old[:-4] + sum(map(len, new)).to_bytes(4, _order(layout))


def _order(layout: Layout) -> Literal["little", "big"]:
    return "little" if layout.little_endian else "big"


def _packed(tag: int, layout: Layout) -> bytes:
    return struct.pack(layout.order + "HH", tag >> 16, tag & 0xFFFF)


def _path(place: _Place, tag: int) -> str:
    return f"{place.path} > {_written(tag)}" if place.path else _written(tag)


def _written(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _name(place: _Place) -> str:
    return place.path or "the data set"
