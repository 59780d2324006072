"""What may ride along in a marked copy besides its pixels: the one rule, for every kind of copy.

Bulk is allowed by list, not by absence from one. A copy keeps:

- all standard attributes that are not bulk, those of a Standard Extended SOP class too;
- standard bulk by list: lookup tables, palettes, ICC profiles (`LISTED`), Overlay Data at the top level unless it shows
  the picture (`gateway.dicom.copy.overlay_match`), and what is the SOP class's own content (`OWN_CONTENT`);
- private elements that are small: `RideAlong.value_bytes` a value, `RideAlong.block_bytes` a private block, what stands
  in private sequences included; larger ones of the private creators that the route names.

It does not keep: larger private values, whatever their VR; groups 7F00 to 7FFF but for the Pixel Data (7FE0,0010) at
the top level; icons and pixel data inside sequences, private ones and those in the guise of UN included; other standard
binary values above `value_bytes`, or above `block_bytes` all together; an Encapsulated Document or Spectroscopy Data
that is not the object's own content.
What is private and too large is left out, or the object is held, or it stays, as the route chooses; the rest always
goes.

`gateway.dicom.copy.sift` applies the rule. Our own private block is added after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydicom.datadict import dictionary_VR

VALUE_BYTES = 1 << 10
BLOCK_BYTES = 64 << 10
NEVER = {
    0x00880200: "an icon shows the unmarked picture",  # Icon Image Sequence (PS3.3 F.7)
    0x00420011: "a document that is not the object's own content",  # Encapsulated Document
    0x56000020: "spectra that are not the object's own content",  # Spectroscopy Data
    0x00287FE0: "it says where the unmarked pixels are",  # Pixel Data Provider URL (PS3.3 C.7.6.3)
}
LISTED = frozenset(
    {
        0x00281200,  # Gray Lookup Table Data (retired)
        *range(0x00281201, 0x00281205),  # Red, Green, Blue, Alpha Palette Color Lookup Table Data (PS3.3 C.7.9)
        *range(0x00281211, 0x00281214),  # the same, large (retired)
        *range(0x00281221, 0x00281225),  # the same, segmented
        0x00281408,  # Blending Lookup Table Data
        0x00282000,  # ICC Profile (C.11.15)
        0x00283006,  # LUT Data: Modality, VOI and Presentation LUT (C.11.1, C.11.2, C.11.6)
        0x00181638,  # Vertices of the Polygonal Outline: where the shutter lies
    }
)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SURFACES = frozenset({0x00660016, *range(0x00660021, 0x0066002A), *range(0x00660040, 0x00660044), 0x00660103})
_POINTS = frozenset({0x00660016, 0x00660022, 0x00660040, 0x00660125, 0x00660129, 0x00660103, 0x006A0011})
_PLANES = frozenset({0x00700256, 0x0070150D, 0x00701808, 0x00701A07})  # fill patterns, curves, weighting tables
_BEAMS = frozenset({0x300A0664, 0x300A0665, 0x300A066B})  # compensators and blocks
OWN_CONTENT: dict[str, frozenset[int]] = {  # SOP class (PS3.4 table B.5-1) -> bulk that is what the object is about
    _STORAGE + "66.3": frozenset({0x00640009}),  # deformable registration: Vector Grid Data
    _STORAGE + "66.5": _SURFACES,
    **{_STORAGE + suffix: _POINTS for suffix in ("66.6", "91.1")},  # tracts, bulk annotations
    **{_STORAGE + f"11.{number}": _PLANES for number in range(1, 13)},  # presentation states
    **{_STORAGE + f"481.{number}": _BEAMS for number in range(3, 10)},  # RT, where a rule lets it out
}
BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})


@dataclass(frozen=True)
class RideAlong:
    """What a route says of private elements; the defaults are the safe ones.

    Attributes
    ----------
    private
        What becomes of private values that are too large: left out, reason to hold the object, or kept.
    value_bytes, block_bytes
        Of private values: of one, and of all in one private block.
    keep
        Private creators (PS3.5 7.8.1) whose values stay whatever their size; pixel data and icons in them go.
    """

    private: Literal["drop", "hold", "keep"] = "drop"
    value_bytes: int = VALUE_BYTES
    block_bytes: int = BLOCK_BYTES
    keep: frozenset[str] = frozenset()


def in_words(rules: RideAlong) -> str:
    """What becomes of private elements, in one sentence; the rest of the rule is the same on every route."""
    if rules.private == "keep":
        return "private elements of any size; no icons, nested pixel data, groups 7F00 to 7FFF or foreign documents"
    whole = f"private values of at most {rules.value_bytes} bytes and {rules.block_bytes} in a private block"
    named = f", all of {', '.join(sorted(rules.keep))}" if rules.keep else ""
    larger = "larger ones are left out" if rules.private == "drop" else "an object with larger ones is held"
    return f"{whole}{named}; {larger}"


@dataclass(frozen=True)
class LeftOut:
    """One element that does not ride along: tags only, nothing of its value.

    Attributes
    ----------
    where
        Tag, behind those of the sequences around it: "(0029,1010) > (0088,0200)".
    why
        In words.
    private
        Whether the route chose: it is private and too large.
    """

    where: str
    why: str
    size: int
    private: bool

    def __str__(self) -> str:
        return f"{self.where}, {self.size} bytes: {self.why}"


@lru_cache(4096)
def dictionary_vrs(tag: int) -> frozenset[str]:
    """VRs that the standard gives an element (PS3.6); {"OB", "OW"} for "OB or OW", none for one that it has not."""
    try:
        return frozenset(dictionary_VR(tag).split(" or "))
    except KeyError:
        return frozenset()


def never(tag: int, nested: bool, own: frozenset[int]) -> str:
    """Why an element never rides along, whatever its route says; "" where it may.

    Parameters
    ----------
    nested
        Whether it stands in a sequence.
    own
        What is the SOP class's own content.
    """
    group = tag >> 16
    if group == 0x7FE0:
        return "pixel data inside a sequence" if nested else "further pixel data"
    if is_pixel_group(group) and not group & 1:
        return "retired pixel data"
    return "" if tag in own else NEVER.get(tag, "")


def is_pixel_group(group: int) -> bool:
    """Groups 7F00 to 7FFF: pixel data, retired variable pixel data (7F00), raw data of scanners (7FE1)."""
    return group >> 8 == 0x7F


def is_bulk(tag: int, vr: str) -> bool:
    """Whether a standard element is binary data: by its VR in the data set, or by the dictionary."""
    return vr in BULK_VRS or (bool(dictionary_vrs(tag) & BULK_VRS) and tag not in LISTED)
