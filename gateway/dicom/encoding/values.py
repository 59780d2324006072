"""Reading single header values that may be missing, multiple, of the wrong VR, or nonsense: then None or a default."""

from __future__ import annotations

import math
import re
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from gateway.dicom.encoding.charset import decoded, encodings_within
from gateway.errors import DicomError

_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # that Specific Character Set holds for (PS3.5 6.1.2.3)
_SINGLE = frozenset({"LT", "ST", "UT"})  # a backslash in them is one
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_PLAIN_UID = re.compile(rb"([0-9]+(?:\.[0-9]+)*)\0?")
_LONGEST_UID = 64  # PS3.5 9.1
_LONGEST = 1 << 18  # bytes of a value that is looked at here: room for a lookup table of 65536 words


def raw_value(ds: Dataset, keyword: str | int) -> Any:
    """The decoded value behind `keyword`, or a tag; None when absent, empty, not decodable, or too long for any such.

    A sequence counts only where the dictionary has one: `parse` bounds how many items it holds.
    """
    try:
        raw = ds.get_item(keyword)
        is_long = isinstance(raw, RawDataElement) and raw.value is not None and len(raw.value) > _LONGEST
        if is_long and not (dictionary_has_tag(raw.tag) and dictionary_VR(raw.tag) == "SQ"):
            return None
        value = _looked_at(ds, raw) if isinstance(raw, RawDataElement) else raw.value if raw is not None else None
    except Exception:  # pydicom decodes on access, and foreign bytes make it raise nearly anything
        return None
    return None if value is None or (isinstance(value, (str, bytes, list)) and not value) else value


def _looked_at(ds: Dataset, raw: RawDataElement) -> Any:
    """The value of an element that nobody has decoded yet. It stays undecoded, so that encoding it keeps its bytes.

    Sequences are the exception: whoever asks for one may change its items. Text whose bytes are none in its character
    sets is read so that different bytes stay different texts; a decimal comma is read as a point.
    """
    if raw.VR == "SQ" or (raw.VR == "UN" and dictionary_has_tag(raw.tag) and dictionary_VR(raw.tag) == "SQ"):
        return ds.get(raw.tag).value
    if raw.VR == "DS" and raw.value and b"," in raw.value:
        raw = raw._replace(value=raw.value.replace(b",", b"."))
    if raw.VR in _TEXT and raw.value and not (raw.value.isascii() and b"\x1b" not in raw.value):
        return _text_of(raw.VR, raw.value, encodings_within(ds))
    return convert_raw_data_element(raw, encoding=ds.original_character_set, ds=ds).value


def _text_of(vr: str, raw: bytes, encodings: tuple[str, ...]) -> Any:
    """Text beyond ASCII as pydicom gives it: one value or several, without their padding."""
    text = decoded(raw, encodings).rstrip(" \0")
    if vr in _SINGLE:
        return text
    found = text.split("\\")
    return text if len(found) == 1 else MultiValue(str, found)


def present(ds: Dataset, keyword: str) -> bool:
    """True when there is a value behind `keyword`, decodable or not."""
    value = ds.get_item(keyword).value if keyword in ds else None
    if isinstance(value, bytes | str):
        return bool(value.strip(b" \0") if isinstance(value, bytes) else value.strip(" \0"))
    return value is not None and value != []


def values(ds: Dataset, keyword: str | int) -> list[Any]:
    """All values behind `keyword`, or a tag, as a list; [] when there is none."""
    value = raw_value(ds, keyword)
    if value is None:
        return []
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def text(ds: Dataset, keyword: str) -> str:
    """The first value as text without padding; "" when there is none."""
    found = values(ds, keyword)
    return str(found[0]).strip(" \0\r\n\t") if found and isinstance(found[0], (str, int, float)) else ""


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as text without padding."""
    return tuple(str(value).strip(" \0\r\n\t") for value in values(ds, keyword) if isinstance(value, str))


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """All values as finite floats; [] as soon as one of them is none."""
    result = []
    for value in values(ds, keyword):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return []
        if not math.isfinite(number):
            return []
        result.append(number)
    return result


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite float, or None."""
    found = numbers(ds, keyword)
    return found[0] if found else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """The first value as an int, or None (also when it is not whole)."""
    found = number(ds, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] when there is none or it cannot be read."""
    found = raw_value(ds, keyword)
    return list(found) if isinstance(found, Sequence) else []


def uid(ds: Dataset, keyword: str) -> str:
    """A UID that must be there (PS3.5 9.1: digits and dots, at most 64 characters).

    Leading zeros in a component are wrong but common, and accepted.

    Raises
    ------
    DicomError
        "missing-uid" or "bad-uid".
    """
    raw = ds.get_item(keyword)
    is_raw = isinstance(raw, RawDataElement) and raw.VR == "UI" and raw.value and len(raw.value) <= _LONGEST_UID
    plain = _PLAIN_UID.fullmatch(raw.value) if is_raw else None  # most are: nothing has to be decoded
    value = plain[1].decode() if plain else text(ds, keyword)
    if not value:
        raise DicomError("missing-uid", f"the data set has no {keyword}")
    if len(value) > _LONGEST_UID or not _UID.fullmatch(value):
        raise DicomError("bad-uid", f"{keyword} is not a UID")
    return value
