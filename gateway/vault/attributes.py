"""A record's attributes, in the DICOM JSON model (PS3.18 F), and the level that each belongs to (PS3.4 C.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword

from gateway.dicom.encoding import attributes as stored

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")

PATIENT_ID = 0x00100020
STUDY_UID = 0x0020000D
SERIES_UID = 0x0020000E
SOP_UID = 0x00080018
STUDY_DATE = 0x00080020
ACCESSION_NUMBER = 0x00080050
MODALITY = 0x00080060

UNIQUE_KEYS = {"PATIENT": PATIENT_ID, "STUDY": STUDY_UID, "SERIES": SERIES_UID, "IMAGE": SOP_UID}

LEVEL_OF: dict[int, str] = {  # the attributes that records hold, as `gateway.dicom` collects them
    tag: level
    for level, keywords in zip(LEVELS, (stored.PATIENT, stored.STUDY, stored.SERIES, stored.IMAGE), strict=True)
    for keyword in keywords
    if (tag := tag_for_keyword(keyword)) is not None
}


def key(tag: int) -> str:
    """The model's key of `tag`, e.g. "00100020"."""
    return f"{tag:08X}"


def texts(attributes: Mapping[str, Any], tag: int) -> list[str]:
    """The values of `tag` as text; a person name as its component groups joined by "=". Empty when absent."""
    values = attributes.get(key(tag), {}).get("Value") or []
    return [_text(value) for value in values if value is not None]


LONGEST_COLUMN = 512
"""Characters of a value that its index column holds: all of any value met in practice, and few enough for an index."""
SEVERAL = "\\"
"""What the column of a multi-valued attribute begins with. No single value can (PS3.5 6.2)."""


def column_text(attributes: Mapping[str, Any], tag: int) -> str:
    r"""The value as its index column holds it, "" when absent; several as ``\first\second``, at most 512 characters."""
    found = texts(attributes, tag)
    text = next(iter(found), "") if len(found) < 2 else SEVERAL + SEVERAL.join(found)
    return text[:LONGEST_COLUMN]


def first_text(attributes: Mapping[str, Any], tag: int, longest: int) -> str:
    """The first value, cut to `longest` characters; "" when absent."""
    return next(iter(texts(attributes, tag)), "")[:longest]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value)
