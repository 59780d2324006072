"""Reading headers and checking encodings: the real corpus, cut and damaged files, sizes that lie."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from itertools import pairwise
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from gateway.dicom.encoding import depth, source, values
from gateway.dicom.encoding.check import check_encoding
from gateway.dicom.encoding.encoded import InstanceHeader, read_arrival
from gateway.dicom.encoding.encoded import read_header as header_of
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.errors import DicomError
from tests.support.dicom.samples import OneWay, corpus, encode, image, present, sample
from tests.support.examples import examples

# What cannot be taken in, of 191 files; all others must give a header that agrees with index.csv.
REFUSED = {
    "nibabel/csa_slice_norm.dcm": "no-pixels",
    "nibabel/decimal_rescale.dcm": "missing-uid",
    "pydicom/JPEGLSNearLossless_08.dcm": "missing-uid",
    "pydicom/SC_rgb_jls_lossy_line.dcm": "missing-uid",
    "pydicom/empty_charset_LEI.dcm": "missing-uid",
    "pydicom/nested_priv_SQ.dcm": "missing-uid",
    "pydicom/priv_SQ.dcm": "not-dicom",
    "pydicom-data/HTJ2KLossless_08_RGB.dcm": "missing-uid",
    "pydicom-data/JLSL_08_07_0_1F.dcm": "missing-uid",
    "pydicom-data/JLSL_16_15_1_1F.dcm": "missing-uid",
    "pydicom-data/JLSL_RGB_ILV0.dcm": "missing-uid",
    "pydicom-data/JLSL_RGB_ILV2.dcm": "missing-uid",
}


def read_header(stream: BinaryIO, syntax: str) -> InstanceHeader:
    """The header; and what decides about taking the object in is the same, errors too."""
    if not isinstance(stream, io.BytesIO):
        return header_of(stream, syntax)
    data = stream.getvalue()
    try:
        header = header_of(stream, syntax)
    except DicomError as error:
        assert code_of(lambda: read_arrival(io.BytesIO(data), syntax)) == error.code
        raise
    arrival = read_arrival(io.BytesIO(data), syntax)
    assert all(getattr(header, name) == value for name, value in vars(arrival).items())
    return header


def code_of(call) -> str:
    with pytest.raises(DicomError) as caught:
        call()
    return caught.value.code


def test_every_file_of_the_corpus(miad_data):
    wrong = {}
    for one in corpus(miad_data):
        name, row = one.row["file"], one.row
        data, syntax = one.read()
        try:
            header = check_encoding(io.BytesIO(data), len(data), syntax)
        except DicomError as error:
            if REFUSED.get(name) != error.code:
                wrong[name] = error.code
            continue
        agrees = (
            row["sop_class_uid"] == header.sop_class_uid
            and row["modality"] == header.modality
            and row["photometric"] == header.photometric
            and row["rows"] in ("", str(header.rows))
            and row["cols"] in ("", str(header.columns))
            and row["bits_stored"] in ("", str(header.bits_stored))
            and row["frames"] == str(header.frames)
            and row["transfer_syntax_uid"] in ("", syntax)
        )
        if not agrees or name in REFUSED:
            wrong[name] = "accepted"
    assert not wrong


def test_a_stream_that_cannot_seek_gives_the_same_header(miad_data):
    names = ["pydicom/CT_small.dcm", "pydicom-data/emri_small_RLE.dcm", "pynetdicom/SCImageStorage_Deflated.dcm"]
    for one in present(miad_data, [*names, "pydicom/MR_small_RLE.dcm"]):
        data, syntax = one.read()
        forward, whole = read_header(OneWay(data), syntax), read_header(io.BytesIO(data), syntax)
        assert forward == whole
        assert forward.attributes == whole.attributes
        assert check_encoding(OneWay(data), len(data), syntax) == whole


def test_the_header_stops_before_the_pixels_and_survives_a_cut_there():
    data = encode(image())
    end_of_header = data.rindex(b"\xe0\x7f\x10\x00") + 12
    header = read_header(io.BytesIO(data[:end_of_header]), EXPLICIT_LITTLE)
    assert header.has_pixel_data and header.rows == 6 and "PixelData" not in header.dataset
    size = end_of_header
    assert code_of(lambda: check_encoding(io.BytesIO(data[:end_of_header]), size, EXPLICIT_LITTLE)) == "truncated"


def test_a_deflated_header_is_read_though_what_follows_it_cannot_be_inflated():
    """Nothing of the pixel data may be asked for: of a long object its first bytes are all that there is."""
    ds = image(IconImageSequence=[Dataset()])
    ds["IconImageSequence"].is_undefined_length = True
    data = encode(ds)
    end_of_header = data.rindex(b"\xe0\x7f\x10\x00") + 12
    for more in range(3):
        squeeze = zlib.compressobj(wbits=-15)
        cut = squeeze.compress(data[: end_of_header + more]) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        assert read_arrival(io.BytesIO(cut), DEFLATED_LITTLE).sop_instance_uid == "1.2.3.4"


@pytest.mark.timeout(300)
def test_truncated_anywhere_is_an_error_or_a_valid_header(miad_data, subtests):
    names = [
        "pydicom/CT_small.dcm",
        "pydicom/rtplan.dcm",
        "pydicom-data/emri_small_big_endian.dcm",
        "pydicom/MR_small_bigendian.dcm",
        "pydicom/MR_small_RLE.dcm",
        "pynetdicom/SCImageStorage_Deflated.dcm",
        "pydicom/reportsi.dcm",
    ]
    for one in present(miad_data, names):
        with subtests.test(file=one.row["file"]):
            truncated_anywhere(*one.read())


def truncated_anywhere(data, syntax):
    whole = read_header(io.BytesIO(data), syntax)
    end_of_pixels = 0
    if whole.has_pixel_data:
        parts = split(data, syntax)
        # behind a deflated data set there may be a byte of padding, within it nothing can be missing
        end_of_pixels = len(data) - 1 if syntax == DEFLATED_LITTLE else parts.pixels.value + len(parts.value)
    cuts = sorted({*range(0, min(len(data), 3000), 7), *range(0, len(data), max(1, len(data) // 150))})
    for cut in cuts:
        try:
            header = read_header(io.BytesIO(data[:cut]), syntax)
        except DicomError:
            continue
        assert header.sop_instance_uid == whole.sop_instance_uid
    for cut in cuts[1:]:
        try:
            header = check_encoding(io.BytesIO(data[:cut]), cut, syntax)
        except DicomError:
            continue
        assert not header.has_pixel_data or cut >= end_of_pixels  # an image without its last pixels never passes


@examples(150)
@given(position=st.integers(0, 2000), junk=st.binary(min_size=1, max_size=16))
def test_damaged_bytes_give_a_header_or_a_dicom_error(position, junk):
    data = bytearray(encode(image()))
    position %= len(data)
    data[position : position + len(junk)] = junk
    try:
        check_encoding(io.BytesIO(bytes(data)), len(data), EXPLICIT_LITTLE)
    except DicomError as error:
        assert "Doe" not in str(error)


@examples(150)
@given(data=st.binary(max_size=200), syntax=st.sampled_from([EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED_LITTLE]))
def test_random_bytes_are_refused(data, syntax):
    with pytest.raises(DicomError):
        read_header(io.BytesIO(data), syntax)


def test_a_declared_size_is_not_allocated():
    data = encode(image())
    at = data.rindex(b"\xe0\x7f\x10\x00") + 8
    lying = data[:at] + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 :]
    huge_value = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xF0000000) + bytes(64)
    tracemalloc.start()
    for bad in (lying, data[:8] + data[8:60] + huge_value):
        for stream in (io.BytesIO(bad), OneWay(bad)):
            assert code_of(lambda s=stream, b=bad: check_encoding(s, len(b), EXPLICIT_LITTLE)) == "truncated"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_deflate_bomb_is_bounded(monkeypatch):
    monkeypatch.setattr(source, "MAX_INFLATED", 1 << 20)
    body = encode(image())[:-108] + struct.pack("<HH2sHI", 0x0042, 0x0011, b"OB", 0, 64 << 20) + bytes(64 << 20)
    squeeze = zlib.compressobj(wbits=-15)
    bomb = squeeze.compress(body) + squeeze.flush()
    assert len(bomb) < 100_000
    reader = source.InflatingReader(io.BytesIO(bomb), 1 << 20)
    with pytest.raises(DicomError) as caught:
        while reader.read(1 << 16):
            pass
    assert caught.value.code == "inflates-too-large"


def test_sequences_nested_without_end_are_refused():
    nest = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    data = encode(image())[:30] + nest * 5000
    assert code_of(lambda: read_header(io.BytesIO(data), EXPLICIT_LITTLE)) == "nested-too-deep"


def test_a_broken_sequence_larger_than_any_header_is_not_decoded(monkeypatch):
    monkeypatch.setattr(depth, "MAX_HEADER", 1000)
    item = (
        struct.pack("<HHI", 0xFFFE, 0xE000, 1201) + struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1188) + bytes(1188)
    )
    for tag, vr, code in ((0x1140, b"SQ", "header-too-large"), (0x1141, b"UN", "")):
        group = 0x0008 if code else 0x0009
        part = struct.pack("<HH2sHI", group, tag, vr, 0, len(item)) + item
        data = encode(image())
        at = data.index(struct.pack("<HH", 0x0010, 0x0010))
        data = data[:at] + part + data[at:]
        if code:
            assert code_of(lambda bad=data: split(bad, EXPLICIT_LITTLE)) == code
        else:  # raw data of a scanner stay what they are
            assert split(data, EXPLICIT_LITTLE).header.rows == 6


def test_large_documents_are_no_part_of_a_header():
    ds = image()
    ds.EncapsulatedDocument = bytes(3 << 20)
    header = read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)
    assert "EncapsulatedDocument" not in header.dataset and header.rows == 6


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Rows": 0}, "no-pixels"),
        ({"Columns": None}, "no-pixels"),
        ({"PixelData": None}, "no-pixels"),
        ({"NumberOfFrames": 0}, "no-pixels"),
        ({"NumberOfFrames": 2}, "pixel-data-too-short"),
        ({"Rows": 7}, "pixel-data-too-short"),
        ({"Rows": 5}, "pixel-data-too-long"),
        ({"SOPInstanceUID": None}, "missing-uid"),
        ({"StudyInstanceUID": None}, "missing-uid"),
        ({"SeriesInstanceUID": None}, "missing-uid"),
        ({"SeriesInstanceUID": "not a uid"}, "bad-uid"),
    ],
)
def test_wrong_image_attributes(changes, code):
    data = encode(image(**changes))
    assert code_of(lambda: check_encoding(io.BytesIO(data), len(data), EXPLICIT_LITTLE)) == code


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (b"1.2\0", "1.2"),
        (b"1.2\0\0", "1.2"),
        (b" 1.2", "1.2"),
        (b"1.2 ", "1.2"),
        (b"01.002", "01.002"),
        (b"1.2\\3.4\0", "1.2"),
        (b"1" * 64, "1" * 64),
        (b"1" * 66, "bad-uid"),
        (b"1..2", "bad-uid"),
        (b"1.2\0003", "bad-uid"),
        ("1.\u0662".encode(), "bad-uid"),
        (b"1" * 300_000, "missing-uid"),  # no value that is looked at
    ],
)
def test_a_uid_as_it_may_be_written(written, code):
    """Plain ones are read without decoding: what they are must not depend on that."""
    ds = Dataset()
    ds[0x0020000E] = RawDataElement(BaseTag(0x0020000E), "UI", len(written), written, 0, False, True)
    try:
        assert values.uid(ds, "SeriesInstanceUID") == code
    except DicomError as error:
        assert error.code == code


def test_what_may_stand_behind_the_pixels():
    data = encode(image())
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 6) + bytes(6)
    for tail in (b"", padding, bytes(5), bytes(4096), padding + bytes(64)):
        assert check_encoding(io.BytesIO(data + tail), len(data + tail), EXPLICIT_LITTLE).rows == 6
    for tail, code in ((b"abc", "truncated"), (padding[:-2], "truncated"), (bytes(8) + b"x", "trailing-bytes")):
        bad = data + tail
        assert code_of(lambda b=bad: check_encoding(io.BytesIO(b), len(b), EXPLICIT_LITTLE)) == code


def test_a_label_that_says_implicit_over_explicit_bytes_is_read_as_it_is():
    data = encode(image())
    assert read_header(io.BytesIO(data), IMPLICIT_LITTLE).rows == 6
    assert read_header(io.BytesIO(encode(image(), IMPLICIT_LITTLE)), EXPLICIT_LITTLE).rows == 6


def test_unknown_transfer_syntaxes():
    data = encode(image())
    for uid in ("", "1.2.840.113619.5.2", "1.2.3"):
        assert code_of(lambda u=uid: read_header(io.BytesIO(data), u)) == "unknown-transfer-syntax"
    assert read_header(io.BytesIO(data), "1.2.840.10008.1.2.4.100").rows == 6  # video: its header can be read


def test_nothing_of_the_patient_shows_in_texts_of_objects_and_errors():
    header = read_header(io.BytesIO(encode(image())), EXPLICIT_LITTLE)
    assert "Doe" not in repr(header)
    ds = image(SeriesInstanceUID="Doe^Jane")
    with pytest.raises(DicomError) as caught:
        read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)
    assert "Doe" not in str(caught.value)


def test_slice_positions_grow_along_the_normal(miad_data):
    positions = []
    for number in range(1, 25):
        data, syntax = sample(miad_data, f"series_ct_head_ge/{number:02}.dcm").read()
        positions.append(read_header(io.BytesIO(data), syntax).slice_position)
    steps = [b - a for a, b in pairwise(positions)]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps)
    ds = image(SliceLocation="-12.5")
    assert read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE).slice_position == -12.5
    assert read_header(io.BytesIO(encode(image())), EXPLICIT_LITTLE).slice_position is None
