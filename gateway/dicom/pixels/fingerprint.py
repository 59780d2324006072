"""What the pixels of an object are, in 33 bytes: the same after lossless transcoding, another after any change of them.

A copy that carries its original whole could give it back whatever became of its own pixels. It must not: who hands in
a picture that is not the one that went out is told so (see `gateway.dicom.copy.carried_body`), as with a residual.
Frames are hashed one after the other, in their order. Layout: deploy/formats.md, "carried body".
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable

import numpy as np

from gateway.dicom.encoding.check import native_length
from gateway.dicom.encoding.parts import Parts, native_value, split
from gateway.dicom.pixels.stored_values import element_of, pixels_of
from gateway.errors import DicomError

NONE, STORED, NATIVE, FRAGMENTS = 0, 1, 2, 3
SIZE = 33  # kind, SHA-256
_SHAPE = struct.Struct(">IIIB")  # frames, rows, columns, samples
_NOTHING = bytes([NONE]) + bytes(32)


def stored_digest(frames: Iterable[np.ndarray], head: bytes = b"") -> bytes:
    """SHA-256 of `head` and stored values, whatever type holds them: each as 32 bits, signed, big-endian, in order.

    Parameters
    ----------
    frames
        (H, W) or (H, W, 3) each, one at a time.
    """
    digest = hashlib.sha256(head)
    for frame in frames:
        digest.update(frame.astype(">i4").tobytes())
    return digest.digest()


def of_frames(frames: np.ndarray) -> bytes:
    """Fingerprint of marked stored values, as `Pixels.frames`: what the copy's own must be."""
    samples = frames.shape[3] if frames.ndim == 4 else 1
    return bytes([STORED]) + stored_digest(frames, _SHAPE.pack(*frames.shape[:3], samples))


def of_object(data: bytes, transfer_syntax_uid: str) -> bytes:
    """Fingerprint of an object whose pixels, if it has any, go out as they are.

    Of stored values where they can be decoded; else (one bit, floating point) of the uncompressed value; else of the
    fragments as they are, which no transcoding survives.

    Raises
    ------
    DicomError
        all of `check_encoding`; "swapped-pixels".
    """
    parts = split(data, transfer_syntax_uid, without_pixels=True)
    if parts.pixels is None:
        return _NOTHING
    try:
        return _of_kind(STORED, parts)
    except DicomError:
        return _of_kind(FRAGMENTS if parts.syntax.encapsulated else NATIVE, parts)


def is_same(fingerprint: bytes, copy: bytes, transfer_syntax_uid: str) -> bool:
    """Whether a copy's pixels are those that the fingerprint was made of.

    Raises
    ------
    DicomError
        "carried-format" for a kind that is not known here; all of `decode_pixels` where the fingerprint is of stored
        values; "encapsulated" where it is of uncompressed pixels that cannot be had from this copy.
    """
    kind = fingerprint[0]
    if kind not in (NONE, STORED, NATIVE, FRAGMENTS):
        raise DicomError("carried-format", "what the copy carries has no known version")
    parts = split(copy, transfer_syntax_uid, without_pixels=True)
    if parts.pixels is None or kind == NONE:
        return parts.pixels is None and kind == NONE
    return hmac.compare_digest(_of_kind(kind, parts), fingerprint)


def _of_kind(kind: int, parts: Parts) -> bytes:
    if kind == STORED:
        return of_frames(pixels_of(parts).frames)
    header = parts.header
    digest = hashlib.sha256(_SHAPE.pack(header.frames, header.rows, header.columns, header.samples))
    if kind == NATIVE:
        if parts.syntax.encapsulated:
            raise DicomError(
                "encapsulated", "pixels of this kind can only be compared uncompressed, and the copy's are compressed"
            )
        digest.update(native_value(parts)[: native_length(header, element_of(parts).tag)])
    elif parts.syntax.encapsulated:
        for fragment in parts.fragments()[1]:
            digest.update(fragment)
    return bytes([kind]) + digest.digest()
