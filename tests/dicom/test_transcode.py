"""Explicit to implicit: other heads, the same values."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.encoding.transcode import to_implicit
from gateway.errors import DicomError
from tests.support.dicom.samples import corpus, encode, image, is_standin


def test_it_is_what_pydicom_writes():
    item, inner = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    item.ReferencedSOPSequence = [inner, Dataset(), inner]
    ds = image(SeriesDescription="x")
    ds.ReferencedSeriesSequence = [item, item]
    ds.ReferencedImageSequence = []
    assert to_implicit(encode(ds)) == encode(ds, IMPLICIT_LITTLE)
    ds["ReferencedSeriesSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    assert to_implicit(encode(ds)) == encode(ds, IMPLICIT_LITTLE)


def test_every_uncompressed_explicit_file_of_the_corpus(miad_data):
    seen = 0
    for one in corpus(miad_data):
        data, syntax = one.read()
        if syntax != EXPLICIT_LITTLE or len(data) > 200_000 or one.row["file"].startswith("series_"):
            continue
        try:
            header = read_header(io.BytesIO(data), syntax)
        except DicomError:
            continue
        implicit = to_implicit(data)
        assert read_header(io.BytesIO(implicit), IMPLICIT_LITTLE).attributes == header.attributes
        again = read_dataset(io.BytesIO(implicit), True, True)
        before = read_dataset(io.BytesIO(data), False, True)
        assert list(again.keys()) == list(before.keys())
        if "PixelData" in before:
            assert again.PixelData == before.PixelData
        seen += 1
    assert seen > (15 if is_standin(miad_data) else 30)


def test_broken_input():
    data = encode(image())
    fragments = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + bytes(8)
    nest = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    for bad, code in (
        (data[:-1], "truncated"),
        (data[:10], "truncated"),
        (data[: data.rindex(b"\xe0\x7f\x10\x00")] + fragments, "encapsulated"),
        (data[:30] + nest, "truncated"),
        (data[:30] + nest * 200, "nested-too-deep"),
        (data[:30] + nest[:12] + b"\x08\0\x18\0UI\0\0", "bad-sequence"),
    ):
        with pytest.raises(DicomError) as caught:
            to_implicit(bad)
        assert caught.value.code == code


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 2000), junk=st.binary(min_size=1, max_size=16))
def test_damaged_bytes_never_raise_anything_else(position, junk):
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    ds = image()
    ds.ReferencedImageSequence = [item]
    data = bytearray(encode(ds))
    position %= len(data)
    data[position : position + len(junk)] = junk
    with suppress(DicomError):
        to_implicit(bytes(data))
