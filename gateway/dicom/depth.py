"""How deep sequences are nested, known before anything goes through them recursively."""

from __future__ import annotations

from pydicom import DataElement, Dataset

from gateway.dicom.elements import MAX_DEPTH
from gateway.errors import DicomError


def check_depth(ds: Dataset, depth: int = 0) -> None:
    """Decode every sequence of a data set, whatever its form, down to its innermost items.

    The walker (`gateway.dicom.elements`) goes past a sequence of defined length without looking inside. When pydicom
    writes one that is nested beyond Python's recursion limit, it quotes the traceback once more at each level, which
    doubles its text each time: 300 levels in 6000 bytes never come to an end.

    Raises
    ------
    DicomError
        "nested-too-deep": more than `MAX_DEPTH` sequences in one another.
    """
    if depth > MAX_DEPTH:
        raise DicomError("nested-too-deep", f"more than {MAX_DEPTH} nested sequences")
    for tag in list(ds.keys()):
        element = _sequence(ds, tag)
        if element is not None:
            for item in element.value or ():
                check_depth(item, depth + 1)


def _sequence(ds: Dataset, tag: int) -> DataElement | None:
    """The element when it is a sequence, also one in the guise of UN or without a VR (PS3.5 6.2.2)."""
    if ds.get_item(tag, keep_deferred=True).VR not in (None, "SQ", "UN"):
        return None
    try:
        element = ds[tag]
    except Exception:  # whatever pydicom raises on a foreign value; it is met again where the value is used
        return None
    return element if element.VR == "SQ" else None
