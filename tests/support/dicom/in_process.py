"""Codecs in the test's own process, where a test replaces parts of them; everywhere else they run in a child."""

from __future__ import annotations

import numpy as np

from gateway.dicom.encoding.syntaxes import Syntax
from gateway.dicom.pixels import decoding, encoders
from gateway.dicom.pixels.facts import FrameFacts


class Here:
    """What a pool does, without any child."""

    def decode(self, frame: bytes, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
        return decoding.decode_frame(frame, facts, syntax)

    def encode(self, frame: np.ndarray, facts: FrameFacts, syntax: Syntax) -> bytes:
        return encoders.encode_frame(frame, facts, syntax)
