"""Binary numbers of a header are counted before they are decoded, each of which takes twenty times its bytes."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from gateway.dicom.encoding.encoded import MAX_VALUES
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.errors import DicomError
from tests.support.dicom.samples import encode, image

ACQUISITION_MATRIX, ENERGY_WINDOWS, POINTER = 0x00181310, 0x00540010, 0x00280009  # US, US, AT


def element(tag: int, value: bytes, syntax: str, vr: bytes = b"") -> bytes:
    order = ">" if syntax == EXPLICIT_BIG else "<"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT_LITTLE:
        return head + struct.pack("<I", len(value)) + value
    if vr in (b"US", b"AT"):
        return head + vr + struct.pack(order + "H", len(value)) + value
    return head + vr + b"\0\0" + struct.pack(order + "I", len(value)) + value


def with_elements(elements: bytes, syntax: str) -> bytes:
    whole = encode(image(), syntax)
    at = split(whole, syntax).pixels.start
    return whole[:at] + elements + whole[at:]


def in_item(elements: bytes, syntax: str) -> bytes:
    order = ">" if syntax == EXPLICIT_BIG else "<"
    return element(0x00081140, struct.pack(order + "HHI", 0xFFFE, 0xE000, len(elements)) + elements, syntax, b"SQ")


NUMBERS = b"\x07\x71"
MANY = {
    "one value": (IMPLICIT_LITTLE, element(ACQUISITION_MATRIX, NUMBERS * (MAX_VALUES + 1), IMPLICIT_LITTLE)),
    "two values": (
        IMPLICIT_LITTLE,
        element(ACQUISITION_MATRIX, NUMBERS * (MAX_VALUES - 100), IMPLICIT_LITTLE)
        + element(ENERGY_WINDOWS, NUMBERS * 101, IMPLICIT_LITTLE),
    ),
    "tags": (IMPLICIT_LITTLE, element(POINTER, NUMBERS * 2 * (MAX_VALUES + 1), IMPLICIT_LITTLE)),
    "in an item": (
        IMPLICIT_LITTLE,
        in_item(element(ACQUISITION_MATRIX, NUMBERS * (MAX_VALUES + 1), IMPLICIT_LITTLE), IMPLICIT_LITTLE),
    ),
    "short values in items": (
        EXPLICIT_BIG,
        in_item(
            b"".join(element(0x00181310 + n, NUMBERS * 30_000, EXPLICIT_BIG, b"US") for n in range(71)), EXPLICIT_BIG
        ),
    ),
}


@pytest.mark.parametrize("kind", MANY)
def test_more_numbers_than_any_header_has_are_refused(kind):
    syntax, elements = MANY[kind]
    data = with_elements(elements, syntax)
    tracemalloc.start()
    try:
        with pytest.raises(DicomError) as caught:
            split(data, syntax)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(data)  # pieces of the header, and nothing decoded
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too-many-values" and caught.value.hint


@pytest.mark.parametrize("value", [NUMBERS * 60_000, NUMBERS * (MAX_VALUES - 100)])
def test_as_many_as_are_allowed_are_read(value):
    data = with_elements(element(ACQUISITION_MATRIX, value, IMPLICIT_LITTLE), IMPLICIT_LITTLE)
    parts = split(data, IMPLICIT_LITTLE)
    read = parts.fresh_dataset()[ACQUISITION_MATRIX]
    assert (read.VR, read.value) == ("UN", value)  # longer than US has bits for in Explicit VR (PS3.5 6.2.2)
    assert parts.header.form.numbers >= len(value) // 2


def test_bytes_are_no_numbers():
    large = bytes(2 * MAX_VALUES + 2)
    data = with_elements(element(0x00282000, large, EXPLICIT_LITTLE, b"OB"), EXPLICIT_LITTLE)
    assert split(data, EXPLICIT_LITTLE).header.dataset[0x00282000].value == large
