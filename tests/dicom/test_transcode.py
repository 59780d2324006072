"""Explicit to implicit: other heads, the same values."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.elements import LONG_VRS
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.notes import OTHER_VR
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.encoding.transcode import to_implicit
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, HoldError
from tests.conftest import missing
from tests.support.dicom.readers import dcmtk_reads, missing_programs
from tests.support.dicom.samples import corpus, encode, facts, image, is_standin
from tests.support.examples import examples


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


@examples(100)
@given(position=st.integers(0, 2000), junk=st.binary(min_size=1, max_size=16))
def test_damaged_bytes_never_raise_anything_else(position, junk):
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    ds = image()
    ds.ReferencedImageSequence = [item]
    data = bytearray(encode(ds))
    position %= len(data)
    data[position : position + len(junk)] = junk
    with suppress(DicomError, HoldError):
        to_implicit(bytes(data))


# --- a VR that is not the dictionary's (PS3.5 7.1.3, A.1)


def with_element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An image with that element at its place, whatever stood there."""
    ds = image()
    ds.pop(tag, None)
    data, head = encode(ds), struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    head += struct.pack("<HI", 0, len(value)) if vr in LONG_VRS else struct.pack("<H", len(value))
    following = min(int(other) for other in [*ds.keys(), 0x7FE00010] if other > tag)
    at = data.index(struct.pack("<HH", following >> 16, following & 0xFFFF))
    return data[:at] + head + value + data[at:]


CONVERTED = {
    "PixelRepresentation as IS": (0x00280103, b"IS", b"0 ", 0),
    "Rows as DS": (0x00280010, b"DS", b"6.0 ", 6),
    "Rows as UL": (0x00280010, b"UL", struct.pack("<I", 6), 6),
    "WindowCenter as FD": (0x00281050, b"FD", struct.pack("<d", 40), 40),
    "RescaleSlope as FD": (0x00281053, b"FD", struct.pack("<d", 1 / 3), pytest.approx(1 / 3)),
    "WindowWidth as US": (0x00281051, b"US", struct.pack("<2H", 400, 80), [400, 80]),
    "smallest value as IS": (0x00280106, b"IS", b"-5", 0xFFFB),  # US or SS: by Pixel Representation, which is 0 here
    "Frame of Reference as LO": (0x00200052, b"LO", b"1.2.3 ", "1.2.3"),
    "PatientID as US": (0x00100020, b"US", struct.pack("<H", 17), "17"),
    "Referenced SOP as text": (0x00120064, b"LO", b"text", None),
    "FrameTime as SQ": (0x00181063, b"SQ", b"", None),
    "Exposure as text": (0x00181152, b"LO", b"much", None),
    "SliceThickness with a comma": (0x00180050, b"LO", b"2,5 ", 2.5),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_value_under_a_wrong_vr_is_converted_or_left_out(name, tmp_path):
    tag, vr, value, right = CONVERTED[name]
    data = with_element(tag, vr, value)
    assert OTHER_VR in read_header(io.BytesIO(data), EXPLICIT_LITTLE).notes
    implicit = to_implicit(data)
    again = read_dataset(io.BytesIO(implicit), True, True)
    assert again.PixelData == image().PixelData and len(implicit) % 2 == 0
    assert (again[tag].value if right is not None else again.get(tag)) == right


@pytest.mark.parametrize("name", CONVERTED)
def test_a_value_under_a_wrong_vr_in_an_item(name):
    tag, vr, value, right = CONVERTED[name]
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    head += struct.pack("<HI", 0, len(value)) if vr in LONG_VRS else struct.pack("<H", len(value))
    uid = struct.pack("<HH2sH", 0x0008, 0x1155, b"UI", 6) + b"1.2.3\0"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(uid + head + value)) + uid + head + value
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
    found = read_dataset(io.BytesIO(to_implicit(sequence)), True, True).ReferencedImageSequence[0]
    assert found.ReferencedSOPInstanceUID == "1.2.3"
    assert (found[tag].value if right is not None else found.get(tag)) == right


NEEDED = [(0x00280010, b"LO", b"many"), (0x00280100, b"FD", struct.pack("<d", 15.5)), (0x0020000D, b"LO", b"?!")]


@pytest.mark.parametrize(("tag", "vr", "value"), NEEDED)
def test_what_the_object_cannot_do_without_holds_it(tag, vr, value):
    with pytest.raises(HoldError) as caught:
        to_implicit(with_element(tag, vr, value))
    assert caught.value.code == "vr-not-convertible" and caught.value.hint


@pytest.mark.peers
def test_field_objects_with_a_wrong_vr_in_implicit_vr(field_inputs, tmp_path):
    if absent := missing_programs():
        missing(", ".join(absent))
    for name, tag, right in (
        ("pixelrep_as_is", 0x00280103, 0),
        ("window_as_fd", 0x00281050, 40),
        ("sq_as_lo", 0x00120064, None),
    ):
        with (field_inputs / "vr-mismatch" / f"{name}.dcm").open("rb") as file:
            meta, _ = split_part10(file)
            data = file.read()
        copy = to_implicit(
            derive(data, meta.transfer_syntax_uid, decode_pixels(data, meta.transfer_syntax_uid).frames, facts())
        )
        found = read_dataset(io.BytesIO(copy), True, True)
        assert (found[tag].value if right is not None else found.get(tag)) == right
        path = tmp_path / f"{name}.dcm"
        with path.open("wb") as out:
            write_part10(out, found.SOPClassUID, found.SOPInstanceUID, IMPLICIT_LITTLE, [copy])
        assert dcmtk_reads(path)
