"""The dozen pictures that the demo brings: whose they are, that nobody learnt from them, and that they are DICOM."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from gateway.demo.images import PICTURES, open_pictures
from gateway.mark.evaluation.judge import load_judge
from gateway.training.demo_pictures import EACH, chosen, data_set, licence
from gateway.training.open_sets import OPEN_SETS, load_train, shared_folder
from tests.conftest import missing
from tests.support.dicom.readers import dciodvfy_errors, dcmtk_reads, missing_programs

NAMES = sorted(path.name for path in PICTURES.glob("*.dcm"))


def test_there_are_a_dozen_small_ones_each_with_a_uid_of_its_own() -> None:
    images = open_pictures()
    assert len(images) == len({image.sop_instance_uid for image in images}) == 12
    assert len({(image.study_uid, image.series_uid) for image in images}) == len(EACH)
    assert max(image.path.stat().st_size for image in images) < 50_000


def test_the_licence_stands_beside_them_and_names_each() -> None:
    text = (PICTURES / "LICENCE.md").read_text("utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in text] == []
    for task in EACH:
        assert OPEN_SETS[task].grade == "A"
        assert OPEN_SETS[task].original in text and OPEN_SETS[task].licence in text


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
def test_others_read_them_and_find_no_error(name: str) -> None:
    if missing_programs():
        missing(", ".join(missing_programs()))
    assert dcmtk_reads(PICTURES / name)
    assert dciodvfy_errors(PICTURES / name) == {}


@pytest.mark.full  # reads two whole sets
def test_they_are_what_the_command_makes_and_no_network_learnt_from_them(labelled_sets: Path) -> None:
    root = shared_folder(labelled_sets)
    pictures = chosen(root, load_judge(3))
    assert [one.name for one in pictures] == [image.path.name for image in open_pictures()]
    assert licence(pictures) == (PICTURES / "LICENCE.md").read_text("utf-8")
    learnt = {file for task in EACH for half in "AB" for file in load_train(root, task, half, "train", 8).files}
    assert learnt.isdisjoint(one.source_path for one in pictures)
    for one in pictures:
        file = pydicom.dcmread(PICTURES / one.name)
        (frame,) = generate_frames(file.PixelData, number_of_frames=1)
        assert frame.rstrip(b"\x00") == one.jpeg.rstrip(b"\x00"), one.name
        again = io.BytesIO()
        data_set(one).save_as(again, enforce_file_format=True)
        assert again.getvalue() == (PICTURES / one.name).read_bytes(), one.name
