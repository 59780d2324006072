"""Encoding a changed header as Explicit VR Little Endian (PS3.5 A.2); what did not change keeps its bytes."""

from __future__ import annotations

import io

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_data_element

from gateway.dicom.encoding.charset import encodings_of

_PIXEL_GROUP = 0x7FE0


def encode(ds: Dataset) -> bytes:
    """Every element of `ds` in Explicit VR Little Endian, in tag order (PS3.5 7.1)."""
    return b"".join(encode_around(ds))


def encode_around(ds: Dataset) -> tuple[bytes, bytes]:
    """As `encode`, in two: what comes before the pixel data, which is no part of `ds`, and what comes behind it.

    Behind it lie what scanners put into group 7FE1, and retired elements of higher groups.
    """
    before, behind = io.BytesIO(), io.BytesIO()
    character_sets = list(encodings_of(ds)) or None
    for tag in sorted(ds.keys()):
        out = behind if tag >> 16 > _PIXEL_GROUP else before
        raw = ds.get_item(tag, keep_deferred=True)
        try:
            out.write(written(raw, character_sets))
        except Exception:  # a raw element without VR inside an explicit data set, or a value against its VR
            value = _undecoded(raw)
            out.write(written(ds[tag] if value is None else DataElement(tag, "UN", value), character_sets))
    return before.getvalue(), behind.getvalue()


def _undecoded(element: DataElement | RawDataElement) -> bytes | None:
    """The bytes that an element came with, or has as its value; None when it holds decoded values."""
    if isinstance(element, RawDataElement):
        return element.value or b""  # pydicom gives None for no bytes under a VR that it does not know
    return element.value if isinstance(element.value, bytes) else None


def written(element: DataElement, character_sets: list[str] | None) -> bytes:
    """One element, encoded; text that was decoded in these character sets."""
    buffer = io.BytesIO()
    fp = DicomIO(buffer)
    fp.is_implicit_VR, fp.is_little_endian = False, True
    write_data_element(fp, element, character_sets)
    return buffer.getvalue()
