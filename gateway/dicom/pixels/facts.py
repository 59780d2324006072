"""What a codec must know of a frame, apart from everything else that a header says: no patient, no UID."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.syntaxes import Syntax

# JPEG-LS and JPEG 2000 hold numbers of Bits Stored bits; RLE and JPEG hold containers, and know no sign.
OF_NUMBERS = ("jpeg-ls", "jpeg-2000")


@dataclass(frozen=True)
class FrameFacts:
    """The Image Pixel module of one frame (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, samples)."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def facts_of(header: InstanceHeader) -> FrameFacts:
    """The facts of each frame of an instance."""
    return FrameFacts(
        rows=header.rows,
        columns=header.columns,
        samples=header.samples,
        photometric=header.photometric,
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
        high_bit=header.high_bit,
        signed=header.signed,
    )


def container_of(facts: FrameFacts | InstanceHeader) -> np.dtype:
    """Type of one little endian container: uint8 or uint16, by Bits Allocated."""
    return np.dtype("u1" if facts.bits_allocated == 8 else "<u2")


def decoded_type(facts: FrameFacts | InstanceHeader, syntax: Syntax) -> np.dtype:
    """Type of what `decode_frame` gives: int16 where the codec knows the sign, else that of the unsigned container."""
    if syntax.codec in OF_NUMBERS and facts.signed:
        return np.dtype(np.int16)
    return np.dtype(np.uint8 if facts.bits_allocated == 8 else np.uint16)
