"""What is shown decides where a mark lies: tables, shutters, blank frames and pages, from the header to the copy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import HoldError
from gateway.mark import MarkedImage, Marker, MarkSettings, load_profiles
from gateway.protect.large import mark_large
from gateway.protect.marking import (
    BLANK_DESCRIPTION,
    EMPTY_DESCRIPTION,
    FigureTally,
    Marked,
    Opened,
    described,
    marked_frames,
    open_original,
    requests_of,
)
from tests.protect.test_large import job_of
from tests.protect.test_marking import CT, KEY, ROUTE
from tests.support.dicom.samples import encode, facts, image
from tests.support.mark.samples import FAST, phantom, small_marker

PROFILES = load_profiles()
PICTURE = np.rint(phantom(96, 96) * 3000.0).astype(np.int16)


def opened_of(ds: pydicom.Dataset) -> Opened:
    data = encode(ds)
    return open_original(data, EXPLICIT_LITTLE)


def from_file(path: Path) -> Opened:
    with path.open("rb") as file:
        meta, offset = split_part10(file)
        file.seek(offset)
        data = file.read()
    syntax = meta.transfer_syntax_uid
    return open_original(data, syntax)


DISCREET = MarkSettings(tier="discreet", steps=0, device="cpu")


def results_of(opened: Opened, profile: str = "ct", marker: Marker | None = None) -> list[MarkedImage]:
    results = (marker or small_marker(FAST)).mark(requests_of(opened, PROFILES[profile], KEY), profile)
    assert all(isinstance(one, MarkedImage) for one in results), results
    return results


def copy_of(opened: Opened, results: list[MarkedImage]) -> tuple[pydicom.Dataset, FigureTally]:
    tally = FigureTally()
    tally.add(results)
    marked = Marked(
        opened.data,
        EXPLICIT_LITTLE,
        opened.pixels,
        marked_frames(opened, results),
        described(lambda record: facts(), tally),
        tally.figures(ROUTE, "ct"),
    )
    return pydicom.dcmread(io.BytesIO(marked.derive(None)[0]), force=True), tally


def test_a_blank_frame_stays_and_the_others_are_marked() -> None:
    opened = opened_of(image(np.stack([np.zeros_like(PICTURE), PICTURE, PICTURE + 5]), RescaleSlope=1))
    results = results_of(opened)
    ds, tally = copy_of(opened, results)
    changed = [bool(one.residual.any()) for one in results]
    assert changed == [False, True, True] and ds.DerivationDescription != BLANK_DESCRIPTION
    assert tally.figures(ROUTE, "ct").policy["blank frames"] == "1"


def test_an_instance_without_a_picture_goes_on_and_says_so(tmp_path: Path) -> None:
    blank = image(np.full((3, 64, 64), 40, np.int16))
    opened = opened_of(blank)
    ds, tally = copy_of(opened, results_of(opened))
    assert ds.DerivationDescription == BLANK_DESCRIPTION and tally.figures(ROUTE, "ct").policy["blank frames"] == "3"
    large = mark_large(job_of(encode(blank)), CT, KEY, small_marker(FAST), lambda record: facts(), tmp_path)
    pieces, _ = large.derive(None)
    assert pydicom.dcmread(io.BytesIO(b"".join(pieces)), force=True).DerivationDescription == BLANK_DESCRIPTION


def test_even_air_that_takes_no_invisible_change_goes_on_and_says_so() -> None:
    air = np.random.default_rng(5).integers(0, 4, (2, 96, 96)).astype(np.int16)
    opened = opened_of(image(air, RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=120))
    ds, tally = copy_of(opened, results_of(opened, marker=small_marker(DISCREET)))
    assert ds.DerivationDescription == EMPTY_DESCRIPTION and tally.figures(ROUTE, "ct").policy["empty frames"] == "2"


def test_a_picture_that_nothing_was_changed_in_is_still_held() -> None:
    opened = opened_of(image(np.stack([PICTURE, PICTURE])))
    blank = results_of(opened_of(image(np.full((1, 96, 96), 40, np.int16))))[0]
    one = MarkedImage(PICTURE, np.zeros(PICTURE.shape, np.int32), blank.strokes, blank.region, blank.roi, blank.quality)
    with pytest.raises(HoldError) as caught:
        marked_frames(opened, [one, one])
    assert caught.value.code == "self-check-failed"


def test_presets_count_where_the_header_rescales_alone() -> None:
    assert requests_of(opened_of(image(PICTURE[None])), CT, KEY)[0].display is None
    request = requests_of(opened_of(image(PICTURE[None], RescaleSlope=1, RescaleIntercept=-1024)), CT, KEY)[0]
    assert request.display == (864.0, 1264.0) and request.slope == 1.0


def test_large_objects_keep_each_frames_shutter(tmp_path: Path) -> None:
    shutter = {
        "ShutterShape": "RECTANGULAR",
        "ShutterLeftVerticalEdge": 20,
        "ShutterRightVerticalEdge": 90,
        "ShutterUpperHorizontalEdge": 10,
        "ShutterLowerHorizontalEdge": 90,
    }
    ds = image(np.stack([PICTURE] * 3), RescaleSlope=1, **shutter)
    large = mark_large(job_of(encode(ds)), CT, KEY, small_marker(FAST), lambda record: facts(), tmp_path)
    copy = pydicom.dcmread(io.BytesIO(b"".join(large.derive(None)[0])), force=True)
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    changed = (copy.pixel_array != ds.pixel_array) if hasattr(ds, "file_meta") else copy.pixel_array != PICTURE
    assert changed.any() and not changed[:, :10].any() and not changed[:, :, :20].any()


def table_shades(ds: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Return the display by the header's table, read with none of the product's code."""
    entries, first, bits = ds.VOILUTSequence[0].LUTDescriptor
    first = first - 65536 if first > 32767 else first
    data = np.frombuffer(ds.VOILUTSequence[0].LUTData, "<u2")
    output = stored * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    return data[np.clip(output.astype(int) - first, 0, entries - 1)] / float(2**bits - 1)


def test_inputs_from_the_field(field_inputs: Path) -> None:
    for name, profile in (
        ("voilut_steep", "cr-dx"),
        ("ct_voilut_negfirst_ele", "ct"),
        ("ct_voilut_negfirst_ile", "ct"),
    ):
        path = field_inputs / "voi-lut" / f"{name}.dcm"
        (result,), ds = results_of(from_file(path), profile), pydicom.dcmread(path)
        change = np.abs(table_shades(ds, result.image) - table_shades(ds, ds.pixel_array))
        counted = result.anatomy if result.air is not None and result.air.any() else np.ones_like(result.strokes)
        assert -10 * np.log10(np.mean(change[counted] ** 2)) >= 26.0, name
        assert (change[~result.strokes] <= 6.5 / 255.0).all() and (change[result.strokes] > 4 / 255).mean() > 0.3, name
    for name in ("shutter_rect", "shutter_circ"):
        opened = from_file(field_inputs / "shutter" / f"{name}.dcm")
        (result,) = results_of(opened, "cr-dx")
        row, column = np.mgrid[1:401, 1:401]
        box = (np.abs(row - 200.5) < 60) & (np.abs(column - 200.5) < 60)
        inside = box if name == "shutter_rect" else np.hypot(row - 200, column - 200) <= 70
        assert not result.residual[~inside].any() and (result.residual[inside] != 0).mean() > 0.15, name
        shades = [np.clip(one[inside] / 4095.0, 0, 1) for one in (opened.pixels.frames[0], result.image)]
        assert 25.9 <= -10 * np.log10(np.mean((shades[0] - shades[1]) ** 2)) < 30.0, name
    notes = {
        "empty-frame/us_blank_first": ("us", ["blank", "", "", ""]),
        "empty-frame/enhanced_mr_empty_frame": ("mr", ["no-anatomy", "", "", "", ""]),
        "empty-frame/s00": ("ct", ["no-anatomy"]),
        "display/dose_page_sc": ("ct", ["page"]),
    }
    for name, (profile, expected) in notes.items():
        opened = from_file(field_inputs / f"{name}.dcm")
        results = results_of(opened, profile)
        marked_frames(opened, results)
        assert [one.note for one in results] == expected, name
        assert all(bool(one.strokes.any()) == (one.note != "blank") for one in results), name
    text = opened.pixels.frames[0] > 30
    assert not results[0].residual[text].any()
    for settings in (MarkSettings(mode="paper", steps=0, population=6, generations=1, device="cpu"),):
        marker = Marker(settings, packs=[])
        assert results_of(from_file(field_inputs / "empty-frame" / "s00.dcm"), "ct", marker)[0].residual.any()
