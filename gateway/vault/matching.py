"""Attribute matching of PS3.4 C.2.2.2: does one value of an entity match one key of an identifier?

Single value, list of UID, universal, wild card and range matching; of a multi-valued attribute each value counts.
Sequence matching is not done: a sequence key matches everything. Person names match without regard to case, by the
whole name or by component groups; everything else with regard to case. Key and value are text here, decoded already.
Time grows with the length of key times value, whatever the key holds.
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
        wanted = _wildcard(text)
        return lambda value: wanted(value.strip(" "))
    if vr in ("IS", "DS"):
        return lambda value: _number(value) == _number(text)
    return lambda value: value.strip(" \0") == text


def _wildcard(text: str) -> Callable[[str], bool]:
    """Match "*" (any characters) and "?" (one), PS3.4 C.2.2.2.4.

    What stands between the asterisks is looked for from left to right, each at its first place behind the one before.
    That finds a match if there is one, and never goes back: one expression for the whole key would try all the ways to
    share a value among its asterisks, whose number doubles with each.
    """
    first, *others = (_Piece(piece) for piece in text.split("*"))
    if not others:
        return lambda value: len(value) == first.length and first.find(value, 0) == 0
    *between, last = others
    shortest = first.length + sum(piece.length for piece in others)

    def matches(value: str) -> bool:
        if len(value) < shortest:  # most keys that are made to cost time end here
            return False
        if first.find(value[: first.length], 0) != 0:
            return False
        at = first.length
        for piece in between:
            found = piece.find(value, at)
            if found < 0:
                return False
            at = found + piece.length
        tail = len(value) - last.length
        return tail >= at and last.find(value, tail) == tail

    return matches


class _Piece:
    """Part of a key without an asterisk: as long as its text, since "?" stands for one character."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        self._text = text
        self._pattern = re.compile(re.escape(text).replace(r"\?", "."), re.DOTALL) if "?" in text else None

    def find(self, value: str, start: int) -> int:
        """The first place at or behind `start` where this piece stands; -1 when there is none."""
        if self._pattern is None:
            return value.find(self._text, start)
        found = self._pattern.search(value, start)
        return -1 if found is None else found.start()


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _name(text: str) -> Callable[[str], bool]:
    """Match a person name (PS3.5 6.2.1): a key of one group any group of the value, or the whole of it.

    In a key of several groups, each that is not empty has to match the value's group in the same place: "=山田^太郎"
    asks for the ideographic group alone.
    """
    plain = _plain_name(text)
    whole = _wildcard(plain)
    groups = [_wildcard(group) if group else None for group in plain.split("=")]

    def matches(value: str) -> bool:
        given = _plain_name(value)
        if given and whole(given):
            return True
        parts = given.split("=")
        if len(groups) == 1:
            return any(whole(part) for part in parts if part)
        padded = [*parts, *[""] * (len(groups) - len(parts))]
        return all(test is None or test(part) for test, part in zip(groups, padded, strict=False))

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
