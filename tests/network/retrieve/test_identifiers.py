"""Identifiers: what is refused with 0xA900, and that the reason never repeats a value."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from gateway.errors import DicomError
from gateway.network.retrieve.identifiers import query_level, read_identifier, retrieve_level
from gateway.network.retrieve.receiving import BoundedBuffer

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
SECRET = "DOE^JANE"


def identifier(level: str = "", **keys: object) -> Dataset:
    data = Dataset()
    if level:
        data.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(data, keyword, value)
    return data


@pytest.mark.parametrize(
    ("root", "asked", "code"),
    [
        ("STUDY", identifier(), "level-missing"),
        ("STUDY", identifier("PATIENT", PatientID="1"), "level-unknown"),
        ("PATIENT", identifier("FRAME"), "level-unknown"),
        ("STUDY", identifier("SERIES"), "unique-key-missing"),
        ("STUDY", identifier("SERIES", StudyInstanceUID=["1.2", "1.3"]), "unique-key-missing"),
        ("STUDY", identifier("IMAGE", StudyInstanceUID="1.2"), "unique-key-missing"),
        ("PATIENT", identifier("STUDY", PatientName=SECRET), "unique-key-missing"),
        ("PATIENT", identifier("STUDY", PatientID="12*"), "unique-key-missing"),
    ],
)
def test_queries_without_what_their_level_needs(root, asked, code):
    with pytest.raises(DicomError) as caught:
        query_level(root, asked)
    assert caught.value.code == code
    assert SECRET not in str(caught.value)


def test_a_level_may_carry_padding():
    assert query_level("STUDY", identifier("STUDY ")) == "STUDY"


@pytest.mark.parametrize(
    ("root", "asked", "code"),
    [
        ("STUDY", identifier("STUDY"), "unique-key-missing"),
        ("STUDY", identifier("STUDY", StudyInstanceUID=""), "unique-key-missing"),
        ("STUDY", identifier("STUDY", StudyInstanceUID="*"), "unique-key-wildcard"),
        ("PATIENT", identifier("PATIENT", PatientID="?"), "unique-key-wildcard"),
        ("PATIENT", identifier("PATIENT", PatientID=["1", "2"]), "unique-key-list"),
        ("STUDY", identifier("IMAGE", SOPInstanceUID="1.2"), "unique-key-missing"),
    ],
)
def test_a_retrieval_has_to_name_something(root, asked, code):
    with pytest.raises(DicomError) as caught:
        retrieve_level(root, asked)
    assert caught.value.code == code


def test_a_retrieval_may_name_a_list_at_its_own_level():
    asked = identifier("IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.2", SOPInstanceUID=["1.3", "1.4"])
    assert retrieve_level("STUDY", asked) == "IMAGE"


def test_reading():
    data = encode(identifier("STUDY", PatientName=SECRET), False, True)
    assert read_identifier(BytesIO(data), EXPLICIT).PatientName == SECRET


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "identifier-missing"),
        (BytesIO(b""), "identifier-missing"),
        (BytesIO(b"\x08\x00\x52\x00CS\xff\x00STUDY"), "truncated"),
        (BytesIO(bytes(range(97, 123)) * 4), "not-dicom"),
    ],
)
def test_what_cannot_be_read(data, code):
    with pytest.raises(DicomError) as caught:
        read_identifier(data, EXPLICIT)
    assert caught.value.code == code


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("SOPInstanceUID", "\\".join(["1.2"] * 65535), None),
        ("SOPInstanceUID", "\\".join(["1.2"] * 65536), "too-many-values"),
        ("PatientID", "\\".join("p" * 256), None),
        ("PatientID", "\\".join("p" * 257), "too-many-values"),
        ("PatientName", "山" * 1024, None),
        ("PatientName", "p" * 5000, "key-too-long"),
        ("StudyDescription", "*?" * 2500 + "#", "key-too-long"),
    ],
)
def test_keys_are_bounded_in_length_and_number(keyword, value, code, implicit):
    asked = identifier("STUDY", SpecificCharacterSet="ISO_IR 192")
    nested = Dataset()
    nested.RequestedProcedureID = "x"
    asked.RequestAttributesSequence = [nested]
    data = encode(asked, implicit, True)
    tag, encoded = tag_for_keyword(keyword), value.encode()
    encoded += b" " * (len(encoded) % 2)
    vr = dictionary_VR(tag).encode()
    head = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(encoded))
    if not implicit:  # UN: the one explicit form that is long enough for any VR
        head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN" if len(encoded) > 65534 else vr, 0, len(encoded))
        if len(encoded) <= 65534:
            head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(encoded))
    whole = BytesIO(b"".join(sorted([data, head + encoded], key=lambda part: part[:4] > data[:4])))
    syntax = "1.2.840.10008.1.2" if implicit else EXPLICIT
    if code is None:
        read = read_identifier(whole, syntax)[tag]
        assert 1 + value.count("\\") == read.VM or read.VR == "UN"
        return
    with pytest.raises(DicomError) as caught:
        read_identifier(whole, syntax)
    assert caught.value.code == code and value[:3] not in caught.value.message


def test_an_endless_identifier_is_cut_and_refused():
    data = BoundedBuffer(16)
    assert data.write(b"x" * 10) == 10
    assert data.write(b"y" * 10) == 10
    assert data.getvalue() == b"x" * 10 + b"y" * 6
    assert data.dropped == 4
    with pytest.raises(DicomError) as caught:
        read_identifier(data, EXPLICIT)
    assert caught.value.code == "identifier-too-large"


def sequences(depth: int) -> bytes:
    """Sequences of defined length in one another, Explicit VR Little Endian."""
    value = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
    return value


def elements(number: int, nested: bool) -> bytes:
    """So many empty elements, each of another tag; in one item of a sequence, or not."""
    value = b"".join(struct.pack("<HH2sH", 0x0009 + 2 * (n >> 16), n & 0xFFFF, b"LO", 0) for n in range(number))
    if not nested:
        return value
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
    return struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item


@pytest.mark.parametrize("nested", [True, False])
def test_an_identifier_has_some_thousand_elements_at_most(nested):
    level = encode(identifier("STUDY"), False, True)
    assert read_identifier(BytesIO(level + elements(4000, nested)), EXPLICIT).QueryRetrieveLevel == "STUDY"
    with pytest.raises(DicomError) as caught:
        read_identifier(BytesIO(level + elements(5000, nested)), EXPLICIT)
    assert caught.value.code == "identifier-too-large"


@pytest.mark.parametrize(
    ("data", "syntax", "code"),
    [
        (elements(260_000, True), EXPLICIT, "identifier-too-large"),
        (sequences(900), EXPLICIT, "nested-too-deep"),  # pydicom never comes to the end of its error text
        (struct.pack("<HH2sHI", 0x0010, 0x0010, b"UT", 0, 3 << 20) + b"\\" * (3 << 20), EXPLICIT, "too-many-values"),
        (bytes(64 << 20), DEFLATED, "header-too-large"),
        (struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0), EXPLICIT, "identifier-unreadable"),
    ],
)
def test_an_identifier_that_would_exhaust_time_or_memory_is_refused(data, syntax, code):
    level = encode(identifier("STUDY"), False, True)
    if syntax == DEFLATED:
        squeeze = zlib.compressobj(wbits=-15)
        head = level + struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, len(data))
        level, data = b"", squeeze.compress(head + data) + squeeze.flush()
    tracemalloc.start()
    try:
        with pytest.raises(DicomError) as caught:
            read_identifier(BytesIO(level + data), syntax)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
