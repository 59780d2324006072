"""Fragments of encapsulated pixel data (PS3.5 A.4): even lengths, and the offset table that follows them."""

from __future__ import annotations

import struct

from gateway.dicom.encoding.elements import ITEM, UNDEFINED

_HEAD = struct.Struct("<HHI")


def even_fragments(value: bytes | memoryview) -> tuple[bytes, bool]:
    """Item heads and fragments with every odd fragment padded by a zero byte (PS3.5 A.4), and whether there was one.

    Offsets of a Basic Offset Table that named fragments name them still. Bytes behind the last whole item stay.
    """
    data = bytes(value)
    places: list[tuple[int, int]] = []  # of the value, and its length
    at = 0
    while at + 8 <= len(data):
        group, number, length = _HEAD.unpack_from(data, at)
        if group << 16 | number != ITEM or length == UNDEFINED or at + 8 + length > len(data):
            break
        places.append((at + 8, length))
        at += 8 + length
    if not any(length & 1 for _, length in places):
        return data, False
    base, moved = places[1][0] - 8 if len(places) > 1 else 0, {}
    out: list[bytes] = []
    size = 0
    for start, length in places[1:]:
        moved[start - 8 - base] = size
        even = length + (length & 1)
        out += (_HEAD.pack(0xFFFE, 0xE000, even), data[start : start + length], bytes(even - length))
        size += 8 + even
    start, length = places[0]
    table = data[start : start + length]
    if length % 4 == 0:
        offsets = struct.unpack(f"<{length // 4}I", table)
        if all(offset in moved for offset in offsets):
            table = struct.pack(f"<{length // 4}I", *(moved[offset] for offset in offsets))
    table += bytes(len(table) & 1)
    return b"".join((_HEAD.pack(0xFFFE, 0xE000, len(table)), table, *out, data[at:])), True
