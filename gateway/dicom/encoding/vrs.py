"""The VR of an element by the data dictionary (PS3.6), and how wide the numbers of a binary VR are (PS3.5 6.2)."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR, private_dictionary_VR

# Bytes of one number, which is what the order of bytes turns (PS3.5 7.3); AT is two words.
WORDS = {
    b"US": 2, b"SS": 2, b"OW": 2, b"AT": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"SV": 8, b"UV": 8, b"OV": 8,
}  # fmt: skip
# Bytes of one value of the VRs that decode to Python numbers; what is none of these stays bytes or text.
NUMBERS = {b"US": 2, b"SS": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"AT": 4, b"FD": 8, b"SV": 8, b"UV": 8}
TEXT = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())

FREE_TEXT = TEXT - {b"DS", b"IS"}  # what one of them holds any other can: nothing has to be converted


@lru_cache(maxsize=16384)
def of_dictionary(tag: int) -> str:
    """The dictionary's VR of a public element, "US or SS" and the like included; "" for one that it does not have."""
    if tag & 0xFFFF == 0:
        return "UL"  # group length
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


@lru_cache(maxsize=16384)
def of_private(tag: int, creator: str) -> str:
    """The same for an element of a private block, as far as pydicom knows its creator."""
    try:
        return str(private_dictionary_VR(tag, creator))
    except KeyError:
        return ""


def choose(vr: str, signed: bool) -> bytes:
    """One of the VRs that the dictionary leaves open: by Pixel Representation, and words where bytes could be too."""
    if vr == "US or SS" or vr == "US or SS or OW":
        return b"SS" if signed else b"US"
    return vr[-2:].encode()  # OB or OW, US or OW: in Implicit VR always words (PS3.5 A.1)
