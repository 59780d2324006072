"""Frames that are read a few at a time: the same pixels, or the same refusal, as of the whole in memory."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels import frames as reading
from gateway.dicom.pixels.frames import FrameReader, decoded_bytes
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.samples import encode, image

RLE = "1.2.840.10008.1.2.5"
RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def pieces_of_two_frames(monkeypatch):
    monkeypatch.setattr(reading, "PIECE_BYTES", 1)


def reader(data: bytes, syntax: str = EXPLICIT_LITTLE) -> FrameReader:
    return FrameReader(io.BytesIO(data), len(data), syntax)


def same(data: bytes, syntax: str = EXPLICIT_LITTLE) -> None:
    whole, found = decode_pixels(data, syntax), list(reader(data, syntax).pieces())
    assert [first for first, _ in found] == list(range(0, len(whole.frames), 2))
    assert np.array_equal(np.concatenate([pixels.frames for _, pixels in found]), whole.frames)
    assert b"".join(p.containers(p.frames).tobytes() for _, p in found) == whole.containers(whole.frames).tobytes()
    assert [shown for _, pixels in found for shown in pixels.displays] == list(whole.displays)


def code_of(data: bytes, syntax: str = EXPLICIT_LITTLE) -> str:
    with pytest.raises(DicomError) as caught:
        list(reader(data, syntax).pieces())
    return caught.value.code


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize(
    "ds",
    [
        image(RNG.integers(0, 4096, (5, 6, 7), np.uint16)),
        image(RNG.integers(0, 256, (5, 3, 3), np.uint8)),  # frames of odd length, padded at the end
        image(RNG.integers(0, 256, (3, 4, 6, 3), np.uint8)),
    ],
    ids=["16-bit", "8-bit-odd", "colour"],
)
def test_native_frames(ds, syntax):
    same(encode(ds, syntax), syntax)


def test_overlays_in_unused_bits_stay():
    same(encode(image(RNG.integers(0, 65536, (4, 6, 8), np.uint16), BitsStored=12, HighBit=11)))


def rle_frame(first: int) -> bytes:
    """One segment of literal runs (PS3.5 annex G), 8 bits, 2x4."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + bytes([7, *range(first, first + 8)]) + b"\x80"


def rle(count: int) -> pydicom.Dataset:
    ds = image(np.zeros((count, 2, 4), np.uint8))
    ds.PixelData = encapsulate([rle_frame(number) for number in range(count)], has_bot=False)
    ds["PixelData"].is_undefined_length = True
    return ds


def test_frames_without_an_offset_table():
    same(encode(rle(5)), RLE)


def test_frames_under_an_extended_offset_table():
    ds = rle(5)
    frames = [rle_frame(number) for number in range(5)]
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    same(encode(ds), RLE)
    ds.ExtendedOffsetTable = bytes(40)  # whatever it says: each frame is one fragment (PS3.3 C.7.6.3.1.8)
    same(encode(ds), RLE)
    found = reader(encode(ds), RLE).piece(4, 5).frames
    assert found.reshape(-1).tolist() == list(range(4, 12))


@pytest.mark.parametrize("has_table", [True, False])
def test_frames_of_several_fragments(miad_data, has_table):
    ds = pydicom.dcmread(miad_data / "dicom" / "pydicom" / "examples_ybr_color.dcm")
    frames = [bytes(frame) for frame in generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames)][:4]
    syntax = ds.file_meta.TransferSyntaxUID
    ds.NumberOfFrames = 4
    ds.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=has_table)
    same(encode(ds), syntax)
    ds.NumberOfFrames = 3
    assert code_of(encode(ds), syntax) == "wrong-number-of-frames"


@pytest.mark.parametrize(
    ("wrong", "compressed", "native"),
    [(3, "wrong-number-of-frames", "pixel-data-too-long"), (6, "too-few-fragments", "pixel-data-too-short")],
)
def test_a_wrong_number_of_frames_is_refused(wrong, compressed, native):
    ds = rle(5)
    ds.NumberOfFrames = wrong
    assert code_of(encode(ds), RLE) == compressed
    ds = image(np.ones((5, 6, 8), np.uint16))
    ds.NumberOfFrames = wrong
    assert code_of(encode(ds)) == native


def test_sizes_that_are_only_declared_allocate_nothing():
    ds = rle(5)
    ds.Rows = ds.Columns = 65535
    assert decoded_bytes(reader(encode(rle(5)), RLE).header) == 40
    assert code_of(encode(ds), RLE) == "pixel-data-too-short"
    ds = image(np.zeros((2, 6, 8), np.uint16))
    ds.Rows = ds.Columns = 60000
    assert code_of(encode(ds)) == "pixel-data-too-short"


def test_more_than_an_uncompressed_copy_can_hold_is_refused(monkeypatch):
    data = encode(rle(5))
    monkeypatch.setattr(reading, "MAX_NATIVE", 39)
    assert code_of(data, RLE) == "pixels-too-large"


def test_deflated_objects_are_not_read_in_pieces():
    data = encode(image(np.zeros((2, 6, 8), np.uint16)))
    assert code_of(data, DEFLATED_LITTLE) == "deflated-too-large"
