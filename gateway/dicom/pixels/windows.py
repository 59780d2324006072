"""Display windows of an image, in its own units and in stored values (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.dicom.encoding.groups import FunctionalGroups
from gateway.errors import DicomError


@dataclass(frozen=True)
class Window:
    """One VOI window in output units of the modality LUT (HU, or stored values where there is none).

    `function` is "LINEAR", "LINEAR_EXACT" or "SIGMOID".
    """

    center: float
    width: float
    function: str = "LINEAR"

    def limits(self) -> tuple[float, float]:
        """Lower and upper end of the ramp, in output units.

        LINEAR by C.11.2.1.2.1, LINEAR_EXACT by C.11.2.1.3.2. A SIGMOID (C.11.2.1.3.1) has no ends; its slope at the
        centre is that of an exact ramp of the same width, whose ends are given.
        """
        if self.function == "LINEAR":
            half = (self.width - 1) / 2
            return self.center - 0.5 - half, self.center - 0.5 + half
        return self.center - self.width / 2, self.center + self.width / 2

    def shades(self, output: np.ndarray) -> np.ndarray:
        """Shade (float, 0..1) of each output value."""
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                return 1.0 / (1.0 + np.exp(-4.0 * (output - self.center) / self.width))
        low, high = self.limits()
        return np.clip((output - low) / (high - low), 0.0, 1.0)


@dataclass(frozen=True)
class VoiTable:
    """One table of the VOI LUT Sequence (PS3.3 C.11.2.1.1): it is the display, no straight line between its ends is.

    Attributes
    ----------
    first
        Output value that the first entry belongs to; values below have its shade, those above the last one's.
    entries
        uint16 little endian.
    bits
        Of an entry: white is 2 ** bits - 1.
    """

    first: int
    entries: bytes
    bits: int

    def shades(self, output: np.ndarray) -> np.ndarray:
        """Shade (float, 0..1) of each output value."""
        table = np.frombuffer(self.entries, "<u2")
        places = np.clip(np.rint(output - self.first), 0, len(table) - 1).astype(np.int64)
        return table[places] / float((1 << self.bits) - 1)


View = tuple[float, float] | np.ndarray
"""How one VOI shows stored values: (black, white) of a straight ramp, or a shade (float, 0..1) of each stored value."""


@dataclass(frozen=True)
class Display:
    """How stored values become shades.

    Attributes
    ----------
    slope, intercept
        output = stored * slope + intercept (C.11.1.1.2); 1 and 0 where the header has none. Slope is never 0.
    windows
        All usable windows of the header, in its order.
    voi_range
        Input range (first, last) of the first VOI LUT, in output units, when the header has a table but no window.
    inverted
        True when the smallest output is shown white: MONOCHROME1, or Presentation LUT Shape INVERSE.
    tables
        All usable tables of the VOI LUT Sequence, in its order.
    has_units
        The header rescales: outputs are in the modality's units, for which presets are made.
    """

    slope: float
    intercept: float
    windows: tuple[Window, ...]
    voi_range: tuple[float, float] | None
    inverted: bool
    tables: tuple[VoiTable, ...] = ()
    has_units: bool = True

    def views(self, lowest: int, highest: int) -> list[tuple[str, View]]:
        """Name and view of every VOI of the header, the first table first, then the windows, then further tables.

        A table and windows together are alternative views (C.11.2.1.2); a table is what was drawn for this image.

        Parameters
        ----------
        lowest, highest
            Stored values that shades are given for, both included.
        """
        output = np.arange(lowest, highest + 1) * self.slope + self.intercept
        tables: list[tuple[str, View]] = []
        for number, table in enumerate(self.tables, 1):
            shades = table.shades(output)
            if shades.min() < shades.max():
                tables.append((f"table {number}", 1.0 - shades if self.slope < 0 else shades))
        windows: list[tuple[str, View]] = []
        for number, window in enumerate(self.windows, 1):
            if window.function == "SIGMOID":
                shades = window.shades(output)
                windows.append((f"header {number}", 1.0 - shades if self.slope < 0 else shades))
            else:
                windows.append((f"header {number}", self.stored(window)))
        found = [*tables[:1], *windows, *tables[1:]]
        if not found and self.voi_range:
            found = [("table 1", self._stored(*self.voi_range))]
        return found

    def stored(self, window: Window) -> tuple[float, float]:
        """A window's limits in stored values, low before high."""
        return self._stored(*window.limits())

    @property
    def primary(self) -> tuple[float, float] | None:
        """Limits in stored values of the first VOI of the header; None when there is none. Of a curve: its ends."""
        if self.windows:
            return self.stored(self.windows[0])
        return self._stored(*self.voi_range) if self.voi_range else None

    def _stored(self, low: float, high: float) -> tuple[float, float]:
        ends = ((low - self.intercept) / self.slope, (high - self.intercept) / self.slope)
        return min(ends), max(ends)


def displays_of(ds: Dataset, frames: int) -> tuple[Display, ...]:
    """Read slope, intercept, windows and polarity of each frame.

    Of an enhanced image out of its functional groups (Pixel Value Transformation, PS3.3 C.7.6.16.2.9; Frame VOI LUT,
    C.7.6.16.2.10), a frame's own before the shared ones; what neither has stands at the top level, as in any image.

    Raises
    ------
    DicomError
        "modality-lut" for a Modality LUT Sequence (0028,3000): its output is no linear function of stored values.
        "wrong-functional-groups" as `FunctionalGroups`.
    """
    if values.items(ds, "ModalityLUTSequence"):
        raise DicomError("modality-lut", "the image has a Modality LUT, and a mark cannot be made in its units")
    groups = FunctionalGroups(ds, frames)
    signed = values.integer(ds, "PixelRepresentation") == 1
    bits = values.integer(ds, "BitsStored") or 16
    lowest, highest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    is_ct = values.text(ds, "Modality") == "CT"
    shape = values.text(ds, "PresentationLUTShape")
    inverted = values.text(ds, "PhotometricInterpretation") == "MONOCHROME1" or shape == "INVERSE"
    found: dict[tuple[int, int], Display] = {}  # one object for all frames that share their groups
    result = []
    for frame in range(frames):
        transform = groups.macro(frame, "PixelValueTransformationSequence") or ds
        voi = groups.macro(frame, "FrameVOILUTSequence") or ds
        place = (id(transform), id(voi))
        if place not in found:
            slope, intercept = _rescale(transform)
            negative = is_ct or min(lowest * slope + intercept, highest * slope + intercept) < 0
            found[place] = Display(
                slope=slope,
                intercept=intercept,
                windows=tuple(_windows(voi)),
                voi_range=_voi_range(voi, negative),
                inverted=inverted,
                tables=tuple(_tables(voi, negative)),
                has_units="RescaleSlope" in transform or "RescaleIntercept" in transform,
            )
        result.append(found[place])
    return tuple(result)


def _rescale(transform: Dataset) -> tuple[float, float]:
    """Slope, never 0, and intercept."""
    return values.number(transform, "RescaleSlope") or 1.0, values.number(transform, "RescaleIntercept") or 0.0


def _windows(ds: Dataset) -> list[Window]:
    function = values.text(ds, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return []
    pairs = zip(values.numbers(ds, "WindowCenter"), values.numbers(ds, "WindowWidth"), strict=False)
    smallest = 1 if function == "LINEAR" else 0
    # C.11.2.1.2: width >= 1 (a threshold at exactly 1 has no ramp and shows nothing of a range), > 0 for the others
    return [Window(center, width, function) for center, width in pairs if width > smallest]


def _voi_range(ds: Dataset, negative: bool) -> tuple[float, float] | None:
    tables = values.items(ds, "VOILUTSequence")
    descriptor = _descriptor(tables[0], negative) if tables else None
    if descriptor is None:
        return None
    entries, first, _ = descriptor
    return (first, first + entries - 1) if entries > 1 else None


def _descriptor(table: Dataset, negative: bool) -> tuple[int, int, int] | None:
    """Entries, first value mapped and bits; None where there are no such three whole numbers.

    The first value is signed where outputs can be negative (always in CT), whatever the VR says that it came in: an
    implicit VR header gives none.
    """
    found = values.numbers(table, "LUTDescriptor")
    if len(found) != 3 or any(number != int(number) for number in found):
        return None
    entries, first, bits = (int(number) for number in found)
    entries &= 0xFFFF  # SS gives a negative number for more than 32767
    if negative and first > 32767:
        first -= 65536
    elif not negative and first < 0:
        first += 65536
    return entries or 65536, first, bits


def _tables(ds: Dataset, negative: bool) -> Iterator[VoiTable]:
    """The VOI tables whose data are all there and not one single value."""
    for item in values.items(ds, "VOILUTSequence"):
        descriptor = _descriptor(item, negative)
        data = _table_data(item, descriptor[0], descriptor[2]) if descriptor else None
        if descriptor is None or data is None or data.min() == data.max():
            continue
        # data that need more bits than were told (8 for 16 is common) count by what they need
        bits = max(8, descriptor[2] & 0xFF if descriptor[2] <= 16 else 16, int(data.max()).bit_length())
        yield VoiTable(descriptor[1], data.astype("<u2").tobytes(), bits)


def _table_data(item: Dataset, entries: int, bits: int) -> np.ndarray | None:
    """The entries, unsigned: US or SS values, OW words, or words of two 8-bit entries; None where some are missing."""
    raw = values.raw_value(item, "LUTData")
    if isinstance(raw, bytes):
        order = "<" if getattr(item, "original_encoding", (None, True))[1] is not False else ">"
        words = np.frombuffer(raw[: len(raw) // 2 * 2], f"{order}u2")
        if bits <= 8 and len(words) < entries <= len(raw):  # 8-bit entries, the first in the low half of a word
            words = np.frombuffer(words.astype("<u2").tobytes(), np.uint8)
    else:
        numbers = np.array(values.numbers(item, "LUTData"))
        words = (numbers.astype(np.int64) & 0xFFFF) if numbers.size else numbers
    return words[:entries].astype(np.int64) if len(words) >= entries and entries > 1 else None
