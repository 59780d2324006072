"""What is irregular in a file and does not stand in the way is noted, in the result and in the audit."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from gateway.dicom.encoding import encoded
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.parts import split
from gateway.flow.steps import Steps
from gateway.service import places
from tests.files.conftest import protect, real, restore
from tests.support.flow import configuration


def body(path: Path) -> bytes:
    with path.open("rb") as stream:
        split_part10(stream)
        return stream.read()


def with_meta(path: Path, sop_class: str, sop_instance: str) -> Path:
    """A real CT under the File Meta of another object."""
    with path.open("wb") as out:
        write_part10(out, sop_class, sop_instance, "1.2.840.10008.1.2.1", [body(real("CT_small.dcm"))])
    return path


def audited(site) -> list[dict]:
    lines = [line for file in places(site).audit("files").parent.glob("*") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines if '"instance-noted"' in line]


OWN = pydicom.dcmread(real("CT_small.dcm"), stop_before_pixels=True)
OTHERS = {
    "class": ("1.2.840.10008.5.1.4.1.1.4", OWN.SOPInstanceUID),
    "instance": (OWN.SOPClassUID, "1.2.3.4.5"),
    "both": ("1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.5"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_uids_of_the_data_set_count(site, tmp_path, name):
    file = with_meta(tmp_path / "file.dcm", *OTHERS[name])
    (result,) = protect(site, file, out=tmp_path / "out")
    assert (result.outcome, result.notes) == ("marked", ("file-meta-differs",))
    (back,) = restore(site, result.output, out=tmp_path / "back")
    assert (back.outcome, back.sop_instance_uid) == ("restored", OWN.SOPInstanceUID)
    assert body(back.output) == body(file)


def test_a_note_of_the_header_is_audited_without_its_value(site, tmp_path):
    file = tmp_path / "file.dcm"
    whole = real("CT_small.dcm").read_bytes()
    assert whole.count(b"ISO_IR 100") == 1
    file.write_bytes(whole.replace(b"ISO_IR 100", b"SECRET SET"))
    (result,) = protect(site, file, out=tmp_path / "out")
    assert (result.outcome, result.notes) == ("marked", ("unusable-character-set",))
    (line,) = audited(site)
    assert line["notes"] == ["unusable-character-set"] and "SECRET" not in json.dumps(line)


def test_field_files_of_another_file_meta_and_one_tag_twice(field_inputs, tmp_path, keys):
    site = configuration(tmp_path / "state", keys)
    (result,) = protect(site, field_inputs / "file-meta" / "class-differs.dcm", out=tmp_path / "out")
    assert result.outcome != "refused" and "file-meta-differs" in result.notes
    held = protect(site, field_inputs / "duplicates", out=tmp_path / "out")
    assert [(one.outcome, one.reason_code) for one in held] == [("held", "duplicate-element")] * 3


def test_each_step_walks_a_received_header_once(site, tmp_path, monkeypatch):
    received = split(body(real("CT_small.dcm")), "1.2.840.10008.1.2.1").header_bytes
    walked, steps = [], {}
    original = encoded.normal_form

    def walk(header, *rest):
        walked.append(header == received)
        return original(header, *rest)

    def counted(name):
        run = getattr(Steps, name)

        def step(self, *given):
            walked.clear()
            result = run(self, *given)
            steps[name] = sum(walked)
            return result

        return step

    monkeypatch.setattr(encoded, "normal_form", walk)
    for name in ("seal", "mark"):
        monkeypatch.setattr(Steps, name, counted(name))
    (result,) = protect(site, real("CT_small.dcm"), out=tmp_path / "out")
    assert (result.outcome, steps) == ("marked", {"seal": 1, "mark": 1})
