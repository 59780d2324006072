"""What changes inside sequences of a copy, on their encoded bytes: nothing is decoded that stays as it is.

An enhanced image of 3,600 frames has some 100,000 sequences with 600,000 elements. Decoded and encoded again they take
a minute, gone through as bytes a second. What comes out is, byte for byte, what `drop_invalid`, `remap_references` and
`set_frame_types` make of the decoded items: elements in sequences that these look at are encoded anew, items lose their
group lengths, everything else keeps its bytes. A sequence of another than the regular kind (`_Irregular`) is left to
them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from gateway.dicom.copy import remap
from gateway.dicom.copy.derivation import dropped_within, set_frame_type
from gateway.dicom.copy.remap import Maps, leave
from gateway.dicom.encoding import vrs
from gateway.dicom.encoding.elements import ITEM, ITEM_END, LONG_VRS, UNDEFINED
from gateway.dicom.encoding.explicit import written

_CHARACTER_SET = 0x00080005
_SOP_CLASS = 0x00081150  # Referenced SOP Class UID
_FRAME_TYPE = 0x00089007
_GROUPS = frozenset({0x52009229, 0x52009230})  # Shared and Per-frame Functional Groups Sequence
_VALUES = frozenset({remap.SERIES_TAG, remap.STUDY_TAG})
_LOOKED_AT = frozenset(
    {_CHARACTER_SET, _SOP_CLASS, _FRAME_TYPE, remap.VALUE_UID, *_VALUES, *remap.INSTANCE_TAGS, *dropped_within()}
)
_PLAIN_UID = re.compile(rb"(?:[0-9.]{2})*(?:[0-9.]\0)?")  # as it is encoded again
_PLAIN_CREATOR = re.compile(rb"(?:[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])? ?)?")
_PLAIN_SETS = frozenset(b"ISO_IR %d" % number for number in (100, 101, 109, 110, 126, 127, 138, 144, 148, 192))
_HEAD = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")
_ITEM = struct.Struct("<HHI")
_SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_ITEM_END = _ITEM.pack(0xFFFE, 0xE00D, 0)
Chunks = list[bytes | memoryview]


def settle(ds: Dataset, maps: Maps, *, frame_types: bool) -> frozenset[int]:
    """Change the sequences of a data set, as its walk gave them, in place; gives the tags of those that are done.

    Parameters
    ----------
    ds
        As `NormalForm.dataset`: sequences that were decoded already are left alone.
    frame_types
        Whether Frame Type becomes DERIVED in functional groups.

    Raises
    ------
    DicomError
        "undecodable-header" for a UID that cannot be read: a reference could not follow.
    """
    done: set[int] = set()
    for tag in list(ds.keys()):
        raw = ds.get_item(tag, keep_deferred=True)
        if not isinstance(raw, RawDataElement) or raw.VR != "SQ" or tag >> 16 & 1 or tag in dropped_within():
            continue
        walk = _Walk(raw.value or b"", maps)
        mode = _Mode(mapped=tag not in remap.NOT_INSTANCES, of_frames=frame_types and tag in _GROUPS)
        try:
            chunks = walk.whole(int(tag), mode)
        except _Irregular:
            continue
        if chunks is not None:
            value = b"".join(chunks)
            length = UNDEFINED if raw.length == UNDEFINED else len(value)
            ds[tag] = raw._replace(value=value, length=length)
        done.add(int(tag))
    return frozenset(done)


class _Irregular(Exception):
    """A sequence in which decoding and encoding may change more than is known here."""


@dataclass(frozen=True)
class _Mode:
    """What is done in the items of one sequence.

    Attributes
    ----------
    mapped
        References follow.
    of_frames
        Its items are functional groups, whose own items have a Frame Type.
    frame_type
        Its items are those.
    plain
        It is private: only what encoding it anew does by itself.
    """

    mapped: bool = False
    of_frames: bool = False
    frame_type: bool = False
    plain: bool = False


_PLAIN = _Mode(plain=True)
_MODES = {
    (mapped, frame): _Mode(mapped=mapped, frame_type=frame) for mapped in (False, True) for frame in (False, True)
}
_PLAIN_OF_FRAMES = _Mode(plain=True, frame_type=True)


class _Walk:
    def __init__(self, data: bytes, maps: Maps) -> None:
        self._data = data
        self._view = memoryview(data)
        self._maps = maps
        self._known: dict[tuple, bytes | None] = {}

    def whole(self, tag: int, mode: _Mode) -> Chunks | None:
        """The items that the data consist of; None: they stay as they are."""
        return self._items(0, len(self._data), tag, mode, delimited=False)[1]

    def _items(self, at: int, stop: int, within: int, mode: _Mode, *, delimited: bool) -> tuple[int, Chunks | None]:
        """The position behind the items of a sequence, its delimiter included, and what becomes of them without it."""
        data, view, unpack = self._data, self._view, _ITEM.unpack_from
        out: Chunks = []
        run, is_changed = at, False
        while at < stop:
            group, number, length = unpack(data, at)
            if number == 0xE0DD and delimited:
                if is_changed:
                    out.append(view[run:at])
                return at + 8, out if is_changed else None
            if group << 16 | number != ITEM:
                raise _Irregular
            start, at = at, at + 8
            is_open = length == UNDEFINED
            at, new = self._data_set(at, stop if is_open else at + length, within, mode, is_open)
            if new is None:
                continue
            is_changed = True
            size = UNDEFINED if is_open else sum(map(len, new))
            out += (view[run:start], _ITEM.pack(0xFFFE, 0xE000, size), *new)
            if is_open:
                out.append(_ITEM_END)
            run = at
        if delimited:
            raise _Irregular
        if is_changed:
            out.append(view[run:at])
        return at, out if is_changed else None

    def _data_set(self, at: int, stop: int, within: int, mode: _Mode, delimited: bool) -> tuple[int, Chunks | None]:
        """The position behind one item, its delimiter included, and what becomes of its elements; None: nothing."""
        data, view, unpack = self._data, self._view, _HEAD.unpack_from
        out: Chunks = []
        begin, run, is_changed, last, sop_class = at, at, False, -1, ""
        while at < stop:
            group, number, vr, length = unpack(data, at)
            tag, start = group << 16 | number, at
            if tag == ITEM_END and delimited:
                if is_changed:
                    out.append(view[run:at])
                return at + 8, out if is_changed else None
            if tag <= last:
                return self._disordered(begin, stop, within, mode, delimited)
            last = tag
            if vr in LONG_VRS:
                length, at = _LENGTH.unpack_from(data, at + 8)[0], at + 12
            else:
                at += 8
            new: Chunks | None = None
            if vr == b"SQ":
                at, new = self._sequence(tag, start, at, length, stop, mode)
            elif length == UNDEFINED:
                raise _Irregular
            else:
                value, at = at, at + length
                if tag in _LOOKED_AT or not number or vr == b"UN" or (mode.of_frames and group & 1):
                    new, sop_class = self._element(tag, vr, data[value:at], within, mode, sop_class)
            if new is not None:
                is_changed = True
                out += (view[run:start], *new)
                run = at
        if delimited or at != stop:
            raise _Irregular
        if is_changed:
            out.append(view[run:at])
        return at, out if is_changed else None

    def _disordered(self, at: int, stop: int, within: int, mode: _Mode, delimited: bool) -> tuple[int, Chunks]:
        """As `_data_set`, of an item whose elements are not in the order in which they are encoded."""
        data, view = self._data, self._view
        sequences: dict[int, Chunks] = {}
        others: dict[int, tuple[bytes, int, int, int]] = {}
        is_closed = not delimited
        while at < stop:
            group, number, vr, length = _HEAD.unpack_from(data, at)
            tag, start = group << 16 | number, at
            if tag == ITEM_END and delimited:
                at, is_closed = at + 8, True
                break
            if tag in sequences or tag in others:
                raise _Irregular
            if vr in LONG_VRS:
                length, at = _LENGTH.unpack_from(data, at + 8)[0], at + 12
            else:
                at += 8
            if vr == b"SQ":
                at, new = self._sequence(tag, start, at, length, stop, mode)
                sequences[tag] = [view[start:at]] if new is None else new
            elif length == UNDEFINED:
                raise _Irregular
            else:
                others[tag], at = (vr, start, at, at + length), at + length
        if not is_closed:
            raise _Irregular
        out: Chunks = []
        sop_class = ""
        for tag in sorted([*sequences, *others]):
            if tag in sequences:
                out += sequences[tag]
                continue
            vr, start, value, end = others[tag]
            new = None
            if tag in _LOOKED_AT or not tag & 0xFFFF or vr == b"UN" or (mode.of_frames and tag >> 16 & 1):
                new, sop_class = self._element(tag, vr, data[value:end], within, mode, sop_class)
            out += [view[start:end]] if new is None else new
        return at, out

    def _sequence(
        self, tag: int, start: int, at: int, length: int, stop: int, mode: _Mode
    ) -> tuple[int, Chunks | None]:
        """The position behind a sequence, and what becomes of it; [] nothing."""
        is_open, end = length == UNDEFINED, at + length
        is_private = bool(tag >> 16 & 1)
        if mode.plain:
            inner = _PLAIN
        elif is_private:
            inner = _PLAIN_OF_FRAMES if mode.of_frames else _PLAIN
        else:
            inner = _MODES[mode.mapped and tag not in remap.NOT_INSTANCES, mode.of_frames]
        if not is_open and (inner is _PLAIN or (tag in dropped_within() and not mode.plain)):
            return end, [] if tag in dropped_within() and not mode.plain else None  # it is not even decoded
        after, new = self._items(at, stop if is_open else end, tag, inner, delimited=is_open)
        if not is_open and after != end:
            raise _Irregular
        if tag in dropped_within() and not mode.plain:
            return after, []
        if new is None:
            return after, None
        head = self._data[start : at - 4]
        size = UNDEFINED if is_open else sum(map(len, new))
        return after, [head + _LENGTH.pack(size), *new, *([_SEQUENCE_END] if is_open else [])]

    # -- elements that are looked at -----------------------------------------------------------------------------------

    def _element(
        self, tag: int, vr: bytes, value: bytes, within: int, mode: _Mode, sop_class: str
    ) -> tuple[Chunks | None, str]:
        """What becomes of one element, None: it stays, and the Referenced SOP Class UID of its item."""
        if vr == b"UN" and not tag >> 16 & 1 and vrs.of_dictionary(tag) == "SQ":
            raise _Irregular
        if tag == _CHARACTER_SET and value not in _PLAIN_SETS:
            raise _Irregular
        is_creator = mode.of_frames and tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF  # decoded with what it names
        if is_creator and (vr != b"LO" or not _PLAIN_CREATOR.fullmatch(value)):
            raise _Irregular
        if tag & 0xFFFF == 0 and (tag >> 16 > 6 or not mode.plain):
            return [], sop_class
        if tag == _FRAME_TYPE and mode.frame_type:
            return self._frame_type(vr, value), sop_class
        if mode.plain:
            return None, sop_class
        if tag in dropped_within():
            return [], sop_class
        if not mode.mapped:
            return None, sop_class
        if tag == _SOP_CLASS:
            return self._uid(tag, vr, value, leave), self._text_of(vr, value)
        if tag in remap.INSTANCE_TAGS:
            return self._uid(tag, vr, value, remap.instance_map(sop_class, self._maps, within)), sop_class
        if tag in _VALUES:
            return self._uid(tag, vr, value, self._maps.of_value(tag)), sop_class
        if tag == remap.VALUE_UID:
            raise _Irregular  # whose meaning stands in another element
        return None, sop_class

    def _uid(self, tag: int, vr: bytes, value: bytes, uid_map: remap.UidMap) -> Chunks | None:
        """A UID, or several: mapped, and as they are encoded again."""
        if vr == b"UI" and _PLAIN_UID.fullmatch(value):
            if uid_map is leave:
                return None
            new = self._mapped(value, uid_map)
            return None if new is None else [_HEAD.pack(tag >> 16, tag & 0xFFFF, vr, len(new)), new]
        ds = _alone(tag, vr, value)
        remap.replace(ds[tag], uid_map)
        return [written(ds[tag], None)]

    def _mapped(self, value: bytes, uid_map: remap.UidMap) -> bytes | None:
        key = uid_map, value
        if key not in self._known:
            new = remap.mapped(value.decode("ascii"), uid_map)
            self._known[key] = None if new is None else new.encode("ascii") + b"\0" * (len(new) & 1)
        return self._known[key]

    def _text_of(self, vr: bytes, value: bytes) -> str:
        """Referenced SOP Class UID."""
        if vr == b"UI" and _PLAIN_UID.fullmatch(value):
            return value.rstrip(b"\0").decode("ascii")
        return remap.sop_class_of(_alone(_SOP_CLASS, vr, value))

    def _frame_type(self, vr: bytes, value: bytes) -> Chunks | None:
        key = vr, value
        if key not in self._known:
            ds = _alone(_FRAME_TYPE, vr, value)
            set_frame_type(ds)
            self._known[key] = written(ds.get_item(_FRAME_TYPE), None)
        new = self._known[key]
        return None if new is None else [new]


def _alone(tag: int, vr: bytes, value: bytes) -> Dataset:
    """A data set of this one element."""
    found = BaseTag(tag)
    ds = Dataset({found: RawDataElement(found, vr.decode(), len(value), value, 0, False, True)})
    ds.set_original_encoding(False, True, ["iso8859"])
    return ds
