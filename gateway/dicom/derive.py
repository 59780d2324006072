"""The derived instance: the original's header with what changed, and the marked pixels, as one encoded data set.

Explicit VR Little Endian, uncompressed (design, section 4 step 5). Elements that need no change keep their bytes where
the original is in the same encoding, private ones always.
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from gateway.dicom import derivation
from gateway.dicom.derivation import DerivationFacts
from gateway.dicom.explicit import encode_around, make_explicit
from gateway.dicom.library import foreign_errors
from gateway.dicom.overlay import add_words
from gateway.dicom.parts import Parts, split
from gateway.dicom.pixels import Pixels, pixels_of
from gateway.dicom.private import write_block
from gateway.dicom.references import follow
from gateway.errors import DicomError

__all__ = ["DerivationFacts", "derive"]


def derive(
    original: bytes,
    transfer_syntax_uid: str,
    marked_frames: np.ndarray,
    facts: DerivationFacts,
    pixels: Pixels | None = None,
) -> bytes:
    """Build the derived data set: the same inputs give the same bytes.

    Parameters
    ----------
    original
        Encoded data set as received (without File Meta), in `transfer_syntax_uid`.
    marked_frames
        As `Pixels.frames` of the original: same shape and type.
    pixels
        What `decode_pixels` gave for `original`, when the caller has it still; else it is decoded again.

    Raises
    ------
    DicomError
        all of `decode_pixels`, "already-marked", "wrong-marked-frames", "no-free-private-block".
    HoldError
        as `gateway.dicom.overlay.add_words`, when the facts want visible text.
    """
    parts = split(original, transfer_syntax_uid)
    if pixels is None:
        pixels = pixels_of(parts)
    containers = pixels.containers(marked_frames)
    header = parts.header
    ds = parts.fresh_dataset()
    if header.has_our_private_block:
        raise DicomError("already-marked", "the data set carries a private block of this gateway already")
    with foreign_errors("undecodable-header", "the derived header cannot be made"):
        make_explicit(ds, parts)
        derivation.drop_invalid(ds)
        ds.pop("SourceImageSequence", None)  # replaced as a whole
        follow(ds, header, facts)
        derivation.set_identity(ds, facts)
        derivation.describe_derivation(ds, facts)
        derivation.refer_to_source(ds, header.sop_class_uid, header.sop_instance_uid, facts.source_reference)
        derivation.set_lossy_history(ds, pixels.lossy, parts.syntax.method, _ratio(parts))
        _describe_pixels(ds, pixels, marked_frames)
        if facts.visible_text:
            add_words(ds, header.rows, header.columns)
        write_block(ds, facts.token, facts.hint, sealed_key=facts.sealed_key, payload=facts.payload)
        before, behind = encode_around(ds)
        return before + _pixel_element(containers, pixels.bits_allocated) + behind


def _ratio(parts: Parts) -> float | None:
    """Uncompressed to compressed size, for a source that came compressed in a syntax that may be lossy."""
    if parts.syntax.lossy == "never":
        return None
    header = parts.header
    full = header.rows * header.columns * header.samples * header.frames * (header.bits_allocated // 8)
    return full / max(len(parts.value), 1)


def _describe_pixels(ds: Dataset, pixels: Pixels, frames: np.ndarray) -> None:
    if pixels.photometric == "RGB":
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
            ds.pop(keyword, None)  # one value cannot stand for three samples
        return
    shown = frames if pixels.padding is None else frames[~pixels.padding]
    if shown.size == 0:
        shown = frames
    derivation.smallest_and_largest(ds, int(shown.min()), int(shown.max()), pixels.signed)


def _pixel_element(containers: np.ndarray, bits_allocated: int) -> bytes:
    """Pixel Data (7FE0,0010) with native pixels: OB for 8 bits, OW for 16 (PS3.5 8.1.2, A.2)."""
    value = containers.tobytes()
    if len(value) > 0xFFFFFFFE:
        raise DicomError("pixels-too-large", "native pixel data cannot be longer than 4 GiB")
    padding = b"\0" if len(value) % 2 else b""
    vr = b"OB" if bits_allocated == 8 else b"OW"
    length = (len(value) + len(padding)).to_bytes(4, "little")
    return b"\xe0\x7f\x10\x00" + vr + b"\0\0" + length + value + padding
