"""The attributes that C-FIND answers from, as a DICOM JSON model object (PS3.4 C.6.1, C.6.2; PS3.18 annex F)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import PersonName

from gateway.dicom.encoding import values

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyInstanceUID",
    "StudyID",
)
SERIES = (
    "SeriesDate",
    "SeriesTime",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "SeriesInstanceUID",
    "SeriesNumber",
)
IMAGE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
)

ALL = (*PATIENT, *STUDY, *SERIES, *IMAGE)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with dots: ACR-NEMA, PS3.5 6.2 DA note
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
MOST_CHARACTERS = 1024
"""Of a text value: far beyond its VR (PS3.5 6.2), since archives hold such values and are asked for them."""
_MOST_UID = 64


def query_attributes(ds: Dataset, keywords: Sequence[str] = ALL) -> dict[str, dict[str, Any]]:
    """`{"00100020": {"vr": "LO", "Value": [...]}}` of the keys above, or of some of them.

    Text is decoded by the Specific Character Set into Unicode, so the object names ISO_IR 192. Text
    longer than its VR allows is kept whole; other values that do not follow their VR are left out. An attribute that is
    present with no usable value stays, without "Value".
    """
    model: dict[str, dict[str, Any]] = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in ds:
            continue
        vr = dictionary_VR(tag)
        found = [value for raw in values.values(ds, keyword) if (value := _json_value(vr, raw)) is not None]
        model[f"{tag:08X}"] = {"vr": vr, "Value": found} if found else {"vr": vr}
    return dict(sorted(model.items()))


def _json_value(vr: str, raw: Any) -> Any:
    """One value in the DICOM JSON model, or None when it does not follow its VR."""
    if vr == "PN":
        return _person(raw)
    if vr in ("IS", "US"):
        try:
            return int(raw)
        except (TypeError, ValueError):
            return None
    value = _CONTROL.sub("", str(raw)).strip(" ")  # no more: what else Unicode calls white space is part of a value
    if vr == "DA":
        match = _DATE.fullmatch(value)
        return "".join(match.groups()) if match else None
    if vr == "TM":
        value = value.replace(":", "")  # ACR-NEMA
        return value if _TIME.fullmatch(value) else None
    return value if 0 < len(value) <= (_MOST_UID if vr == "UI" else MOST_CHARACTERS) else None


def _person(raw: Any) -> dict[str, str] | None:
    if not isinstance(raw, PersonName):
        raw = PersonName(str(raw))
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), str(raw).split("="), strict=False)
    person = {name: clean for name, group in groups if (clean := _CONTROL.sub("", group).strip(" ")[:MOST_CHARACTERS])}
    return person or None
