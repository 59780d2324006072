"""Taking an instance apart loses nothing of it, wherever an element stands."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.bulk import RideAlong
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.samples import encode, facts, image

KEPT = facts(ride_along=RideAlong(keep=frozenset({"SCANNER"})))


def behind_the_pixels(undefined: bool) -> Dataset:
    """A scanner's private sequence, whose group comes after that of the pixel data."""
    ds, item = Dataset(), Dataset()
    ds.add_new(0x7FE10010, "LO", "SCANNER")
    item.add_new(0x7FE10010, "LO", "SCANNER")
    item.add_new(0x7FE11002, "OB", b"raw data")
    ds.add_new(0x7FE11001, "SQ", [item])
    ds[0x7FE11001].is_undefined_length = undefined
    return ds


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_private_sequences_out_of_order_before_the_pixels(syntax, undefined):
    """Found by fuzzing: a sequence without length was taken for bulk data, and left out of the header."""
    whole, private = encode(image(), syntax), encode(behind_the_pixels(undefined), syntax)
    at = split(whole, syntax).pixels.start
    data = whole[:at] + private + whole[at:]
    header = data[: at + len(private)]
    assert split(data, syntax).header_bytes == header
    assert FrameReader(io.BytesIO(data), len(data), syntax).parts.header_bytes == header
    assert b"raw data" in derive(data, syntax, decode_pixels(data, syntax).frames, KEPT)


@pytest.mark.parametrize("undefined", [True, False])
def test_an_object_without_pixels_keeps_them(undefined):
    data = encode(image(PixelData=None, Rows=None, Columns=None)) + encode(behind_the_pixels(undefined))
    copy = read_dataset(io.BytesIO(derive_references(data, EXPLICIT_LITTLE, KEPT)), False, True)
    assert copy[0x7FE11001].value[0][0x7FE11002].value == b"raw data"
