"""`report`: a study's protection report as a file, whatever way its images were marked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gateway.config import load_config
from gateway.config.models import Mark
from gateway.files.inputs import Inputs
from gateway.files.protect import protect_files


@pytest.fixture(params=["keep", "new"])
def study(sample: Path, tmp_path: Path, request) -> str:
    """The study of the copy of one CT slice that was protected as a file, on a route with either study UID."""
    source = tmp_path / "ct.dcm"
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), source)
    config = load_config(sample)
    route = config.routes[0].model_copy(update={"mark": Mark(steps=0), "study_uid": request.param})
    with Inputs([source], 64 << 20) as inputs:
        [result] = protect_files(config, inputs, tmp_path / "out", route)
    assert result.outcome == "marked"
    study = str(dcmread(result.output).StudyInstanceUID)
    assert (study == dcmread(source).StudyInstanceUID) == (request.param == "keep")
    return study


def test_it_writes_a_report_once_and_overwrites_nothing(run, sample: Path, study: str, tmp_path: Path) -> None:
    file = tmp_path / "report.dcm"
    done = run("report", study, "--out", file, "--config", sample)
    assert done.code == 0, done.err
    report = dcmread(file)
    assert (report.SOPClassUID.keyword, report.StudyInstanceUID) == ("ComprehensiveSRStorage", study)
    [copy] = (tmp_path / "out").rglob("*.dcm")
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dcmread(copy).SOPInstanceUID
    assert file.stat().st_mode & 0o077 == 0
    before = file.read_bytes()
    again = run("report", study, "--out", file, "--config", sample)
    assert (again.code, file.read_bytes()) == (1, before)
    assert "cannot-write" in again.err


def test_the_study_of_the_originals_names_it_as_well(run, sample: Path, study: str, tmp_path: Path) -> None:
    done = run("report", dcmread(tmp_path / "ct.dcm").StudyInstanceUID, "--out", tmp_path / "r.dcm", "--config", sample)
    assert done.code == 0, done.err
    assert dcmread(tmp_path / "r.dcm").StudyInstanceUID == study


def test_a_study_of_which_nothing_was_marked_has_none(run, sample: Path, tmp_path: Path) -> None:
    done = run("report", "1.2.3", "--out", tmp_path / "report.dcm", "--config", sample)
    assert done.code == 2
    assert "no-such-study" in done.err
    assert not (tmp_path / "report.dcm").exists()
