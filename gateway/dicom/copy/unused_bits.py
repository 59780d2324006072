"""What a copy holds in the bits of its containers that are no part of the stored values (PS3.5 8.1.1).

Old overlays lie there, each in the bit that its group names (60xx,0102; retired), and padding may fill a container as a
whole. Whatever else an original has there could be a second, unmarked picture, which every reader of whole containers
would find: a copy has zeros there, or the sign.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pydicom import Dataset

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.pixels.reserved import padding_range
from gateway.dicom.pixels.stored_values import Pixels

GROUPS = range(0x6000, 0x6020, 2)  # PS3.5 7.6


def overlay_bits(ds: Dataset) -> dict[int, int]:
    """Overlay group -> bit of the containers that holds its plane, of the planes that have no Overlay Data (C.9.2)."""
    found = {}
    for group in GROUPS:
        base = group << 16
        if base | 0x3000 in ds or base | 0x0102 not in ds:
            continue
        bit = number_of(ds, group, 0x0102, -1)
        if 0 <= bit < 16:
            found[group] = bit
    return found


def number_of(ds: Dataset, group: int, element: int, default: int) -> int:
    """A whole number of an overlay group."""
    try:
        value = ds[group << 16 | element].value
    except Exception:  # absent, or nothing that pydicom can decode
        return default
    return int(value) if isinstance(value, int | float | str) and str(value).strip().isdigit() else default


def containers_of_copy(
    pixels: Pixels, frames: np.ndarray, header: InstanceHeader, showing: Collection[int] = ()
) -> np.ndarray:
    """Marked stored values in containers, as `Pixels.containers` but for the unused bits.

    Parameters
    ----------
    pixels, header
        Of the original.
    frames
        As `Pixels.frames`.
    showing
        Overlay groups whose planes show the picture, and go.
    """
    exact = pixels.containers(frames)
    if pixels.raw is None:
        return exact
    stored = ((1 << pixels.bits_stored) - 1) << pixels.shift
    bits = sum({1 << bit for group, bit in overlay_bits(header.dataset).items() if group not in showing}) & ~stored
    wide = frames.astype(np.int32) << pixels.shift
    if not pixels.signed or pixels.shift or bits:
        wide &= stored  # else the sign fills the bits above
    result = (wide | (pixels.raw.astype(np.int32) & bits)).astype(exact.dtype)
    padding = padding_range(header)
    if padding is not None and not pixels.shift:
        whole = pixels.raw.view(f"i{pixels.raw.dtype.itemsize}") if pixels.signed else pixels.raw
        result = np.where((whole >= padding[0]) & (whole <= padding[1]), exact, result)
    return result
