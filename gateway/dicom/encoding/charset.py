"""Specific Character Set (0008,0005), PS3.3 C.12.1.1.2, and text in it: read without loss, written without a "?"."""

from __future__ import annotations

import re
import unicodedata

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

_SPELLING = re.compile(r"(?:ISO[ _]?)?(?:2022[ _]?)?IR[ _]?(\d+)", re.IGNORECASE)
_DELIMITERS = set(b"\\^=\r\n\f\t")  # behind which code extensions begin anew (PS3.5 6.1.2.5.3)
_DEFAULT = "iso8859"  # pydicom's name for "no Specific Character Set"
_IN_G0 = re.compile(rb"\x1b(\$B|\$\(D|\(J)[^\x1b]*$")  # kanji, or JIS X 0201, until the end
SEPARATOR = " | "  # between words of ours and what stood there


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
        return (_DEFAULT,), True
    if not all(term in python_encoding for term in wanted):
        return (), False
    return tuple(convert_encodings(wanted)), True


def encodings_of(ds: Dataset) -> tuple[str, ...]:
    """The codecs of a data set by the Specific Character Set of its own; empty where that is of no use."""
    element = ds.get_item(0x00080005)
    if element is None:
        return (_DEFAULT,)
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
    return (around,) if isinstance(around, str) else tuple(around or (_DEFAULT,))


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
    names = ["ascii" if name == _DEFAULT else name for name in encodings]  # the default repertoire (PS3.5 6.1.2.1)
    if not names or names == ["ascii"]:
        return None
    value = encode_string(text, names)
    if _IN_G0.search(value):
        value += b"\x1b(B"  # back to ASCII at the end of a value (PS3.5 6.1.2.5.3)
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
    text = decoded(value, encodings)[: max(longest - len(before) - len(after), 0)].rstrip()
    again = encoded(text, encodings)
    pieces = [piece for piece in (value, again, text.encode("latin-1", "ignore")) if piece and value.startswith(piece)]
    for piece in [*pieces, again]:
        whole = before.encode("ascii") + (piece or b"") + after.encode("ascii")
        if decoded(whole, encodings) == before + text + after:
            return whole
    return (before + after).encode("ascii")


def extend(ds: Dataset, keyword: str, before: str, after: str, longest: int) -> None:
    """Put words of ours (ASCII) before and behind the text of an element, as `joined` does; it may not be there yet."""
    element = ds.get_item(keyword) if keyword in ds else None
    value = element.value if element is not None else None
    encodings = encodings_within(ds)
    if not isinstance(value, bytes):
        several = [value] if isinstance(value, str) or not value else list(value)
        value = encoded("\\".join(str(one) for one in several if one), encodings) or b""
    if not value.strip(b" \0"):
        before, after = before.removesuffix(SEPARATOR), after.removeprefix(SEPARATOR)
    put(ds, keyword, joined(before, value, after, encodings, longest))


def put(ds: Dataset, keyword: str, value: bytes) -> None:
    """Set a text element to encoded bytes, padded with a space."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)
    value += b" " * (len(value) & 1)
    ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
