"""`explain`: which route, profile and outcome, and why, without patient data and without doing anything."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from gateway.config import load_config
from gateway.explain import explain


def data(name: str) -> str:
    return get_testdata_file(name, download=False)


def test_an_image_that_will_be_marked(run, sample: Path) -> None:
    done = run("explain", data("CT_small.dcm"), "--config", sample, "--json")
    assert done.code == 0, done.err
    (row,) = done.rows
    assert row["outcome"] == "marked"
    assert (row["route"], row["called_ae"], row["destinations"]) == ("research", "MIAD_RESEARCH", ["research-pacs"])
    assert (row["profile"], row["tier"], row["modality"], row["restoration"]) == ("ct", "notice", "CT", "escrow")
    assert (row["sop_class"], row["rows"], row["frames"], row["study_uid"]) == ("CT Image Storage", 128, 1, "keep")
    assert not (sample.parent / "state").exists()


def test_text_is_one_fact_a_line_and_holds_no_patient_data(run, sample: Path) -> None:
    done = run("explain", data("CT_small.dcm"), "--config", sample)
    facts = dict(line.split("  ", 1) for line in done.out.splitlines() if line)
    assert facts["outcome"].strip() == "marked"
    header = pydicom.dcmread(data("CT_small.dcm"))
    for value in (header.PatientName, header.PatientID, header.StudyDate, header.SOPInstanceUID):
        assert str(value) not in done.out + done.err


def test_a_report_is_remapped_and_what_never_leaves_is_said_to_be_blocked(run, sample: Path, tmp_path: Path) -> None:
    done = run("explain", data("reportsi.dcm"), "--config", sample, "--json")
    assert (done.code, done.rows[0]["outcome"], done.rows[0]["destinations"]) == (0, "remapped", ["research-pacs"])
    plan = pydicom.dcmread(data("rtplan.dcm"))
    plan.file_meta.MediaStorageSOPInstanceUID = plan.SOPInstanceUID
    plan.save_as(tmp_path / "plan.dcm")
    blocked = run("explain", tmp_path / "plan.dcm", "--config", sample, "--json")
    assert (blocked.code, blocked.rows[0]["outcome"], blocked.rows[0]["code"]) == (3, "blocked", "blocked-by-policy")


def test_rules_and_opt_ins_of_a_route_are_told(run, sample: Path) -> None:
    """A rule blocks CT on one route; a sentence in other words is an error that gives the right ones."""
    with sample.open("a") as file:
        file.write(
            '[[routes]]\nname = "no-ct"\ncalled_ae = "NO_CT"\ndestinations = ["research-pacs"]\n'
            '[[routes.rules]]\nmodality = "CT"\naction = "block"\n'
        )
    done = run("explain", data("CT_small.dcm"), "--config", sample, "--json")
    assert [(row["route"], row["outcome"], row["code"]) for row in done.rows] == [
        ("research", "marked", ""), ("no-ct", "blocked", "blocked-by-rule"),
    ]  # fmt: skip
    with sample.open("a") as file:
        file.write('[routes.opt_in]\nmammography = "yes, do"\n')
    wrong = run("explain", data("CT_small.dcm"), "--config", sample)
    assert wrong.code == 2
    assert "must not be interpreted" in wrong.err


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("MR_truncated.dcm", "held", "truncated"),
        ("rtplan.dcm", "blocked", "blocked-by-policy"),
    ],
)
def test_what_is_not_marked_is_code_3_with_the_reason(run, sample: Path, name: str, outcome: str, reason: str) -> None:
    done = run("explain", data(name), "--config", sample, "--json")
    assert done.code == 3
    assert [(row["outcome"], row["code"], bool(row["reason"])) for row in done.rows] == [(outcome, reason, True)]


def test_a_file_that_is_not_dicom_is_refused(run, sample: Path) -> None:
    done = run("explain", sample, "--config", sample, "--json")
    assert (done.code, done.rows[0]["outcome"], done.rows[0]["code"]) == (3, "refused", "not-dicom")


def test_every_route_has_its_own_answer_and_the_called_ae_chooses_one(run, sample: Path) -> None:
    with sample.open("a") as file:
        file.write('[[routes]]\nname = "wait"\ncalled_ae = "WAIT"\ndestinations = ["research-pacs"]\naction = "hold"\n')
    both = run("explain", data("CT_small.dcm"), "--config", sample, "--json")
    assert [(row["route"], row["outcome"], row["code"]) for row in both.rows] == [
        ("research", "marked", ""), ("wait", "held", "route-holds"),
    ]  # fmt: skip
    one = run("explain", data("CT_small.dcm"), "--config", sample, "--json", "--called-ae", "MIAD_RESEARCH")
    assert (one.code, [row["route"] for row in one.rows]) == (0, ["research"])
    none = run("explain", data("CT_small.dcm"), "--config", sample, "--json", "--called-ae", "NOBODY")
    assert (none.code, none.rows[0]["code"]) == (3, "no-route")


def test_visible_text_that_an_image_cannot_take_is_told(sample: Path, tmp_path: Path) -> None:
    """In this process: a CT that takes the words, and the same with functional groups."""
    called = 'called_ae = "MIAD_RESEARCH"'
    text = sample.read_text("utf-8").replace(called, f"{called}\nvisible_text = true")
    sample.write_text(text, "utf-8")
    config = load_config(sample)
    grouped = pydicom.dcmread(data("CT_small.dcm"))
    grouped.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    grouped.save_as(tmp_path / "grouped.dcm")
    found = [explain(config, file)[0] for file in (Path(data("CT_small.dcm")), tmp_path / "grouped.dcm")]
    assert [(one.outcome, one.code) for one in found] == [("marked", ""), ("held", "no-overlay-allowed")]


def test_what_rides_along_and_what_is_left_out_is_told(run, sample: Path) -> None:
    done = run("explain", data("CT_small.dcm"), "--config", sample, "--json")
    assert done.rows[0]["left_out"] == ["(0043,1029), 2068 bytes: a private value that is too large"]
    assert "at most 1024 bytes" in done.rows[0]["rides_along"]
    text = sample.read_text()
    sample.write_text(text.replace('name = "research"\n', 'name = "research"\nprivate_bulk = "hold"\n', 1))
    held = run("explain", data("CT_small.dcm"), "--config", sample, "--json")
    assert (held.code, held.rows[0]["outcome"], held.rows[0]["code"]) == (3, "held", "private-bulk")
    assert "(0043,1029)" in held.rows[0]["reason"]
    kept = text.replace('name = "research"\n', 'name = "research"\nprivate_keep = ["GEMS_PARM_01"]\n', 1)
    sample.write_text(kept)
    assert run("explain", data("CT_small.dcm"), "--config", sample, "--json").rows[0]["left_out"] == []


def test_what_is_irregular_is_told(run, sample: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.dcm"
    odd.write_bytes(
        Path(data("CT_small.dcm"))
        .read_bytes()
        .replace(b"\x08\0\x05\0CS\x0a\0ISO_IR 100", b"\x08\0\x05\0CS\x0a\0NONESUCH!!")
    )
    (row,) = run("explain", odd, "--config", sample, "--json").rows[:1]
    assert [note.split(":")[0] for note in row["notes"]] == ["unusable-character-set"]
    (row,) = run("explain", data("rtplan.dcm"), "--config", sample, "--json").rows[:1]
    assert "file-meta-differs" in " ".join(row["notes"])
    assert run("explain", data("CT_small.dcm"), "--config", sample, "--json").rows[0]["notes"] == []
