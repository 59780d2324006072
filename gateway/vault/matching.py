"""Attribute matching of PS3.4 C.2.2.2: does one value of an entity match one key of an identifier?

Single value, list of UID, universal, wild card and range matching. Sequence matching is not done: a sequence key
matches everything. Person names match without regard to case, by the whole name or one of its component groups;
everything else with regard to case. Key and value are text here, decoded already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pydicom import DataElement

_NO_WILDCARD = frozenset(
    [
        "AT",
        "DA",
        "DT",
        "TM",
        "DS",
        "IS",
        "AS",
        "UI",
        "SL",
        "SS",
        "SV",
        "US",
        "UL",
        "UV",
        "FL",
        "FD",
        "OB",
        "OD",
        "OF",
        "OL",
        "OV",
        "OW",
        "UN",
        "SQ",
    ]
)
_RANGE = frozenset(("DA", "DT", "TM"))

Matcher = Callable[[Sequence[str]], bool]  # takes all values of the entity's attribute


def key_values(element: DataElement) -> list[str]:
    """The values of a key as text, padding removed; empty for universal matching by zero length."""
    value = element.value
    if element.VR == "SQ" or value is None or isinstance(value, bytes):
        return []
    several = value if not isinstance(value, str) and hasattr(value, "__iter__") and element.VM > 1 else [value]
    texts = [str(one).strip(" \0") for one in several]
    return [text for text in texts if text]


def matcher(element: DataElement) -> Matcher | None:
    """What decides whether an entity's values match this key; None: everything matches."""
    keys = key_values(element)
    if any(set(text) == {"*"} for text in keys):
        return None
    tests = [_one(text, element.VR) for text in keys]
    if not tests:
        return None
    return lambda values: any(test(value) for test in tests for value in values)


def has_wildcard(text: str) -> bool:
    """Whether `text` holds a wild card character."""
    return "*" in text or "?" in text


def date_range(text: str) -> tuple[str, str] | None:
    """First and last day (YYYYMMDD, "" where open) of a DA key; None when it is not one."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not dash:
        last = first
    if not (first or last) or any(day and not re.fullmatch(r"\d{8}", day) for day in (first, last)):
        return None
    return first, last


def _one(text: str, vr: str) -> Callable[[str], bool]:
    if vr in _RANGE:
        return _range(text, vr)
    if vr == "PN":
        return _name(text)
    if vr not in _NO_WILDCARD and has_wildcard(text):
        pattern = _pattern(text)
        return lambda value: pattern.fullmatch(value.strip(" ")) is not None
    if vr in ("IS", "DS"):
        return lambda value: _number(value) == _number(text)
    return lambda value: value.strip(" \0") == text


def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", text))
    return re.compile("".join(parts), re.DOTALL)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _name(text: str) -> Callable[[str], bool]:
    pattern = _pattern(_plain_name(text))

    def matches(value: str) -> bool:
        groups = value.split("=")
        return any(pattern.fullmatch(_plain_name(part)) is not None for part in (value, *groups) if part)

    return matches


def _plain_name(text: str) -> str:
    """Upper and lower case made one, empty trailing components and groups removed."""
    return "=".join(group.strip(" ").rstrip("^ ") for group in text.casefold().split("=")).rstrip("=")


def _range(text: str, vr: str) -> Callable[[str], bool]:
    # A DT key may hold a time zone, "...-0500": then its last dash is no range. Only DA and TM keys split anywhere.
    whole = vr == "DT" and re.fullmatch(r"\d{4,14}(\.\d{1,6})?[-+]\d{4}", text) is not None
    if whole or "-" not in text:
        wanted = _moment(text, vr, "0")
        return lambda value: _moment(value, vr, "0") == wanted
    first, _, last = text.partition("-")
    low = _moment(first, vr, "0") if first.strip() else ""
    high = _moment(last, vr, "9") if last.strip() else "~"
    return lambda value: bool(value) and low <= _moment(value, vr, "0") <= high


def _moment(text: str, vr: str, fill: str) -> str:
    """A date or time as text that sorts; what is not given is filled up, so that an upper end includes it."""
    bare = text.strip(" \0").replace(":", "").replace(".", "")
    return bare.ljust({"DA": 8, "TM": 12, "DT": 20}[vr], fill)
