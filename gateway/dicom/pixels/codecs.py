"""One frame out of a compressed transfer syntax and, without loss, into one (PS3.5 section 8.2 and annex A.4).

Always the same library for a syntax, whatever else is installed: the same bytes give the same pixels, and the same
pixels the same bytes, on every machine.
"""

from __future__ import annotations

import numpy as np
from imagecodecs import htj2k_encode, jpeg8_decode
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, get_encoder
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    Syntax,
    syntax_of,
)
from gateway.dicom.pixels.codestream import has_component_transform, inspect
from gateway.errors import DicomError

_DECODERS = {
    "rle": "pydicom",
    "jpeg-2000": "pylibjpeg",
    "jpeg-ls": "pyjpegls",
}
_ENCODERS = {
    RLE_LOSSLESS: "pydicom",  # GDCM's is faster, and ends the process on frames of odd size
    JPEG_LS_LOSSLESS: "pyjpegls",
    JPEG_2000_LOSSLESS: "pylibjpeg",
    HTJ2K_LOSSLESS: "",  # pydicom has none: OpenJPH by way of imagecodecs
}
_END_OF_IMAGE = b"\xff\xd9"  # ISO/IEC 10918-1 B.1.1.3
_STRAY = 16  # bytes at the end of a frame that some encoders leave behind it
# JPEG-LS and JPEG 2000 hold numbers of Bits Stored bits; RLE and JPEG hold containers, and know no sign.
_OF_NUMBERS = ("jpeg-ls", "jpeg-2000")


def container_of(header: InstanceHeader) -> np.dtype:
    """Type of one little endian container: uint8 or uint16, by Bits Allocated."""
    return np.dtype("u1" if header.bits_allocated == 8 else "<u2")


def decoded_type(header: InstanceHeader, syntax: Syntax) -> np.dtype:
    """Type of what `decode_frame` gives: int16 where the codec knows the sign, else that of the unsigned container."""
    if syntax.codec in _OF_NUMBERS and header.signed:
        return np.dtype(np.int16)
    return np.dtype(np.uint8 if header.bits_allocated == 8 else np.uint16)


def decode_frame(frame: bytes, header: InstanceHeader, syntax: Syntax) -> np.ndarray:
    """Decode one frame.

    Parameters
    ----------
    frame
        The frame's fragments, put together.
    header
        Facts of the instance that the frame is of.

    Returns
    -------
    numpy.ndarray
        (H, W) or (H, W, 3) of `decoded_type`; colour is RGB. Unused bits are as they came: they may hold an overlay.

    Raises
    ------
    DicomError
        "unsupported-transfer-syntax", "decoder-not-installed", "undecodable-pixels".
    """
    if not syntax.codec:
        raise DicomError("unsupported-transfer-syntax", f"no decoder for transfer syntax {syntax.uid}")
    codestream = inspect(frame, syntax)
    if codestream is not None:
        if (codestream.rows, codestream.columns) != (header.rows, header.columns):
            raise DicomError("undecodable-pixels", "a compressed frame has another size than the header says")
        if codestream.components != header.samples or codestream.precision > header.bits_allocated:
            raise DicomError("undecodable-pixels", "a compressed frame has other samples than the header says")
        frame = codestream.data
    if syntax.codec == "jpeg":
        return _decode_jpeg(frame, header).astype(decoded_type(header, syntax), copy=False)
    decoder = get_decoder(syntax.uid)
    if _DECODERS[syntax.codec] not in decoder.available_plugins:
        text = f"the decoder of transfer syntax {syntax.uid} is not installed"
        raise DicomError("decoder-not-installed", text, "reinstall the gateway")
    with foreign_errors("undecodable-pixels", "the pixel data cannot be decoded"):
        decoded, properties = next(
            decoder.iter_array(
                encapsulate([frame]),
                decoding_plugin=_DECODERS[syntax.codec],
                planar_configuration=values.integer(header.dataset, "PlanarConfiguration") or 0,
                correct_unused_bits=False,  # they may hold an overlay
                **_facts(header),
            )
        )
    if header.samples == 3 and properties["photometric_interpretation"] != "RGB":
        raise DicomError("undecodable-pixels", "a compressed colour frame cannot be turned into RGB")
    kind = decoded_type(header, syntax)
    return decoded.astype(kind, copy=False) if syntax.codec in _OF_NUMBERS else decoded.view(kind)


def _decode_jpeg(frame: bytes, header: InstanceHeader) -> np.ndarray:
    """Any JPEG process, by libjpeg-turbo: GDCM ends the process on damaged frames, and it decodes 12 bits too.

    The samples come as they lie in the codestream; what they mean the header says (PS3.5 8.2.1).
    """
    if _END_OF_IMAGE not in frame.rstrip(b"\0")[-_STRAY:]:  # libjpeg would fill the rest with gray
        raise DicomError("undecodable-pixels", "a compressed frame is cut off")
    as_they_lie = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if header.samples == 3 else {}
    with foreign_errors("undecodable-pixels", "the pixel data cannot be decoded"):
        decoded = jpeg8_decode(frame, **as_they_lie)
        if header.photometric in ("YBR_FULL", "YBR_FULL_422"):
            decoded = convert_color_space(decoded, "YBR_FULL", "RGB")
        elif header.samples == 3 and header.photometric != "RGB":
            raise DicomError("undecodable-pixels", "a compressed colour frame cannot be turned into RGB")
    return decoded


def encode_frame(frame: np.ndarray, header: InstanceHeader, transfer_syntax_uid: str) -> bytes:
    """Encode one frame without loss, if the encoder keeps its word: the caller decodes and compares.

    JPEG 2000 and HTJ2K turn RGB into YBR_RCT on the way, which is reversible (ISO/IEC 15444-1 G.2).

    Parameters
    ----------
    frame
        Unsigned containers of `container_of`, (H, W) or (H, W, 3) of RGB by pixel.
    header
        Of the instance as it will be sent: its Photometric Interpretation is the encoded one.

    Raises
    ------
    DicomError
        "not-exact": the syntax does not hold this frame, or its encoder does not take it. "no-encoder" for a syntax
        without one.
    """
    if transfer_syntax_uid not in _ENCODERS:
        raise DicomError("no-encoder", f"there is no encoder for transfer syntax {transfer_syntax_uid}")
    syntax = syntax_of(transfer_syntax_uid)
    facts = _facts(header)
    if syntax.codec in _OF_NUMBERS:
        frame = _numbers(frame, header)
    else:  # else pydicom leaves out the upper bytes of containers that Bits Stored does not reach
        facts |= {"bits_stored": header.bits_allocated, "pixel_representation": 0}
    with foreign_errors("not-exact", "the encoder does not take this frame"):
        if transfer_syntax_uid == HTJ2K_LOSSLESS:
            encoded = bytes(htj2k_encode(frame, reversible=True))
        else:
            encoded = bytes(
                get_encoder(transfer_syntax_uid).encode(
                    frame.tobytes(),
                    encoding_plugin=_ENCODERS[transfer_syntax_uid],
                    planar_configuration=0,
                    **facts,
                )
            )
    if syntax.codec == "jpeg-2000" and has_component_transform(encoded) != (header.photometric == "YBR_RCT"):
        raise DicomError("not-exact", "the encoder turns colours otherwise than the header says")
    return encoded


def _numbers(frame: np.ndarray, header: InstanceHeader) -> np.ndarray:
    """The containers as the numbers that they hold. Raises DicomError "not-exact" where they hold something else too.

    Bits outside Bits Stored may be an old overlay (PS3.5 8.1.1): a codec that knows numbers of Bits Stored bits only
    would lose it.
    """
    bits = header.bits_stored
    numbers = frame.view(f"i{frame.dtype.itemsize}") if header.signed else frame
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.signed else (0, (1 << bits) - 1)
    if header.high_bit != bits - 1 or int(numbers.min()) < low or int(numbers.max()) > high:
        raise DicomError("not-exact", "bits outside Bits Stored are in use, which the syntax does not hold")
    return numbers


def _facts(header: InstanceHeader) -> dict[str, int | str]:
    """The Image Pixel module of a single frame, by the names that pydicom's codecs know."""
    return {
        "rows": header.rows,
        "columns": header.columns,
        "samples_per_pixel": header.samples,
        "photometric_interpretation": header.photometric,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": int(header.signed),
        "number_of_frames": 1,
    }
