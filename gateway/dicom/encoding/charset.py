"""Specific Character Set (0008,0005), PS3.3 C.12.1.1.2, and text in it: read without loss, written without a "?"."""

from __future__ import annotations

import re
import unicodedata

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding

_SPELLING = re.compile(r"(?:ISO[ _]?)?(?:2022[ _]?)?IR[ _]?(\d+)", re.IGNORECASE)
_DELIMITERS = {"\\", "^", "=", "\r", "\n", "\f", "\t"}
_LONGEST_CUT = 10240  # characters of text that is cut here


def terms(value: bytes) -> list[str]:
    """The defined terms of the element's bytes, spelled as in the standard where it can be told what was meant.

    `IR 100`, `ISO IR 100` and `ISO-IR 100` are ISO_IR 100 alone, and ISO 2022 IR 100 among others.
    """
    raw = [term.strip(" ") for term in value.decode("latin-1").rstrip("\0").split("\\")]
    found = []
    for place, term in enumerate(raw):
        match = None if term in python_encoding else _SPELLING.fullmatch(term.replace("-", " "))
        if match is None:
            found.append(term)
        elif len(raw) == 1:
            found.append(f"ISO_IR {match[1]}")
        else:
            found.append("" if match[1] == "6" and place == 0 else f"ISO 2022 IR {match[1]}")
    return found


def python_encodings(value: bytes) -> tuple[tuple[str, ...], bool]:
    """Python's codecs for the element's bytes, and whether they can be used.

    Of no use is a term that the standard does not have: then ASCII alone is sure, and there are no codecs.
    """
    wanted = terms(value)
    if not any(wanted):
        return ("iso8859",), True
    if not all(term in python_encoding for term in wanted):
        return (), False
    return tuple(convert_encodings(wanted)), True


def encodings_of(ds: Dataset) -> tuple[str, ...]:
    """The codecs of a data set by the Specific Character Set of its own; empty where that is of no use."""
    element = ds.get_item(0x00080005)
    if element is None:
        return ("iso8859",)
    value = element.value
    if value is None or isinstance(value, bytes):
        return python_encodings(value or b"")[0]
    several = [value] if isinstance(value, str) else list(value)
    return python_encodings("\\".join(map(str, several)).encode("latin-1", "replace"))[0]


def encodings_within(ds: Dataset) -> tuple[str, ...]:
    """The codecs that hold in a data set: its own, or for an item those of the data set around it."""
    if 0x00080005 in ds:
        return encodings_of(ds)
    around = ds.original_character_set
    return (around,) if isinstance(around, str) else tuple(around or ("iso8859",))


def decoded(value: bytes, encodings: tuple[str, ...] | list[str]) -> str:
    """Text of a value. Bytes that are none in its character sets are read as ISO 8859-1 throughout, so that different
    bytes stay different texts; without a character set all but ASCII are.
    """
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if encodings:
        text = decode_bytes(value, list(encodings), _DELIMITERS)
        if "\ufffd" not in text:
            return text
    return value.decode("latin-1")


def encoded(text: str, encodings: tuple[str, ...] | list[str]) -> bytes | None:
    """Text in these character sets, or None where they cannot hold it."""
    if text.isascii():
        return text.encode("ascii")
    if not encodings:
        return None
    value = encode_string(text, list(encodings))
    return value if decode_bytes(value, list(encodings), _DELIMITERS) == text else None


def plain_line(text: str) -> str:
    """One line without what delimits values: no control characters, no backslash."""
    line = "".join(" " if unicodedata.category(one) == "Cc" or one == "\\" else one for one in text)
    return unicodedata.normalize("NFC", line).strip()


def joined(before: str, value: bytes, after: str, encodings: tuple[str, ...], longest: int) -> bytes:
    """A value between words of ours (ASCII), of `longest` characters at most; its bytes stay where all of it fits.

    What does not fit is cut off its end, between two characters; a value that cannot be cut is left out.
    """
    value = value.strip(b" \0")
    room = longest - len(before) - len(after)
    text = decoded(value, encodings)
    if len(text) > room:
        value = _cut(text[: max(room, 0)].rstrip(), value, encodings)
    return before.encode("ascii") + value + after.encode("ascii")


def _cut(text: str, value: bytes, encodings: tuple[str, ...]) -> bytes:
    cut = encoded(text, encodings)
    if cut is not None and value.startswith(cut):
        return cut
    if value.decode("latin-1").startswith(text):  # read byte by byte
        return text.encode("latin-1")
    return cut or b""
