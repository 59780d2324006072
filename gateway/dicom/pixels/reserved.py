"""Stored values that stand for something other than brightness: padding, and the colours of a supplemental palette.

Pixels that hold them are never marked, and no marked pixel takes one of them (PS3.3 C.7.5.1.1.2, C.7.6.19).
"""

from __future__ import annotations

import numpy as np

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.errors import DicomError

Range = tuple[int, int]
_PALETTES = tuple(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue"))


def padding_range(header: InstanceHeader) -> Range | None:
    """Pixel Padding Value and Range Limit, ordered and inclusive, as whole containers hold them (C.7.5.1.1.2).

    They may be written as US although the pixels are signed, and may not fit into Bits Stored.
    """
    if header.samples != 1:
        return None
    first = values.integer(header.dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = values.integer(header.dataset, "PixelPaddingRangeLimit")
    ends = [_of_container(end, header) for end in (first, first if last is None else last)]
    known = sorted(end for end in ends if end is not None)
    return (known[0], known[1]) if len(known) == len(ends) else None


def reserved_values(header: InstanceHeader) -> tuple[Range, ...]:
    """(low, high) of reserved stored values, inclusive and within what Bits Stored can hold.

    Padding that does not fit into Bits Stored is there by its lower bits as well: readers that cut a container down to
    Bits Stored would take such a value for padding.

    Raises
    ------
    DicomError
        "palette-colour": gray pixels with a supplemental palette whose first value cannot be read.
    """
    low, high = limits_of(header)
    found = []
    if padding := padding_range(header):
        within = (max(padding[0], low), min(padding[1], high))
        if within[0] > within[1]:
            ends = [_of_stored(end, header) for end in padding]
            within = (ends[0], ends[1]) if padding[1] - padding[0] == ends[1] - ends[0] else (0, -1)
        found += [within] if within[0] <= within[1] else []
    first = _first_colour(header)
    if first is not None and first <= high:
        found.append((max(first, low), high))
    return tuple(found)


def reserved_pixels(
    frames: np.ndarray, raw: np.ndarray | None, shift: int, header: InstanceHeader, reserved: tuple[Range, ...]
) -> np.ndarray | None:
    """True where a pixel is padding or a colour, shape of `frames`; None where the header names neither.

    Parameters
    ----------
    frames
        Stored values.
    raw
        Containers as they came, unsigned, where they hold more than the stored values; else None.
    shift
        Bits between the lowest bit of a container and that of its stored value.
    reserved
        What `reserved_values` gave.
    """
    padding = padding_range(header)
    if padding is None and not reserved:
        return None
    mask = np.zeros(frames.shape, bool)
    for low, high in reserved:
        mask |= (frames >= low) & (frames <= high)
    if padding is not None and raw is not None and not shift:
        whole = raw.view(f"i{raw.dtype.itemsize}") if header.signed else raw
        mask |= (whole >= padding[0]) & (whole <= padding[1])
    return mask


def limits_of(header: InstanceHeader) -> Range:
    """Smallest and largest value that Bits Stored can hold."""
    bits = header.bits_stored
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.signed else (0, (1 << bits) - 1)


def _first_colour(header: InstanceHeader) -> int | None:
    """The first stored value that a supplemental palette maps to a colour; None without such a palette (C.7.6.19).

    From there on every value is a colour: those behind the table's last entry have the last one's (C.7.6.3.1.5).
    """
    given = [name for name in _PALETTES if name in header.dataset]
    if header.samples != 1 or not given:
        return None
    firsts = []
    for name in given:
        descriptor = values.numbers(header.dataset, name)
        if len(descriptor) != 3:
            raise DicomError(
                "palette-colour",
                "some pixels are colours of a supplemental palette, and which ones cannot be read",
                "correct the Palette Color Lookup Table Descriptors (0028,1101) to (0028,1103) at the source",
            )
        firsts.append(_of_stored(int(descriptor[1]), header))
    return min(firsts)


def _of_container(value: int, header: InstanceHeader) -> int | None:
    """A value as the container holds it, with the sign of the pixels, however it was written; None where it cannot."""
    bits = header.bits_allocated
    if header.signed and value > 0x7FFF:  # -2000 written as 63536
        value -= 1 << 16
    return _wrapped(value, bits, header.signed) if -(1 << (bits - 1)) <= value < 1 << bits else None


def _of_stored(value: int, header: InstanceHeader) -> int:
    """A value cut down to Bits Stored."""
    return _wrapped(value, header.bits_stored, header.signed)


def _wrapped(value: int, bits: int, signed: bool) -> int:
    low = value & ((1 << bits) - 1)
    return low - (1 << bits) if signed and low >> (bits - 1) else low
