"""A value under another VR than the dictionary's, as the dictionary's VR has it (PS3.5 7.1.3, A.1; PS3.6).

In Implicit VR nobody can see which VR was meant: every reader takes the dictionary's. A value goes there converted, or
not at all; one that the object cannot do without holds it.
"""

from __future__ import annotations

import re
import struct

from gateway.dicom.encoding import vrs
from gateway.errors import HoldError

_PACK = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_TEXT = frozenset(vr.decode() for vr in vrs.TEXT)
_UIDS = re.compile(rb"[0-9.\\]*")
_LONGEST_DECIMAL = 16  # characters of DS (PS3.5 6.2)
# Without these nobody knows what the object is, or what its pixels are (PS3.3 C.12.1, C.7.6.3).
_NEEDED = frozenset(
    {0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x7FE00010}
    | {0x00280000 | number for number in (0x02, 0x04, 0x06, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)}
)


def is_of_dictionary(tag: int, vr: bytes) -> bool:
    """Whether the dictionary has this VR for the element, or does not know the element; UN is right for any."""
    known = vrs.of_dictionary(tag) if not tag >> 16 & 1 else ""
    return not known or vr in (b"", b"UN") or vr.decode("latin-1") in known


def as_dictionary_has_it(tag: int, vr: bytes, value: bytes, *, nested: bool = False) -> bytes | None:
    """The value for the dictionary's VR, of even length; None when it has none there: the element is to be left out.

    Raises
    ------
    HoldError
        "vr-not-convertible": an element at the top level that the object cannot do without.
    """
    if is_of_dictionary(tag, vr) or not value:
        return value
    for target in vrs.of_dictionary(tag).split(" or "):
        converted = _converted(vr.decode("latin-1"), target, value)
        if converted is not None:
            return converted + (b" " if target in _TEXT else b"\0") * (len(converted) & 1)
    if tag in _NEEDED and not nested:
        raise HoldError(
            "vr-not-convertible",
            f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is {vr.decode('latin-1')}, with no value for the dictionary's VR",
            "send it to a destination that takes Explicit VR, or have the sender correct the element",
        )
    return None


def _converted(vr: str, target: str, value: bytes) -> bytes | None:
    is_text = vr in _TEXT or vr == "UI"
    if target in _PACK:
        if vr in _BULK:
            return value if len(value) % struct.calcsize("<" + _PACK[target]) == 0 else None
        return _packed(_numbers(vr, value), _PACK[target])
    if target in ("DS", "IS"):
        return _written(_numbers(vr, value), whole=target == "IS")
    if target == "UI":
        uids = value.strip(b" \0")
        return uids if is_text and _UIDS.fullmatch(uids) else None
    if target in _TEXT:
        if vr in _PACK:
            return _written(_numbers(vr, value), whole=False)
        return value.rstrip(b" \0") if is_text or (vr in _BULK and value.isascii()) else None
    if target in _BULK and vr != "SQ":
        return value if len(value) % vrs.WORDS.get(target.encode(), 1) == 0 and not is_text else None
    return None


def _numbers(vr: str, value: bytes) -> list[float] | None:
    """The numbers of a binary value, or of text that holds nothing else."""
    if vr in _PACK:
        return [number for (number,) in struct.iter_unpack("<" + _PACK[vr], value)]
    if vr not in _TEXT:
        return None
    try:
        texts = value.decode("ascii").strip(" \0").replace(",", ".").split("\\")
        return [int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text) for text in texts]
    except ValueError:
        return None


def _packed(numbers: list[float] | None, letter: str) -> bytes | None:
    if numbers is None:
        return None
    if letter not in "fd":
        if any(number != number or abs(number) == float("inf") or number != int(number) for number in numbers):
            return None
        numbers = [int(number) for number in numbers]
    try:
        return struct.pack(f"<{len(numbers)}{letter}", *numbers)
    except (struct.error, OverflowError):
        return None


def _written(numbers: list[float] | None, *, whole: bool) -> bytes | None:
    if numbers is None or any(number != number or abs(number) == float("inf") for number in numbers):
        return None
    texts = []
    for number in numbers:
        if number == int(number) and abs(number) < 10**11:
            texts.append(str(int(number)))
        elif whole:
            return None
        else:
            fitting = (f"{number:.{digits}g}" for digits in range(_LONGEST_DECIMAL, 0, -1))
            texts.append(next(text for text in fitting if len(text) <= _LONGEST_DECIMAL))
    return "\\".join(texts).encode("ascii")
