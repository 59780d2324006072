"""Elements in tag order, whatever lies behind the pixel data (PS3.5 7.1)."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from gateway.dicom.copy.bulk import RideAlong
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_LS_LOSSLESS
from gateway.dicom.pixels.compress import recode
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.samples import encode, facts, image

KEPT = facts(ride_along=RideAlong(keep=frozenset({"SCANNER RAW"})))


def scanners_own(frames: np.ndarray | None = None) -> pydicom.Dataset:
    """An image with private data behind its pixels, as CT and MR scanners send it."""
    ds = image(frames)
    ds.add_new(0x7FE10010, "LO", "SCANNER RAW")
    ds.add_new(0x7FE11010, "OB", b"raw data")
    return ds


def tags(data: bytes, syntax: str) -> list[int]:
    file = io.BytesIO()
    write_part10(file, "1.2", "1.2", syntax, [data])
    file.seek(0)
    return [int(tag) for tag in pydicom.dcmread(file).keys()]  # noqa: SIM118 - the order of the file


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_a_marked_copy_is_in_tag_order(syntax):
    original = encode(scanners_own(np.zeros((1, 40, 48), "u2")), syntax)
    copy = derive(original, syntax, decode_pixels(original, syntax).frames, KEPT)
    for made, as_syntax in ((copy, EXPLICIT_LITTLE), (recode(copy, JPEG_LS_LOSSLESS), JPEG_LS_LOSSLESS)):
        found = tags(made, as_syntax)
        assert found == sorted(found) and found[-3:] == [0x7FE00010, 0x7FE10010, 0x7FE11010]


def test_a_remapped_object_is_in_tag_order():
    found = tags(derive_references(encode(scanners_own()), EXPLICIT_LITTLE, KEPT), EXPLICIT_LITTLE)
    assert found == sorted(found) and found[-3:] == [0x7FE00010, 0x7FE10010, 0x7FE11010]
