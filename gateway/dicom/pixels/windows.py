"""Display windows of an image, in its own units and in stored values (PS3.3 C.11.1, C.11.2)."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    slope: float
    intercept: float
    windows: tuple[Window, ...]
    voi_range: tuple[float, float] | None
    inverted: bool

    def stored(self, window: Window) -> tuple[float, float]:
        """A window's limits in stored values, low before high."""
        return self._stored(*window.limits())

    @property
    def primary(self) -> tuple[float, float] | None:
        """Limits in stored values of the first VOI of the header; None when there is none."""
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
    shape = values.text(ds, "PresentationLUTShape")
    inverted = values.text(ds, "PhotometricInterpretation") == "MONOCHROME1" or shape == "INVERSE"
    found: dict[tuple[int, int], Display] = {}  # one object for all frames that share their groups
    result = []
    for frame in range(frames):
        transform = groups.macro(frame, "PixelValueTransformationSequence") or ds
        voi = groups.macro(frame, "FrameVOILUTSequence") or ds
        place = (id(transform), id(voi))
        if place not in found:
            found[place] = _display(transform, voi, signed, inverted)
        result.append(found[place])
    return tuple(result)


def _display(transform: Dataset, voi: Dataset, signed: bool, inverted: bool) -> Display:
    return Display(
        slope=values.number(transform, "RescaleSlope") or 1.0,
        intercept=values.number(transform, "RescaleIntercept") or 0.0,
        windows=tuple(_windows(voi)),
        voi_range=_voi_range(voi, signed),
        inverted=inverted,
    )


def _windows(ds: Dataset) -> list[Window]:
    function = values.text(ds, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return []
    pairs = zip(values.numbers(ds, "WindowCenter"), values.numbers(ds, "WindowWidth"), strict=False)
    smallest = 1 if function == "LINEAR" else 0
    # C.11.2.1.2: width >= 1 (a threshold at exactly 1 has no ramp and shows nothing of a range), > 0 for the others
    return [Window(center, width, function) for center, width in pairs if width > smallest]


def _voi_range(ds: Dataset, signed: bool) -> tuple[float, float] | None:
    tables = values.items(ds, "VOILUTSequence")
    descriptor = values.numbers(tables[0], "LUTDescriptor") if tables else []
    if len(descriptor) != 3:
        return None
    entries = descriptor[0] or 65536
    first = descriptor[1] - 65536 if signed and descriptor[1] > 32767 else descriptor[1]
    return (first, first + entries - 1) if entries > 1 else None
