"""The quick look at a header finds what the full walk finds, or says that it cannot tell."""

from __future__ import annotations

import struct

import pytest

from gateway.dicom.encoding.plain import plain_values
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, syntax_of

WANTED = {0x00080018: b"UI", 0x00100010: b"PN", 0x0020000E: b"UI"}
UNDEFINED = 0xFFFFFFFF


def short(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def long(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value) if length is None else length) + value


INSTANCE, NAME = short(0x00080018, b"UI", b"1.2.3\0"), short(0x00100010, b"PN", b"DOE^J ")
SERIES, BEHIND = short(0x0020000E, b"UI", b"1.5\0"), short(0x00280010, b"US", b"\0\1")
PIXELS = long(0x7FE00010, b"OW", b"\0" * 64)


def look(*elements: bytes, syntax: str = EXPLICIT_LITTLE) -> dict[int, bytes] | None:
    return plain_values(memoryview(b"".join(elements)), syntax_of(syntax), WANTED)


@pytest.mark.parametrize(
    "before", [b"", long(0x00081140, b"SQ", b"\xfe\xff\x00\xe0\0\0\0\0"), short(0x00090010, b"LO", b"X ")]
)
@pytest.mark.parametrize("behind", [BEHIND + PIXELS, PIXELS])
def test_values_are_found_as_they_stand(before, behind):
    first, second = (before, b"") if before[:2] < b"\x09" else (b"", before)
    found = look(INSTANCE, first, second, NAME, SERIES, behind)
    assert found == {0x00080018: b"1.2.3\0", 0x00100010: b"DOE^J ", 0x0020000E: b"1.5\0"}


def test_what_is_absent_is_absent():
    assert look(INSTANCE, SERIES, PIXELS) == {0x00080018: b"1.2.3\0", 0x0020000E: b"1.5\0"}


@pytest.mark.parametrize(
    "elements",
    [
        (INSTANCE, INSTANCE, NAME, SERIES, PIXELS),  # twice
        (NAME, INSTANCE, SERIES, PIXELS),  # out of order
        (INSTANCE, long(0x00081140, b"SQ", b"", UNDEFINED), NAME, SERIES, PIXELS),
        (INSTANCE, short(0x00100010, b"LO", b"DOE^J "), SERIES, PIXELS),  # another VR
        (INSTANCE, short(0x00090010, b"??", b"X "), NAME, SERIES, PIXELS),
        (INSTANCE, NAME, SERIES),  # no more to see that nothing comes twice
        (INSTANCE, NAME, SERIES[:-2]),
        (INSTANCE, long(0x00091010, b"OB", bytes(1 << 16)), NAME, SERIES, PIXELS),  # too far
        (struct.pack("<HHI", 0x0008, 0x0018, 6), b"1.2.3\0", PIXELS),  # implicit under an explicit label
        (b"",),
    ],
)
def test_what_is_not_plain_is_left_to_the_walk(elements):
    assert look(*elements) is None


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED_LITTLE])
def test_other_encodings_are_left_to_the_walk(syntax):
    assert look(INSTANCE, NAME, SERIES, PIXELS, syntax=syntax) is None
