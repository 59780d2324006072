"""Which pixels a display shutter leaves to be seen (PS3.3 C.7.6.11, C.7.6.16.2.16), and the shape of a pixel."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.dicom.encoding.groups import FunctionalGroups

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_MOST_ASPECT = 50.0  # beyond it one of two numbers is wrong
_SQUARE = 0.01  # spacings that differ by less come from rounding


def hidden_of(ds: Dataset, frames: int, rows: int, columns: int) -> list[np.ndarray | None]:
    """Return of each frame the (H, W) bool pixels that a shutter hides; None where none does.

    Rectangle, circle and polygon, all that are there at once; a frame's own shutter comes before the shared one and
    that of the image. Edges themselves count as hidden, and places are taken for columns and rows counted from 1: so
    nothing is called seen that a viewer hides which counts from 0. A shape that cannot be read, or that
    leaves nothing to be seen, is no shutter: then everything counts as seen.
    """
    groups = FunctionalGroups(ds, frames)
    aspects = aspects_of(ds, frames)
    found: dict[tuple[int, float], np.ndarray | None] = {}
    result = []
    for frame in range(frames):
        place = groups.macro(frame, "FrameDisplayShutterSequence") or ds
        key = (id(place), aspects[frame])
        if key not in found:
            found[key] = _hidden(place, rows, columns, aspects[frame])
        result.append(found[key])
    return result


def aspects_of(ds: Dataset, frames: int) -> list[float]:
    """Return of each frame the height of a pixel over its width, as it is shown; 1.0 where the header says nothing.

    From the spacing of rows and columns (Pixel Measures of the frame first), else Pixel Aspect Ratio (C.7.6.3.1.7).
    """
    groups = FunctionalGroups(ds, frames)
    return [_aspect(groups.macro(frame, "PixelMeasuresSequence"), ds) for frame in range(frames)]


def _aspect(measures: Dataset | None, ds: Dataset) -> float:
    pairs = [] if measures is None else [values.numbers(measures, "PixelSpacing")]
    pairs += [values.numbers(ds, name) for name in (*_SPACINGS, "PixelAspectRatio")]
    for pair in pairs:
        if len(pair) == 2 and min(pair) > 0 and 1 / _MOST_ASPECT <= pair[0] / pair[1] <= _MOST_ASPECT:
            aspect = pair[0] / pair[1]
            return 1.0 if abs(aspect - 1.0) < _SQUARE else aspect
    return 1.0


def _hidden(ds: Dataset, rows: int, columns: int, aspect: float) -> np.ndarray | None:
    seen = np.ones((rows, columns), bool)
    for shape in values.texts(ds, "ShutterShape"):
        part = None
        if shape == "RECTANGULAR":
            part = _rectangle(ds, rows, columns)
        elif shape == "CIRCULAR":
            part = _circle(ds, rows, columns, aspect)
        elif shape == "POLYGONAL":
            part = _polygon(ds, rows, columns)
        if part is not None and (seen & part).any():
            seen &= part
    return None if seen.all() else ~seen


def _rectangle(ds: Dataset, rows: int, columns: int) -> np.ndarray | None:
    names = ("LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
    edges = [edge for name in names if (edge := values.number(ds, f"Shutter{name}")) is not None]
    if len(edges) < len(names):
        return None
    left, right, upper, lower = edges
    row, column = np.arange(1, rows + 1), np.arange(1, columns + 1)
    # an edge on the border of the image hides nothing
    across = ((column > left) | (left <= 1)) & ((column < right) | (right >= columns))
    down = ((row > upper) | (upper <= 1)) & ((row < lower) | (lower >= rows))
    return down[:, None] & across


def _circle(ds: Dataset, rows: int, columns: int, aspect: float) -> np.ndarray | None:
    centre, radius = values.numbers(ds, "CenterOfCircularShutter"), values.number(ds, "RadiusOfCircularShutter")
    if len(centre) != 2 or radius is None or radius < 2:
        return None
    row, column = np.arange(1, rows + 1) - centre[0], np.arange(1, columns + 1) - centre[1]
    # the radius counts pixels along a row; one pixel less, for viewers that count from 0
    return np.hypot((row * aspect)[:, None], column) < radius - 1


def _polygon(ds: Dataset, rows: int, columns: int) -> np.ndarray | None:
    numbers = values.numbers(ds, "VerticesOfThePolygonalShutter")
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    points = [(column - 1, row - 1) for row, column in zip(numbers[::2], numbers[1::2], strict=True)]
    drawn = Image.new("1", (columns, rows))
    ImageDraw.Draw(drawn).polygon(points, fill=1, outline=1)
    ImageDraw.Draw(drawn).line([*points, points[0]], fill=0, width=3)  # its edge counts as hidden
    return np.asarray(drawn)
