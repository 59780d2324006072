"""`simulate`: what rules would make of files and of tags, and where the rule stands; nothing is kept, nobody named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

RULES = """
[[routes.rules]]
modality = "MR"
body_part = ["BRAIN"]
action = "hold"
[[routes.rules]]
calling_ae = ["TEST*"]
action = "block"
[[routes.rules]]
when = ["sat,sun 00:00-24:00"]
time_zone = "UTC"
action = "hold"
"""


@pytest.fixture
def ruled(sample: Path) -> Path:
    """The sample with a second route, which has rules."""
    route = '[[routes]]\nname = "ruled"\ncalled_ae = "RULED"\ndestinations = ["research-pacs"]\n'
    sample.write_text(f"{sample.read_text()}\n{route}{RULES}")
    return sample


def test_of_a_folder_each_object_on_each_route(run, ruled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder)
    (folder / "note.txt").write_text("no DICOM")
    arguments = ("simulate", folder, "--config", ruled, "--at", "2026-11-30T12:00+00:00")
    done = run(*arguments, "--json")
    assert done.code == 3, done.err
    marked, also, refused = done.rows
    assert (marked["route"], marked["outcome"], marked["decided_by"]) == ("research", "marked", "the policy table")
    assert (also["route"], also["outcome"], also["profile"]) == ("ruled", "marked", "ct")
    assert also["rules"] == ["rule 1 no: modality, body_part", "rule 2 no: calling_ae", "rule 3 no: when"]
    assert (refused["outcome"], refused["code"]) == ("refused", "not-dicom")
    done = run(*arguments, "--calling-ae", "TESTER", "--called-ae", "RULED")
    line = 1 + ruled.read_text()[: ruled.read_text().index('calling_ae = ["TEST')].count("\n")
    assert "blocked" in done.out and f"rule 2 (gateway.toml:{line - 1})" in done.out
    assert "CompressedSamples" not in done.out + done.err  # its patient
    assert not (ruled.parent / "state").exists()


def test_of_tags(run, ruled: Path) -> None:
    brain = ("--tag", "Modality=MR", "--tag", "0018,0015=BRAIN", "--tag", "SOPClassUID=1.2.840.10008.5.1.4.1.1.4")
    common = ("simulate", "--called-ae", "RULED", "--config", ruled, "--json")
    done = run(*common, *brain, "--at", "2026-11-30T12:00+00:00")
    assert (done.code, done.rows[0]["outcome"], done.rows[0]["rules"]) == (3, "held", ["rule 1 fits: hold"])
    done = run(*common, "--tag", "Modality=CT", "--at", "2026-11-28T12:00+00:00")
    assert (done.rows[0]["code"], done.rows[0]["rules"][-1]) == ("rule-holds", "rule 3 fits: hold")
    done = run(*common, "--tag", "Modality=CT", "--at", "2026-11-30T12:00+00:00")
    assert (done.code, done.rows[0]["outcome"]) == (0, "marked")
    for wrong in ("Modalit=CT", "Modality", "Rows=many", "PixelData=1"):
        done = run(*common, "--tag", wrong)
        assert done.code == 2 and "bad-tag" in done.err, wrong
    assert run(*common).code == 2 and run(*common, "--tag", "Modality=CT", "--at", "noon").code == 2


def test_a_rule_that_could_never_fit_keeps_from_starting(run, ruled: Path) -> None:
    text = ruled.read_text()
    tag = 'tags = [{ tag = "StationNam", like = "CT*" }]'
    ruled.write_text(text.replace('calling_ae = ["TEST*"]', tag))
    done = run("config", "check", "--config", ruled)
    assert done.code == 2 and "routes[1].rules[1].tags[0].tag: StationNam is no keyword" in done.err + done.out
