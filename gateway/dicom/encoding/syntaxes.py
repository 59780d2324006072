"""Transfer syntaxes: how the bytes of a data set are laid out (PS3.5 annex A, PS3.6 table A-1)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import DicomError

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"  # PS3.5 A.4.11: fragments whose frames are native
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_JPIP_DEFLATED = ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")

JPEG = "ISO_10918_1"
JPEG_LS = "ISO_14495_1"
JPEG_2000 = "ISO_15444_1"
HTJ2K = "ISO_15444_15"

LOSSLESS_NAMES = {
    "htj2k": HTJ2K_LOSSLESS,
    "jpeg-ls": JPEG_LS_LOSSLESS,
    "jpeg-2000": JPEG_2000_LOSSLESS,
    "rle": RLE_LOSSLESS,
    "explicit": EXPLICIT_LITTLE,
    "implicit": IMPLICIT_LITTLE,
}
"""The syntaxes that marked copies go out in, by the names of the configuration."""


@dataclass(frozen=True)
class Syntax:
    """One transfer syntax.

    Attributes
    ----------
    implicit, little_endian, deflated, encapsulated
        The encoding of the data set; `encapsulated` means that Pixel Data comes in fragments.
    lossy
        "never", "possible" (the syntax also carries lossless codestreams) or "always".
    method
        Defined term for Lossy Image Compression Method (0028,2114), PS3.3 C.7.6.1.1.5.2; "" where never lossy.
    codec
        What decodes the fragments: "rle", "jpeg", "jpeg-ls", "jpeg-2000"; "" where nothing can.
    """

    uid: str
    implicit: bool = False
    little_endian: bool = True
    deflated: bool = False
    encapsulated: bool = False
    lossy: str = "never"
    method: str = ""
    codec: str = ""


def _compressed(uid: str, codec: str = "", lossy: str = "never", method: str = "") -> Syntax:
    return Syntax(uid, encapsulated=True, codec=codec, lossy=lossy, method=method)


_ROOT = "1.2.840.10008.1.2."
_KNOWN = {
    syntax.uid: syntax
    for syntax in (
        Syntax(IMPLICIT_LITTLE, implicit=True),
        Syntax(EXPLICIT_LITTLE),
        Syntax(DEFLATED_LITTLE, deflated=True),
        Syntax(EXPLICIT_BIG, little_endian=False),
        *(Syntax(uid, deflated=True) for uid in _JPIP_DEFLATED),
        Syntax(ENCAPSULATED_UNCOMPRESSED, encapsulated=True, codec="none"),
        _compressed(_ROOT + "4.50", "jpeg", "always", JPEG),
        _compressed(_ROOT + "4.51", "jpeg", "always", JPEG),
        _compressed(_ROOT + "4.53", "", "always", JPEG),
        _compressed(_ROOT + "4.55", "", "always", JPEG),
        _compressed(_ROOT + "4.57", "jpeg"),
        _compressed(_ROOT + "4.70", "jpeg"),
        _compressed(_ROOT + "4.80", "jpeg-ls"),
        _compressed(_ROOT + "4.81", "jpeg-ls", "possible", JPEG_LS),
        _compressed(_ROOT + "4.90", "jpeg-2000"),
        _compressed(_ROOT + "4.91", "jpeg-2000", "possible", JPEG_2000),
        _compressed(_ROOT + "4.201", "jpeg-2000"),
        _compressed(_ROOT + "4.202", "jpeg-2000"),
        _compressed(_ROOT + "4.203", "jpeg-2000", "possible", HTJ2K),
        _compressed(_ROOT + "5", "rle"),
    )
}
# Every other standard syntax with compressed pixels (video, JPEG XL, deflated frames, part 2 of JPEG 2000, retired JPEG
# processes) is Explicit VR Little Endian around fragments: its header can be read, its pixels cannot.
_ENCAPSULATED_ARCS = (_ROOT + "4.", _ROOT + "8.")


def syntax_of(uid: str) -> Syntax:
    """The layout behind a Transfer Syntax UID.

    Raises
    ------
    DicomError
        "unknown-transfer-syntax": private or retired ones whose layout is not known.
    """
    known = _KNOWN.get(uid)
    if known is not None:
        return known
    if uid.startswith(_ENCAPSULATED_ARCS):
        return _compressed(uid)
    raise DicomError("unknown-transfer-syntax", f"transfer syntax {uid or '(empty)'} is not supported")
