"""Reading the DICOM JSON model (PS3.18 F) of a record's attributes, and which key belongs to which level (PS3.4 C.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")

PATIENT_ID = 0x00100020
STUDY_UID = 0x0020000D
SERIES_UID = 0x0020000E
SOP_UID = 0x00080018
STUDY_DATE = 0x00080020
ACCESSION_NUMBER = 0x00080050
MODALITY = 0x00080060

UNIQUE_KEYS = {"PATIENT": PATIENT_ID, "STUDY": STUDY_UID, "SERIES": SERIES_UID, "IMAGE": SOP_UID}

_PATIENT = (0x00100010, PATIENT_ID, 0x00100021, 0x00100030, 0x00100032, 0x00100040, 0x00101000, 0x00104000)
_STUDY = (
    STUDY_DATE,
    0x00080030,  # Study Time
    ACCESSION_NUMBER,
    0x00080090,  # Referring Physician's Name
    0x00081030,  # Study Description
    0x00101010,  # Patient's Age
    0x00101020,  # Patient's Size
    0x00101030,  # Patient's Weight
    STUDY_UID,
    0x00200010,  # Study ID
)
_SERIES = (
    0x00080021,  # Series Date
    0x00080031,  # Series Time
    MODALITY,
    0x0008103E,  # Series Description
    0x00180015,  # Body Part Examined
    0x00181030,  # Protocol Name
    SERIES_UID,
    0x00200011,  # Series Number
)
LEVEL_OF: dict[int, str] = (
    dict.fromkeys(_PATIENT, "PATIENT") | dict.fromkeys(_STUDY, "STUDY") | dict.fromkeys(_SERIES, "SERIES")
)


def level_of(tag: int) -> str:
    """The level that the attribute `tag` describes; IMAGE for all that belong to none above."""
    return LEVEL_OF.get(tag, "IMAGE")


def key(tag: int) -> str:
    """The model's key of `tag`, e.g. "00100020"."""
    return f"{tag:08X}"


def texts(attributes: Mapping[str, Any], tag: int) -> list[str]:
    """The values of `tag` as text; a person name as its component groups joined by "=". Empty when absent."""
    values = attributes.get(key(tag), {}).get("Value") or []
    return [_text(value) for value in values if value is not None]


def first_text(attributes: Mapping[str, Any], tag: int, longest: int) -> str:
    """The first value, cut to `longest` characters; "" when absent."""
    return next(iter(texts(attributes, tag)), "")[:longest]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value)
