"""From a header to what is seen: VOI tables, functions of windows, display shutters, the shape of pixels."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.shutter import aspects_of, hidden_of
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.dicom.pixels.windows import Display, Window
from tests.support.dicom.samples import encode, image

ENTRIES = (np.linspace(0.0, 1.0, 401) ** 2 * 4095).astype(int)


def with_table(first: int, vr: str = "SS", entries: np.ndarray = ENTRIES, bits: int = 12, **changes: object):
    table = pydicom.Dataset()
    table.add_new(0x00283002, vr, [len(entries), first, bits])
    table.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    ds = image(**({"RescaleIntercept": -1024, "RescaleSlope": 1, "Modality": "CT"} | changes))
    ds.VOILUTSequence = [table]
    return ds


def display_of(ds: pydicom.Dataset, syntax: str = EXPLICIT_LITTLE) -> Display:
    return decode_pixels(encode(ds, syntax), syntax).displays[0]


def shades_of(ds: pydicom.Dataset, syntax: str = EXPLICIT_LITTLE) -> np.ndarray:
    return display_of(ds, syntax).views(0, 4095)[0][1]


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
@pytest.mark.parametrize(("vr", "first"), [("SS", -160), ("US", 65376)])
def test_the_table_is_the_display_and_its_first_value_signed_in_ct(syntax: str, vr: str, first: int) -> None:
    shades = shades_of(with_table(first, vr), syntax)
    output = np.arange(4096) - 1024
    assert np.allclose(shades, ENTRIES[np.clip(output + 160, 0, 400)] / 4095.0)


def test_the_first_value_is_unsigned_where_nothing_can_be_negative() -> None:
    ds = with_table(40000, "US", Modality="CR", RescaleIntercept=38000, BitsStored=12)
    shades = shades_of(ds)
    assert shades[2000] == 0.0 and shades[2400] == 1.0 and 0.2 < shades[2200] < 0.3


def test_big_endian_entries_of_eight_bits_and_entries_that_need_more_than_was_said() -> None:
    assert shades_of(with_table(-160), EXPLICIT_LITTLE).max() == 1.0
    ds = with_table(-160, bits=8)
    assert shades_of(ds).max() == 1.0  # 12 bits, although 8 were told
    packed = with_table(-160, bits=8)
    packed.VOILUTSequence[0].add_new(0x00283006, "OW", (ENTRIES // 16).astype(np.uint8).tobytes() + b"\0")
    assert np.allclose(shades_of(packed), shades_of(ds), atol=0.01)
    big = with_table(-160)
    big.VOILUTSequence[0].add_new(0x00283006, "OW", ENTRIES.astype(">u2").tobytes())
    assert np.allclose(shades_of(big, EXPLICIT_BIG), shades_of(with_table(-160)))


@pytest.mark.parametrize("missing", [200, 401])
def test_a_table_without_all_its_entries_or_of_one_shade_is_none(missing: int) -> None:
    ds = with_table(-160)
    ds.VOILUTSequence[0].add_new(0x00283006, "OW", ENTRIES[: 401 - missing].astype("<u2").tobytes() or b"\0\0")
    assert display_of(ds).tables == ()
    assert display_of(with_table(-160, entries=np.full(401, 7))).tables == ()


def test_table_before_windows_and_each_by_its_function() -> None:
    views = display_of(with_table(-160, WindowCenter=[40, 50], WindowWidth=[400, 80])).views(0, 4095)
    assert [name for name, _ in views] == ["table 1", "header 1", "header 2"]
    assert views[1][1] == (864.0, 1263.0)
    exact = display_of(image(WindowCenter=1000, WindowWidth=100, VOILUTFunction="LINEAR_EXACT", RescaleSlope=2))
    assert exact.views(0, 4095) == [("header 1", (475.0, 525.0))]
    curve = display_of(image(WindowCenter=1000, WindowWidth=100, VOILUTFunction="SIGMOID")).views(0, 4095)[0][1]
    assert curve[1000] == pytest.approx(0.5) and curve[1050] == pytest.approx(1 / (1 + np.exp(-2)))
    assert Window(0, 100, "LINEAR_EXACT").shades(np.array([-60.0, 25.0])).tolist() == [0.0, 0.75]


def test_a_falling_rescale_and_inverse_shapes_turn_the_picture_over() -> None:
    ds = with_table(-160, RescaleSlope=-1, RescaleIntercept=1024)
    shades = shades_of(ds)  # before the turn that slope < 0 makes
    assert np.allclose(1.0 - shades, ENTRIES[np.clip(1024 - np.arange(4096) + 160, 0, 400)] / 4095.0)
    for changes in ({"PresentationLUTShape": "INVERSE"}, {"PhotometricInterpretation": "MONOCHROME1"}):
        assert display_of(with_table(-160, **changes)).inverted


def header_of(**changes: object) -> pydicom.Dataset:
    data = encode(image(np.zeros((1, 40, 60), np.uint16), **changes))
    return read_header(io.BytesIO(data), EXPLICIT_LITTLE).dataset


RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": 11,
    "ShutterRightVerticalEdge": 30,
    "ShutterUpperHorizontalEdge": 6,
    "ShutterLowerHorizontalEdge": 25,
}


def seen(**changes: object) -> np.ndarray:
    (hidden,) = hidden_of(header_of(**changes), 1, 40, 60)
    return np.ones((40, 60), bool) if hidden is None else ~hidden


def test_rectangle_circle_polygon_and_all_at_once() -> None:
    box = seen(**RECTANGLE)
    rows, columns = np.nonzero(box)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 23, 11, 28) and box.sum() == 18 * 18
    circle = {"CenterOfCircularShutter": [20, 30], "RadiusOfCircularShutter": 10}
    disc = seen(ShutterShape="CIRCULAR", **circle)
    assert 0.75 * 314 < disc.sum() < 314 and disc[19, 29] and not disc[19, 40]
    oval = seen(ShutterShape="CIRCULAR", PixelSpacing=[2.0, 1.0], **circle)
    assert oval.any(axis=1).sum() == pytest.approx(disc.any(axis=1).sum() / 2, abs=1)
    triangle = seen(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[5, 5, 5, 50, 35, 5])
    assert triangle[8, 8] and not triangle[33, 40] and 0.7 * 675 < triangle.sum() < 675
    both = seen(**{**RECTANGLE, **circle, "ShutterShape": ["RECTANGULAR", "CIRCULAR"]})
    assert np.array_equal(both, box & disc)


@pytest.mark.parametrize(
    "changes",
    [
        {"ShutterShape": "RECTANGULAR"},
        {**RECTANGLE, "ShutterRightVerticalEdge": 3},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [900, 900], "RadiusOfCircularShutter": 10},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 5]},
        {"ShutterShape": "BITMAP"},
        {},
    ],
    ids=["no edges", "crossed", "beyond", "odd", "bitmap", "none"],
)
def test_a_shutter_that_leaves_nothing_or_cannot_be_read_is_none(changes: dict) -> None:
    assert seen(**changes).all()


def test_a_frames_own_shutter_and_measures() -> None:
    ds = header_of(**RECTANGLE)
    own, measures, item = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    for name, value in ({**RECTANGLE, "ShutterLeftVerticalEdge": 21}).items():
        setattr(own, name, value)
    measures.PixelSpacing = [3.0, 1.0]
    item.FrameDisplayShutterSequence, item.PixelMeasuresSequence = [own], [measures]
    ds.PerFrameFunctionalGroupsSequence = [item, pydicom.Dataset()]
    ds.NumberOfFrames = 2
    first, second = hidden_of(ds, 2, 40, 60)
    assert (~first).sum() == 8 * 18 and (~second).sum() == 18 * 18
    assert aspects_of(ds, 2) == [3.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"PixelAspectRatio": [5, 1]}, 5.0),
        ({"PixelSpacing": [0.9, 0.9], "PixelAspectRatio": [5, 1]}, 1.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelSpacing": [0.9001, 0.9]}, 1.0),
        ({"PixelAspectRatio": [0, 1]}, 1.0),
        ({"PixelAspectRatio": [900, 1]}, 1.0),
        ({}, 1.0),
    ],
)
def test_pixels_shape(changes: dict, aspect: float) -> None:
    assert aspects_of(header_of(**changes), 1) == [aspect]
