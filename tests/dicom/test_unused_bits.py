"""What stands in a copy's containers beside the stored values: overlays that the header names, and padding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.samples import encode, facts, image, slightly_changed

SIDE = 64
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
PICTURE = (1500 + 900 * np.sin(ROWS / 7.0) * np.cos(COLUMNS / 5.0)).astype(np.uint16)
DRAWN = np.zeros((SIDE, SIDE), np.uint16)
DRAWN[8:12, 5:50] = DRAWN[30:50, 20:22] = 1


def copied(ds: Dataset, syntax: str = EXPLICIT_LITTLE) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The copy, its containers (H, W), and the marked stored values."""
    if syntax == EXPLICIT_BIG:
        ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
    data = encode(ds, syntax)
    pixels = decode_pixels(data, syntax)
    marked = slightly_changed(pixels.frames, pixels.limits)
    if pixels.padding is not None:
        marked[pixels.padding] = pixels.frames[pixels.padding]
    derived = derive(data, syntax, marked, facts(), pixels)
    assert np.array_equal(decode_pixels(derived, EXPLICIT_LITTLE).frames, marked)
    assert read_header(io.BytesIO(derived), EXPLICIT_LITTLE).rows == SIDE
    copy = read_dataset(io.BytesIO(derived), False, True)
    return copy, np.frombuffer(copy.PixelData, "<u2").reshape(SIDE, SIDE), marked[0]


def overlay_in_bit(ds: Dataset, bit: int, group: int = 0x6000) -> Dataset:
    for element, vr, value in ((0x10, "US", SIDE), (0x11, "US", SIDE), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
                               (0x100, "US", 16), (0x102, "US", bit)):  # fmt: skip
        ds.add_new(group << 16 | element, vr, value)
    return ds


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("shift", [0, 8])
def test_a_second_picture_beside_the_stored_bits_does_not_leave(shift, syntax):
    eight = PICTURE >> 4
    both = (eight << shift | eight << (8 - shift)).astype(np.uint16)
    _, containers, marked = copied(image(both[None], BitsStored=8, HighBit=7 + shift), syntax)
    assert np.array_equal(containers, marked.astype(np.uint16) << shift)


def test_the_sign_fills_unused_bits_that_held_anything_else():
    signed = PICTURE.astype(np.int16) - 1500
    junk = (signed.view(np.uint16) & 0x0FFF) | ((PICTURE >> 6 & 0xF) << 12).astype(np.uint16)
    _, containers, marked = copied(image(junk[None], BitsStored=12, PixelRepresentation=1))
    assert marked.min() < 0 and np.array_equal(containers.view(np.int16), marked)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_an_overlay_stays_in_the_bit_that_the_header_names_and_nothing_beside_it(syntax):
    ds = image((PICTURE | DRAWN << 13 | (PICTURE > 1500).astype(np.uint16) << 15)[None], BitsStored=12)
    copy, containers, marked = copied(overlay_in_bit(ds, 13), syntax)
    assert np.array_equal(containers, marked | DRAWN << 13) and copy[0x60000102].value == 13


@pytest.mark.parametrize("kind", ["threshold", "bit plane"])
def test_an_overlay_in_a_bit_that_shows_the_picture_goes(kind):
    plane = {"threshold": PICTURE > 1500, "bit plane": PICTURE >> 10 & 1}[kind].astype(np.uint16)
    ds = image((PICTURE | plane << 12 | DRAWN << 13)[None], BitsStored=12)
    copy, containers, marked = copied(overlay_in_bit(overlay_in_bit(ds, 12), 13, 0x6002))
    assert np.array_equal(containers, marked | DRAWN << 13)
    assert 0x60000102 not in copy and 0x60020102 in copy


def test_padding_that_fills_whole_containers_stays():
    outside = (ROWS - 32) ** 2 + (COLUMNS - 32) ** 2 > 900
    ds = image(np.where(outside, 63536, PICTURE | 0x3000).astype(np.uint16)[None], BitsStored=12)
    ds.add_new(0x00280120, "US", 63536)
    _, containers, marked = copied(ds)
    assert (containers[outside] == 63536).all() and np.array_equal(containers[~outside], marked[~outside])
