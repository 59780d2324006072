"""The integer residual between original and marked pixels, as bytes that compress well and give the original back.

A mark changes nothing outside its strokes and little inside them. So most differences are zero, and most of the others
are small as a zigzag code (0, -1, 1, -2, ...): the plane of their low bytes and that of their high bytes are what a
general compressor makes short. Differences wrap around the container, so any two images have a residual.

Layout: deploy/formats.md, "carried body".
"""

from __future__ import annotations

import numpy as np

from gateway.errors import DicomError


def residual(original: np.ndarray, marked: np.ndarray) -> bytes:
    """What turns `marked` into `original`: the plane of low bytes, then (16 bits only) that of high bytes.

    Parameters
    ----------
    original, marked
        Containers, 1-D, of one length and one type: uint8 or uint16.

    Returns
    -------
    bytes
        As many as `original` has.
    """
    if original.dtype != marked.dtype or original.dtype not in (np.uint8, np.uint16) or original.ndim != 1:
        raise ValueError("a residual is taken of two flat arrays of uint8 or uint16")
    bits = original.dtype.itemsize * 8
    signed = (original - marked).view(f"i{original.dtype.itemsize}")
    code = ((signed << 1) ^ (signed >> (bits - 1))).view(original.dtype)
    if bits == 8:
        return code.tobytes()
    return (code & 0xFF).astype(np.uint8).tobytes() + (code >> 8).astype(np.uint8).tobytes()


def original_of(planes: bytes | memoryview, marked: np.ndarray) -> np.ndarray:
    """The containers that `residual` was taken of.

    Parameters
    ----------
    planes
        What `residual` gave.
    marked
        As given to `residual`.

    Raises
    ------
    DicomError
        "carried-format" when `planes` has not the length of `marked`.
    """
    if len(planes) != marked.nbytes:
        raise DicomError("carried-format", "the residual and the pixels differ in length")
    low = np.frombuffer(planes, np.uint8)
    code: np.ndarray = low
    if marked.dtype == np.uint16:
        code = low[: len(marked)].astype(np.uint16) | low[len(marked) :].astype(np.uint16) << 8
    difference = (code >> 1) ^ (np.zeros_like(code) - (code & 1))
    return marked + difference
