"""Limits of nested sequences and of numbers in a header, checked before anything goes through all of it."""

from __future__ import annotations

from typing import Any

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.hooks import raw_element_vr

from gateway.dicom.encoding.elements import MAX_DEPTH
from gateway.dicom.encoding.encoded import MAX_VALUES
from gateway.dicom.encoding.limits import HINT, MAX_HEADER
from gateway.dicom.encoding.normal_form import NormalForm
from gateway.errors import DicomError

# Bytes of a value by the first VR that an element may have; the others are kept as bytes or text.
_NUMBERS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "SV": 8, "UV": 8}


def check_form(form: NormalForm) -> None:
    """Raise DicomError "too-many-values" when a header holds more than `MAX_VALUES` binary numbers.

    They are 2 bytes each and take some 40. How deep its sequences are is known since it was walked, but for those that
    the walk could not follow: those are decoded here, as `check_depth` does.
    """
    if form.numbers > MAX_VALUES:
        raise _too_many()
    if form.opaque:
        check_depth(form.dataset())


def check_depth(ds: Dataset, depth: int = 0) -> int:
    """Decode every sequence of a data set, whatever its form, down to its innermost items; give the count of numbers.

    The walker (`gateway.dicom.encoding.elements`) goes past a sequence of defined length without looking inside. When
    pydicom writes one that is nested beyond Python's recursion limit, it quotes the traceback once more at each level,
    which doubles its text each time: 300 levels in 6000 bytes never come to an end.

    Raises
    ------
    DicomError
        "nested-too-deep": more than `MAX_DEPTH` sequences in one another. "header-too-large": a sequence of more than
        `MAX_HEADER` bytes; each 8 of them may be an element, which takes some 300 in memory once it is decoded.
        "too-many-values": more than `MAX_VALUES` binary numbers, which are 2 bytes each and take some 40.
    """
    if depth > MAX_DEPTH:
        raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences")
    numbers = 0
    for tag in list(ds.keys()):
        raw = ds.get_item(tag, keep_deferred=True)
        vr = _vr(ds, raw)
        if isinstance(raw, RawDataElement) and vr[:2] in _NUMBERS:
            numbers += len(raw.value or b"") // _NUMBERS[vr[:2]]
        element = _sequence(ds, raw) if vr == "SQ" else None
        for item in (element.value or ()) if element else ():
            numbers += check_depth(item, depth + 1)
        if numbers > MAX_VALUES:
            raise _too_many()
    return numbers


def _too_many() -> DicomError:
    return DicomError("too-many-values", f"the elements of the header hold more than {MAX_VALUES} numbers", HINT)


def _vr(ds: Dataset, raw: Any) -> str:
    """The VR by which an element is decoded, also in the guise of UN or without one (PS3.5 6.2.2)."""
    if raw.VR not in (None, "UN") or not isinstance(raw, RawDataElement):
        return raw.VR
    found: dict[str, str] = {}
    raw_element_vr(raw, found, ds=ds)
    return found["VR"]


def _sequence(ds: Dataset, raw: Any) -> DataElement | None:
    """The element when it is a sequence that can be decoded."""
    if isinstance(raw, RawDataElement) and len(raw.value or b"") > MAX_HEADER:
        if raw.VR != "SQ" and raw.tag >> 16 & 1:  # raw data of a scanner
            return None
        raise DicomError("header-too-large", f"an element of the header has more than {MAX_HEADER} bytes")
    try:
        element = ds[raw.tag]
    except Exception:  # whatever pydicom raises on a foreign value; it is met again where the value is used
        return None
    return element if element.VR == "SQ" else None
