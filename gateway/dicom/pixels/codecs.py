"""One frame out of a compressed transfer syntax and, without loss, into one (PS3.5 section 8.2 and annex A.4).

No codec runs in this process: a child does the work (`gateway.dicom.pixels.children`).
"""

from __future__ import annotations

import numpy as np

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.dicom.pixels.children import pool
from gateway.dicom.pixels.facts import facts_of
from gateway.errors import DicomError


def decode_frame(frame: bytes, header: InstanceHeader, syntax: Syntax) -> np.ndarray:
    """Decode one frame: as `gateway.dicom.pixels.children.pool.Pool.decode`."""
    if not syntax.codec:
        raise DicomError("unsupported-transfer-syntax", f"no decoder for transfer syntax {syntax.uid}")
    return pool.shared().decode(frame, facts_of(header), syntax)


def encode_frame(frame: np.ndarray, header: InstanceHeader, transfer_syntax_uid: str) -> bytes:
    """Encode one frame: as `gateway.dicom.pixels.children.pool.Pool.encode`."""
    return pool.shared().encode(frame, facts_of(header), syntax_of(transfer_syntax_uid))
