"""The made objects are what the standard says, as far as dciodvfy knows it; their copies are no worse."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

from gateway.dicom.encoding.part10 import write_part10
from tests.conftest import missing
from tests.iods.collection import Made
from tests.iods.expected import EXPECTED, named
from tests.iods.passage import Passage
from tests.support.dicom.readers import dciodvfy_errors, missing_programs

UNKNOWN = "Error - Information Object Not found"
UNSEEN = "ReferencedSeriesSequence present but Instance does not reference Instances"
_HTJ2K = "this edition of dciodvfy takes the transfer syntax for a native one and stops at the pixel data"
# Errors that stay: pattern of names, part of the line, and why.
KNOWN = (
    ("sr-*", UNKNOWN, "this edition of dciodvfy does not know the class"),
    ("pr-*", UNKNOWN, "this edition of dciodvfy does not know the class"),
    ("us*retired", UNKNOWN, "this edition of dciodvfy does not know the retired class"),
    ("content-assessment", UNKNOWN, "this edition of dciodvfy does not know the class"),
    ("label-map", UNKNOWN, "this edition of dciodvfy does not know the class"),
    ("legacy-*", UNSEEN, "the references stand in Conversion Source Attributes, where dciodvfy does not look"),
    ("pr-advanced-blending", UNSEEN, "the references stand in Advanced Blending, where dciodvfy does not look"),
    ("stereometric", UNSEEN, "the references stand in Stereo Pairs, where dciodvfy does not look"),
    ("structured-display", UNSEEN, "the references stand in image boxes, where dciodvfy does not look"),
    ("bulk-annotations", "attribute <CommonZCoordinateValue> = <>", "it is not there at all, as its condition wants"),
    ("breast-projection-*", "<0.0> for value 1 of attribute <Field of View Rotation>", "0 is written, and allowed"),
    ("spectroscopy", "VolumeLocalizationSequence", "a DERIVED instance may not have the technique that rules it out"),
    ("ophthalmic-tomography", "oncatenation", "C.8.17.7 requires what dciodvfy allows in a concatenation only"),
    ("htj2k", "Undefined value length", _HTJ2K),
    ("htj2k", "Dicom dataset read failed", _HTJ2K),
    ("htj2k", "Missing attribute Type 1C Conditional Element=<PixelData>", _HTJ2K),
    ("label-map", "SegmentNumber not monotonically", "a label map may have a segment 0, the background (C.8.20.2)"),
)


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    if missing_programs():
        missing("dciodvfy")


def unexplained(one: Made, folder: Path) -> list[str]:
    """Error lines that no entry of KNOWN explains."""
    return [line for line in errors(one.data, one, folder) if not _known(one.name, line)]


def _known(name: str, line: str) -> bool:
    return any(fnmatch(name, pattern) and part in line for pattern, part, _ in KNOWN)


def errors(data: bytes, one: Made, folder: Path, uid: str = "", syntax: str = "") -> Counter[str]:
    """Dciodvfy's error lines of a data set."""
    path = folder / f"{one.name}-{len(uid)}.dcm"
    with path.open("wb") as file:
        write_part10(
            file, str(one.ds.SOPClassUID), uid or str(one.ds.SOPInstanceUID), syntax or one.transfer_syntax_uid, [data]
        )
    return dciodvfy_errors(path)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_error_but_the_known_ones(name, made, tmp_path):
    assert unexplained(made[name], tmp_path) == []


def test_no_known_error_is_listed_in_vain(made, tmp_path):
    for pattern, part, _reason in KNOWN:
        fitting = [name for name in made if fnmatch(name, pattern)]
        assert any(part in line for name in fitting for line in errors(made[name].data, made[name], tmp_path)), pattern


@pytest.mark.parametrize("name", [*named("mark"), *named("remap")])
def test_the_copy_has_no_error_that_the_original_has_not(name, made, passage: Passage, tmp_path):
    one, passed = made[name], passage.through(made[name])
    after = errors(passed.copy, one, tmp_path, passed.item.sop_instance_uid, passed.item.transfer_syntax_uid)
    assert not after - errors(one.data, one, tmp_path)
