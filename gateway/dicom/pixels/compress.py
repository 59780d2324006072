"""A marked copy in another lossless transfer syntax, made anew from its fixed bytes at each delivery (PS3.5 A.4).

The copy itself is Explicit VR Little Endian and stays so; nothing here is kept. Lossless encoding does not touch Lossy
Image Compression (PS3.3 C.7.6.1.1.5): what it says of the original's history stays.
"""

from __future__ import annotations

import numpy as np
from pydicom.encaps import encapsulate

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import InstanceHeader, describe, parse, walk
from gateway.dicom.encoding.explicit import encode
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, LOSSLESS_NAMES, RLE_LOSSLESS, syntax_of
from gateway.dicom.encoding.transcode import to_implicit
from gateway.dicom.pixels.codecs import encode_frame
from gateway.dicom.pixels.facts import container_of
from gateway.dicom.pixels.stored_values import MAX_PIXEL_BYTES, decode_pixels, element_of, pixels_of
from gateway.errors import DicomError

_BY_COMPONENT_TRANSFORM = "jpeg-2000"  # codec of the syntaxes that turn RGB into YBR_RCT (PS3.5 8.2.4)
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_LONGEST_OFFSET = 0xFFFFFFFF


def recode(dataset: bytes, transfer_syntax_uid: str) -> bytes:
    """A data set of ours in another lossless syntax: one of `LOSSLESS_NAMES`.

    The same bytes give the same bytes with the same library versions; with others they give the same pixels. What was
    encoded is decoded again, as `gateway.restore` will, and compared; header, private block and trailing elements keep
    their bytes, save what says how the pixels are encoded.

    Parameters
    ----------
    dataset
        Encoded data set in Explicit VR Little Endian with native pixels, as `gateway.dicom.copy.derive` makes it.

    Raises
    ------
    DicomError
        "not-exact": the syntax does not hold these pixels exactly, another may. "no-encoder" for a syntax that is none
        of ours; all of `split`.
    """
    if transfer_syntax_uid not in LOSSLESS_NAMES.values():
        raise DicomError("no-encoder", f"there is no encoder for transfer syntax {transfer_syntax_uid}")
    if transfer_syntax_uid == EXPLICIT_LITTLE:
        return dataset
    if transfer_syntax_uid == IMPLICIT_LITTLE:
        return to_implicit(dataset)
    parts = split(dataset, EXPLICIT_LITTLE)
    containers = _containers(parts)
    header_bytes = _header(parts, transfer_syntax_uid)
    header = describe(walk(header_bytes, parts.layout), element_of(parts).tag)
    frames = [_encoded(frame, header, transfer_syntax_uid) for frame in containers]
    recoded = b"".join((header_bytes, _pixel_element(frames), parts.trailer_bytes))
    _compare(parts, recoded, transfer_syntax_uid)
    return recoded


def _encoded(frame: np.ndarray, header: InstanceHeader, transfer_syntax_uid: str) -> bytes:
    try:
        return encode_frame(frame, header, transfer_syntax_uid)
    except DicomError as error:
        if not error.code.startswith("codec-"):
            raise
        raise DicomError("not-exact", f"the encoder was given up: {error.message}", error.hint) from None


def _compare(parts: Parts, recoded: bytes, transfer_syntax_uid: str) -> None:
    before = pixels_of(parts)
    try:
        after = decode_pixels(recoded, transfer_syntax_uid)
    except DicomError as error:
        raise DicomError("not-exact", f"the encoded pixels cannot be decoded: {error.message}") from None
    if after.frames.dtype != before.frames.dtype or not np.array_equal(after.frames, before.frames):
        raise DicomError("not-exact", "the encoded pixels do not decode to the same values")
    one, other = before.raw, after.raw
    if not (one is other is None or (one is not None and other is not None and np.array_equal(one, other))):
        raise DicomError("not-exact", "the encoded pixels lose the bits outside Bits Stored")


def _containers(parts: Parts) -> np.ndarray:
    """The native pixels as they lie there: (N, H, W) or (N, H, W, 3), unsigned."""
    header = parts.header
    by_pixel = values.integer(header.dataset, "PlanarConfiguration") in (None, 0)
    colour = header.photometric == "RGB" and header.samples == 3 and by_pixel
    if not colour and not (header.photometric in _MONOCHROME and header.samples == 1):
        raise DicomError("not-exact", "only monochrome and pixel-interleaved RGB can be encoded")
    if len(parts.value) > MAX_PIXEL_BYTES:
        raise DicomError(
            "not-exact", f"more than {MAX_PIXEL_BYTES} bytes of pixels are not encoded and compared at once"
        )
    if header.bits_allocated not in (8, 16):
        raise DicomError("not-exact", f"pixels of {header.bits_allocated} bits are not encoded")
    shape = (header.frames, header.rows, header.columns, 3)[: 4 if colour else 3]
    kind = container_of(header)
    return np.frombuffer(parts.value, kind, count=int(np.prod(shape))).reshape(shape)


def _header(parts: Parts, transfer_syntax_uid: str) -> bytes:
    """The elements before the pixels; of colour, with what says how the encoded samples lie (PS3.5 8.2)."""
    if parts.header.samples == 1:
        return parts.header_bytes
    with foreign_errors("undecodable-header", "the header cannot be changed"):
        ds = parse(parts.header_bytes, parts.layout)
        if syntax_of(transfer_syntax_uid).codec == _BY_COMPONENT_TRANSFORM:
            ds.PhotometricInterpretation = "YBR_RCT"
        ds.PlanarConfiguration = int(transfer_syntax_uid == RLE_LOSSLESS)  # its segments are planes (PS3.5 G.2)
        return encode(ds)


def _pixel_element(frames: list[bytes]) -> bytes:
    """Pixel Data (7FE0,0010) of one fragment a frame (PS3.5 A.4); several frames with a Basic Offset Table."""
    has_table = len(frames) > 1 and sum(len(frame) + 9 for frame in frames) <= _LONGEST_OFFSET
    value = encapsulate(frames, has_bot=has_table)
    return b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + value + b"\xfe\xff\xdd\xe0\0\0\0\0"
