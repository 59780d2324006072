"""The same data set in another uncompressed encoding (PS3.5 annex A)."""

from __future__ import annotations

import struct

from gateway.dicom.encoding.convert import as_dictionary_has_it, is_of_dictionary
from gateway.dicom.encoding.elements import ITEM, ITEM_END, LONG_VRS, MAX_DEPTH, SEQUENCE_END, UNDEFINED, Layout
from gateway.dicom.encoding.library import foreign_errors
from gateway.errors import DicomError

_EXPLICIT = Layout(implicit=False, little_endian=True)
_HEAD = struct.Struct("<HHI")


def to_implicit(dataset: bytes) -> bytes:
    """Explicit VR Little Endian to Implicit VR Little Endian (the default syntax, which every peer accepts).

    Only the heads of elements change, and the lengths of sequences and items around them; every value keeps its bytes,
    but for one whose VR is not the dictionary's: it is converted, or its element left out (PS3.5 7.1.3, A.1).

    Raises
    ------
    DicomError
        "truncated", "bad-sequence", "nested-too-deep"; "encapsulated" for compressed pixel data.
    HoldError
        "vr-not-convertible": such an element that the object cannot do without.
    """
    with foreign_errors("truncated", "the data set ends inside an element"):
        out: list[bytes | memoryview] = []
        _elements(memoryview(dataset), 0, len(dataset), _EXPLICIT, False, 0, out)
        return b"".join(out)


def _elements(
    data: memoryview, at: int, end: int, layout: Layout, delimited: bool, depth: int, out: list
) -> tuple[int, int]:
    """Re-encode elements from `at` to `end`, or to the item delimiter; returns where it stopped and the bytes made."""
    size = 0
    while at < end:
        tag, vr, length, at = _head(data, at, layout)
        if tag == ITEM_END and delimited:
            return at, size
        if tag >> 16 == 0xFFFE:
            raise DicomError("bad-sequence", f"an item or delimiter outside a sequence before byte {at}")
        if length != UNDEFINED and at + length > end:
            raise DicomError("truncated", f"an element ends behind its data set, before byte {at}")
        place = len(out)
        if vr and not is_of_dictionary(tag, vr) and (vr == b"SQ" or length != UNDEFINED):
            value = (
                None if vr == b"SQ" else as_dictionary_has_it(tag, vr, bytes(data[at : at + length]), nested=depth > 0)
            )
            if value is not None:
                out += (_HEAD.pack(tag >> 16, tag & 0xFFFF, len(value)), value)
                size += 8 + len(value)
            at = at + length if length != UNDEFINED else _items(data, at, length, end, layout, depth + 1, [])[0]
            continue
        out.append(b"")
        if length == UNDEFINED or vr == b"SQ":
            if tag == 0x7FE00010:
                raise DicomError("encapsulated", "compressed pixel data has no implicit form")
            at, inner = _items(data, at, length, end, layout, depth + 1, out)
        else:
            out.append(data[at : at + length])
            at, inner = at + length, length
        out[place] = _HEAD.pack(tag >> 16, tag & 0xFFFF, length if length == UNDEFINED else inner)
        size += 8 + inner
    if delimited:
        raise DicomError("truncated", "an item is not closed")
    return at, size


def _items(data: memoryview, at: int, length: int, end: int, layout: Layout, depth: int, out: list) -> tuple[int, int]:
    """Re-encode the items of one sequence; its delimiter is counted in the size."""
    if depth > MAX_DEPTH:
        raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences before byte {at}")
    size = 0
    stop = end if length == UNDEFINED else at + length
    while at < stop:
        tag, _, item_length, at = _head(data, at, layout)
        if tag == SEQUENCE_END and length == UNDEFINED:
            out.append(_HEAD.pack(0xFFFE, 0xE0DD, 0))
            return at, size + 8
        if tag != ITEM:
            raise DicomError("bad-sequence", f"neither item nor delimiter inside a sequence before byte {at}")
        open_ended = item_length == UNDEFINED
        if not open_ended and at + item_length > stop:
            raise DicomError("truncated", f"an item ends behind its sequence, before byte {at}")
        place = len(out)
        out.append(b"")
        inner_layout = layout.found(bytes(data[at : at + 6]), nested=True)
        at, inner = _elements(data, at, stop if open_ended else at + item_length, inner_layout, open_ended, depth, out)
        out[place] = _HEAD.pack(0xFFFE, 0xE000, UNDEFINED if open_ended else inner)
        if open_ended:
            out.append(_HEAD.pack(0xFFFE, 0xE00D, 0))
            inner += 8
        size += 8 + inner
    if length == UNDEFINED:
        raise DicomError("truncated", "a sequence is not closed")
    return at, size


def _head(data: memoryview, at: int, layout: Layout) -> tuple[int, bytes, int, int]:
    """Tag, VR, length, and where the value begins."""
    group, element = struct.unpack_from("<HH", data, at)
    vr = b"" if layout.implicit or group == 0xFFFE else bytes(data[at + 4 : at + 6])
    if vr in LONG_VRS:
        return group << 16 | element, vr, struct.unpack_from("<I", data, at + 8)[0], at + 12
    if vr and b"AA" <= vr <= b"ZZ":
        return group << 16 | element, vr, struct.unpack_from("<H", data, at + 6)[0], at + 8
    return group << 16 | element, b"", struct.unpack_from("<I", data, at + 4)[0], at + 8
