"""Identifiers of C-FIND, C-MOVE and C-GET: decoding, and the rules of PS3.4 C.4 and C.6.

An identifier that breaks a rule raises `DicomError`; its message becomes the Error Comment (0000,0902) of status
0xA900 and therefore never repeats a value of the identifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from gateway.dicom.encoding.depth import check_depth
from gateway.dicom.encoding.element_count import count
from gateway.dicom.encoding.elements import UNDEFINED
from gateway.dicom.encoding.encoded import open_source, parse, split_header
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.errors import DicomError
from gateway.network.retrieve.receiving import BoundedBuffer

MAX_IDENTIFIER = 4 << 20  # bytes: room for 65535 UIDs, as many as one retrieval may name (PS3.7 annex E, US)
MAX_KEYS = 1 << 12  # elements at all levels: a query asks for some hundred; each costs a tenth of a millisecond
MAX_UIDS = 65535  # values of a key with VR UI: as many as one retrieval may have sub-operations
MAX_VALUES = 256  # values of any other key, at most MAX_CHARACTERS each: what archives hold is longer than VRs allow
MAX_CHARACTERS = 1024


@dataclass(frozen=True)
class Model:
    """One Query/Retrieve information model under one service."""

    root: str  # "PATIENT" or "STUDY"
    service: str  # "FIND", "MOVE" or "GET"


MODELS = {
    "1.2.840.10008.5.1.4.1.2.1.1": Model("PATIENT", "FIND"),
    "1.2.840.10008.5.1.4.1.2.1.2": Model("PATIENT", "MOVE"),
    "1.2.840.10008.5.1.4.1.2.1.3": Model("PATIENT", "GET"),
    "1.2.840.10008.5.1.4.1.2.2.1": Model("STUDY", "FIND"),
    "1.2.840.10008.5.1.4.1.2.2.2": Model("STUDY", "MOVE"),
    "1.2.840.10008.5.1.4.1.2.2.3": Model("STUDY", "GET"),
}
LEVELS = {"PATIENT": ("PATIENT", "STUDY", "SERIES", "IMAGE"), "STUDY": ("STUDY", "SERIES", "IMAGE")}
UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def read_identifier(data: BytesIO | None, transfer_syntax: str, most_uids: int = MAX_UIDS) -> Dataset:
    """Decode an identifier completely; a key with VR UI may hold `most_uids` values.

    Raises
    ------
    DicomError
        Codes ``identifier-missing``, ``identifier-too-large``, ``identifier-unreadable``, ``key-too-long``,
        ``too-many-values``, and those of the element walker (``truncated``, ``not-dicom``, ...).
    """
    if data is None or not data.getbuffer().nbytes:
        raise DicomError("identifier-missing", "the request has no identifier")
    if (isinstance(data, BoundedBuffer) and data.dropped) or data.getbuffer().nbytes > MAX_IDENTIFIER:
        raise DicomError("identifier-too-large", "the identifier is too large")
    with foreign_errors("identifier-unreadable", "the identifier cannot be decoded"):
        data.seek(0)
        # All elements are walked and counted first: pydicom takes a truncated data set for a whole one.
        source, layout = open_source(data, syntax_of(transfer_syntax))
        encoded, pixels = split_header(source, layout, bulk=UNDEFINED, at_most=MAX_IDENTIFIER)
        if pixels is not None:
            raise DicomError("identifier-unreadable", "the identifier holds pixel data")
        if count(encoded, layout)[0] > MAX_KEYS:
            raise DicomError("identifier-too-large", f"the identifier has more than {MAX_KEYS} elements")
        identifier = parse(encoded, layout)
        check_depth(identifier)
        _check_keys(identifier, most_uids)
        for element in identifier:  # values are decoded on access: have it done here, where failing has an answer
            _ = element.value
        identifier.decode()  # text in the identifier's own character set
    return identifier


def _check_keys(identifier: Dataset, most_uids: int) -> None:
    """Bound every key before it is decoded: a value becomes an object of its own, and a wild card is looked for."""
    for tag in list(identifier.keys()):
        raw = identifier.get_item(tag)
        if not isinstance(raw, RawDataElement):  # a sequence, decoded already to know its depth
            for item in raw.value if raw.VR == "SQ" and raw.value else ():
                _check_keys(item, most_uids)
            continue
        value = raw.value or b""
        is_uid = raw.VR == "UI" or (raw.VR in (None, "UN") and dictionary_has_tag(tag) and dictionary_VR(tag) == "UI")
        most = most_uids if is_uid else MAX_VALUES
        if value.count(b"\\") >= most:
            raise DicomError("too-many-values", f"a key has more than {most} values", "ask in several requests")
        longest = max(map(len, value.split(b"\\")))
        if longest > 4 * MAX_CHARACTERS:  # bytes: a character has up to four
            raise DicomError("key-too-long", f"a value of a key has more than {MAX_CHARACTERS} characters")


def query_level(root: str, identifier: Dataset) -> str:
    """The level of a C-FIND identifier (PS3.4 C.4.1).

    Queries are hierarchical: the unique key of every level above must hold a single value.
    """
    level = _level(root, identifier)
    _check_levels_above(root, level, identifier)
    return level


def retrieve_level(root: str, identifier: Dataset) -> str:
    """The level of a C-MOVE or C-GET identifier (PS3.4 C.4.2.1, C.4.3.1).

    The unique key of the level itself must name something: no wildcard, no universal match, or a stray request
    would move the whole vault. Only a Patient ID may not be a list.
    """
    level = _level(root, identifier)
    _check_levels_above(root, level, identifier)
    key = UNIQUE_KEYS[level]
    values = _values(identifier, key)
    if not values or not all(values):
        raise DicomError("unique-key-missing", f"{key} is missing at level {level}")
    if any(_is_wild(value) for value in values):
        raise DicomError("unique-key-wildcard", f"{key} must not hold wildcards")
    if key == "PatientID" and len(values) > 1:
        raise DicomError("unique-key-list", "PatientID must be a single value")
    return level


def _level(root: str, identifier: Dataset) -> str:
    level = str(identifier.get("QueryRetrieveLevel", "") or "").strip()
    if not level:
        raise DicomError("level-missing", "QueryRetrieveLevel is missing")
    if level not in LEVELS[root]:
        raise DicomError("level-unknown", f"QueryRetrieveLevel is not one of {', '.join(LEVELS[root])}")
    return level


def _check_levels_above(root: str, level: str, identifier: Dataset) -> None:
    for above in LEVELS[root][: LEVELS[root].index(level)]:
        key = UNIQUE_KEYS[above]
        values = _values(identifier, key)
        if len(values) != 1 or not values[0] or _is_wild(values[0]):
            raise DicomError("unique-key-missing", f"{key} must be one value at level {level}")


def _values(identifier: Dataset, keyword: str) -> list[str]:
    value = identifier.get(keyword)
    if value is None or value == "":
        return []
    several = value if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
    return [str(one).strip() for one in several]


def _is_wild(value: str) -> bool:
    return "*" in value or "?" in value
