"""One frame out of a compressed transfer syntax and, without loss, into one (PS3.5 section 8.2 and annex A.4)."""

from __future__ import annotations

import numpy as np

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.dicom.pixels import decoding, encoders
from gateway.dicom.pixels.facts import container_of, decoded_type, facts_of

__all__ = ["container_of", "decode_frame", "decoded_type", "encode_frame"]


def decode_frame(frame: bytes, header: InstanceHeader, syntax: Syntax) -> np.ndarray:
    """Decode one frame: as `gateway.dicom.pixels.decoding.decode_frame`."""
    return decoding.decode_frame(frame, facts_of(header), syntax)


def encode_frame(frame: np.ndarray, header: InstanceHeader, transfer_syntax_uid: str) -> bytes:
    """Encode one frame: as `gateway.dicom.pixels.encoders.encode_frame`."""
    return encoders.encode_frame(frame, facts_of(header), syntax_of(transfer_syntax_uid))
