"""One frame into a compressed transfer syntax, without loss (PS3.5 annex A.4); runs where decoding does."""

from __future__ import annotations

from typing import Any

import numpy as np
from imagecodecs import htj2k_encode
from pydicom.pixels import get_encoder

from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    Syntax,
)
from gateway.dicom.pixels.codestream import has_component_transform
from gateway.dicom.pixels.facts import OF_NUMBERS, FrameFacts
from gateway.errors import DicomError

_PLUG_INS = {
    RLE_LOSSLESS: "pydicom",  # GDCM's is faster, and ends the process on frames of odd size
    JPEG_LS_LOSSLESS: "pyjpegls",
    JPEG_2000_LOSSLESS: "pylibjpeg",
    HTJ2K_LOSSLESS: "",  # pydicom has none: OpenJPH by way of imagecodecs
}


def encode_frame(frame: np.ndarray, facts: FrameFacts, syntax: Syntax) -> bytes:
    """Encode one frame without loss, if the encoder keeps its word: the caller decodes and compares.

    JPEG 2000 and HTJ2K turn RGB into YBR_RCT on the way, which is reversible (ISO/IEC 15444-1 G.2).

    Parameters
    ----------
    frame
        Unsigned containers of `container_of`, (H, W) or (H, W, 3) of RGB by pixel.
    facts
        Of the instance as it will be sent: its Photometric Interpretation is the encoded one.

    Raises
    ------
    DicomError
        "not-exact": the syntax does not hold this frame, or its encoder does not take it. "no-encoder" for a syntax
        without one.
    """
    if syntax.uid not in _PLUG_INS:
        raise DicomError("no-encoder", f"there is no encoder for transfer syntax {syntax.uid}")
    module = _module(facts)
    if syntax.codec in OF_NUMBERS:
        frame = _numbers(frame, facts)
    else:  # else pydicom leaves out the upper bytes of containers that Bits Stored does not reach
        module |= {"bits_stored": facts.bits_allocated, "pixel_representation": 0}
    with foreign_errors("not-exact", "the encoder does not take this frame"):
        if syntax.uid == HTJ2K_LOSSLESS:
            encoded = bytes(htj2k_encode(frame, reversible=True))
        else:
            plug_in = _PLUG_INS[syntax.uid]
            encoder = get_encoder(syntax.uid)
            encoded = bytes(encoder.encode(frame.tobytes(), encoding_plugin=plug_in, planar_configuration=0, **module))
    if syntax.codec == "jpeg-2000" and has_component_transform(encoded) != (facts.photometric == "YBR_RCT"):
        raise DicomError("not-exact", "the encoder changes the colour space, and the header would no longer be true")
    return encoded


def _numbers(frame: np.ndarray, facts: FrameFacts) -> np.ndarray:
    """The containers as the numbers that they hold. Raises DicomError "not-exact" where they hold something else too.

    Bits outside Bits Stored may be an old overlay (PS3.5 8.1.1): a codec that knows numbers of Bits Stored bits only
    would lose it.
    """
    bits = facts.bits_stored
    numbers = frame.view(f"i{frame.dtype.itemsize}") if facts.signed else frame
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if facts.signed else (0, (1 << bits) - 1)
    if facts.high_bit != bits - 1 or int(numbers.min()) < low or int(numbers.max()) > high:
        raise DicomError("not-exact", "bits outside Bits Stored are in use, which this transfer syntax cannot hold")
    return numbers


def _module(facts: FrameFacts) -> dict[str, Any]:
    """The Image Pixel module of a single frame, by the names that pydicom's codecs know."""
    return {
        "rows": facts.rows,
        "columns": facts.columns,
        "samples_per_pixel": facts.samples,
        "photometric_interpretation": facts.photometric,
        "bits_allocated": facts.bits_allocated,
        "bits_stored": facts.bits_stored,
        "pixel_representation": int(facts.signed),
        "number_of_frames": 1,
    }
