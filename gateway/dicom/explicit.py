"""Encoding a changed header as Explicit VR Little Endian (PS3.5 A.2); what did not change keeps its bytes."""

from __future__ import annotations

import io

from pydicom import DataElement, Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element

from gateway.dicom import values
from gateway.dicom.parts import Parts


def make_explicit(ds: Dataset, parts: Parts) -> None:
    """Decode and give every element its VR, unless the original is Explicit VR Little Endian already.

    Values that do not follow their VR become UN with the bytes that they had (PS3.5 6.2.2).
    """
    if not parts.layout.implicit and parts.layout.little_endian:
        return
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        try:
            ds[tag]
            _written(ds[tag], _character_sets(ds))
        except Exception:  # any error of pydicom on a foreign value
            if not isinstance(raw.value, bytes):
                raise
            ds[tag] = DataElement(tag, "UN", raw.value)
    correct_ambiguous_vr(ds, True)


def encode(ds: Dataset) -> bytes:
    """Every element of `ds` in Explicit VR Little Endian, in tag order; pixel data is no part of it."""
    out = io.BytesIO()
    character_sets = _character_sets(ds)
    for tag in sorted(ds.keys()):
        raw = ds.get_item(tag)
        try:
            out.write(_written(raw, character_sets))
        except Exception:  # a raw element without VR inside an explicit data set, or a value against its VR
            element = DataElement(tag, "UN", raw.value) if isinstance(raw.value, bytes) else ds[tag]
            out.write(_written(element, character_sets))
    return out.getvalue()


def _character_sets(ds: Dataset) -> list[str] | None:
    return list(values.texts(ds, "SpecificCharacterSet")) or None


def _written(element: DataElement, character_sets: list[str] | None) -> bytes:
    buffer = io.BytesIO()
    fp = DicomIO(buffer)
    fp.is_implicit_VR, fp.is_little_endian = False, True
    write_data_element(fp, element, character_sets)
    return buffer.getvalue()
