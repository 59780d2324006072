"""Stored values that stand for padding or colours: none is changed, none is entered."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_LS_LOSSLESS
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.compressed import lossless_frame, wrapped
from tests.support.dicom.samples import encode, image

PADDING, LIMIT = 0x00280120, 0x00280121


def padded(frames: np.ndarray, vr: str, value: int, limit: int | None = None, **changes: object):
    ds = image(frames, **changes)
    ds.add_new(PADDING, vr, value)
    if limit is not None:
        ds.add_new(LIMIT, vr, limit)
    return ds


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize(
    ("frames", "bits", "vr", "value", "limit", "padding", "reserved"),
    [
        ([0, 300, 600, 601, 4095], 12, "US", 0, 600, [1, 1, 1, 0, 0], (0, 600)),
        ([0, 300, 600, 601, 4095], 12, "US", 600, 0, [1, 1, 1, 0, 0], (0, 600)),
        ([0, 5, 4000, 4095, 7], 12, "US", 4000, 5000, [0, 0, 1, 1, 0], (4000, 4095)),  # cut to what Bits Stored holds
        ([-2048, -2000, -1999, 0, 9], 12, "SS", -2048, -2000, [1, 1, 0, 0, 0], (-2048, -2000)),
        ([-2048, -2000, -1999, 0, 9], 12, "US", 63488, 63536, [1, 1, 0, 0, 0], (-2048, -2000)),
        ([-32768, 5, 7, 0, 9], 16, "SS", -32768, None, [1, 0, 0, 0, 0], (-32768, -32768)),
        ([65535, 5, 7, 0, 9], 16, "US", 65535, None, [1, 0, 0, 0, 0], (65535, 65535)),
    ],
)
def test_padding_ranges(syntax, frames, bits, vr, value, limit, padding, reserved):
    kind = np.int16 if min(frames) < 0 else np.uint16
    ds = padded(np.array([[frames]], kind), vr, value, limit, BitsStored=bits)
    if syntax == EXPLICIT_BIG:
        ds.PixelData = np.array(frames, kind).astype(kind(0).dtype.newbyteorder(">")).tobytes()
    pixels = decode_pixels(encode(ds, syntax), syntax)
    assert pixels.padding.reshape(-1).tolist() == [bool(one) for one in padding]
    assert pixels.reserved == (reserved,)


@pytest.mark.parametrize(("value", "stored"), [(63536, 63536 & 0xFFF), (0xF000, 0), (0x8123, 0x123)])
def test_padding_written_in_the_whole_container(value, stored):
    """The value does not fit into Bits Stored; the bits above are the only thing that tells it from a real pixel."""
    frames = np.array([[[value, 24, 1000, value, 4000]]], np.uint16)
    pixels = decode_pixels(encode(padded(frames, "US", value, BitsStored=12)), EXPLICIT_LITTLE)
    assert pixels.padding.reshape(-1).tolist() == [True, False, False, True, False]
    assert pixels.reserved == ((stored, stored),)
    assert np.array_equal(pixels.containers(pixels.frames), frames)


def test_unsigned_padding_written_with_a_sign():
    ds = padded(np.array([[[65535, 5, 7, 0, 9]]], np.uint16), "SS", -1)
    assert decode_pixels(encode(ds), EXPLICIT_LITTLE).reserved == ((65535, 65535),)


def test_a_range_written_in_the_whole_container():
    frames = np.array([[[0xF000, 0xF010, 0xF011, 8, 4000]]], np.uint16)
    pixels = decode_pixels(encode(padded(frames, "US", 0xF000, 0xF010, BitsStored=12)), EXPLICIT_LITTLE)
    assert pixels.padding.reshape(-1).tolist() == [True, True, False, True, False]  # 8 may be one: left alone
    assert pixels.reserved == ((0, 16),)


def test_a_range_of_whole_containers_that_bits_stored_does_not_show_as_one():
    frames = np.array([[[0x8FF0, 0x9005, 0x9011, 0x0FF5, 4000]]], np.uint16)
    pixels = decode_pixels(encode(padded(frames, "US", 0x8FF0, 0x9010, BitsStored=12)), EXPLICIT_LITTLE)
    assert pixels.padding.reshape(-1).tolist() == [True, True, False, False, False] and pixels.reserved == ()


def test_padding_of_compressed_signed_pixels():
    numbers = np.array([[-2000, -1000, 5, 7] * 4] * 16, np.int16)
    frame = lossless_frame((numbers & 0xFFF).astype(np.uint16), JPEG_LS_LOSSLESS, BitsStored=12)
    pixels = decode_pixels(wrapped(padded(numbers[None], "US", 63536, BitsStored=12), frame), JPEG_LS_LOSSLESS)
    assert np.array_equal(pixels.padding[0], numbers == -2000) and pixels.reserved == ((-2000, -2000),)


def with_palette(frames: np.ndarray, first: int, vr: str = "US", **changes: object):
    ds = image(frames, **changes)
    for tag in (0x00281101, 0x00281102, 0x00281103):
        ds.add_new(tag, vr, [256, first, 16])
    return ds


def test_colours_of_a_supplemental_palette():
    """PS3.3 C.7.6.19: from the first mapped value on, and behind the last entry too."""
    frames = np.array([[[0, 2047, 2048, 2303, 4095]]], np.uint16)
    pixels = decode_pixels(encode(with_palette(frames, 2048, BitsStored=12)), EXPLICIT_LITTLE)
    assert pixels.padding.reshape(-1).tolist() == [False, False, True, True, True]
    assert pixels.reserved == ((2048, 4095),)
    signed = with_palette(frames.astype(np.int16), 2048, BitsStored=16)
    assert decode_pixels(encode(signed), EXPLICIT_LITTLE).reserved == ((2048, 32767),)
    both = with_palette(frames, 2048, BitsStored=12)
    both.add_new(PADDING, "US", 0)
    pixels = decode_pixels(encode(both), EXPLICIT_LITTLE)
    assert pixels.reserved == ((0, 0), (2048, 4095)) and pixels.padding.sum() == 4


def test_a_palette_that_cannot_be_read_is_held():
    ds = image(np.zeros((1, 4, 4), np.uint16))
    ds.add_new(0x00281101, "US", [256, 4])
    with pytest.raises(DicomError) as caught:
        decode_pixels(encode(ds), EXPLICIT_LITTLE)
    assert caught.value.code == "palette-colour"
