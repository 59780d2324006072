"""DICOMDIR and zip archives through `protect` and `restore`, and what is wrong with some of them."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from gateway.dicom.encoding.directory import is_directory, read_directory
from gateway.dicom.encoding.part10 import split_part10
from gateway.errors import ConfigError, DicomError
from gateway.files import archive
from gateway.files.archive import Archive
from gateway.files.inputs import Inputs
from gateway.files.protect import BATCH, protect_files
from tests.files.conftest import LIMIT, protect, real, restore


def data_set(file: Path) -> bytes:
    with file.open("rb") as stream:
        split_part10(stream)
        return stream.read()


def codes(results) -> dict[str, str]:
    return {result.member or result.path.name: result.reason_code or result.outcome for result in results}


def problem_of(found) -> str:
    with pytest.raises(DicomError) as caught, found.open():
        pass
    return caught.value.code


# --- DICOMDIR


def test_the_files_of_a_dicomdir_go_out_marked_and_come_back_bit_for_bit(site, medium: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in medium.parent.rglob("*") if path.is_file()}
    marked = protect(site, medium, out=tmp_path / "out")
    assert [result.outcome for result in marked] == ["marked", "marked"]
    for result in marked:
        assert result.output == tmp_path / "out" / f"{result.sop_instance_uid}.dcm"
        assert pydicom.dcmread(result.output).SOPInstanceUID == result.sop_instance_uid
    back = restore(site, tmp_path / "out", out=tmp_path / "back")
    assert [result.outcome for result in back] == ["restored", "restored"]
    originals = {data_set(path) for path in before if path != medium}
    assert {data_set(result.output) for result in back} == originals
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_with_a_dicomdir_gives_each_file_once_and_what_is_missing(medium: Path) -> None:
    gone = next(path for path in sorted(medium.parent.rglob("*")) if path.is_file() and path != medium)
    with Inputs([medium.parent], LIMIT) as inputs:
        assert len(inputs.found) == 2
    gone.unlink()
    for given in (medium.parent, medium):
        with Inputs([given], LIMIT) as inputs:
            kept = [found for found in inputs.found if not found.member]
            (missing,) = [found for found in inputs.found if found.member]
        assert (len(kept), missing.member, problem_of(missing)) == (
            1,
            str(gone.relative_to(medium.parent)),
            "file-missing",
        )


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "DICOMDIR-nooffset"])
def test_directories_of_real_writers_are_read(name: str) -> None:
    path = Path(get_testdata_file("CT_small.dcm", download=False)).parent / "dicomdirtests" / name
    with path.open("rb") as stream:
        assert is_directory(stream)
        entries = read_directory(stream)
    records = pydicom.dcmread(path).DirectoryRecordSequence
    named = ["/".join(record.ReferencedFileID) for record in records if "ReferencedFileID" in record]
    assert [str(entry.file) for entry in entries] == named and len(named) > 10


@pytest.mark.parametrize(
    "file_id",
    [
        ["..", "secret.dcm"],
        ["A", "..", "..", "secret.dcm"],
        ["/etc/passwd"],
        ["C:", "secret.dcm"],
        ["A/../../secret.dcm"],
        [".", "secret.dcm"],
        ["A"] * 9,
        ["A", "", "B"],
        ["A\x00B"],
        "",
    ],
)
def test_a_file_id_never_leads_out_of_its_folder(site, medium: Path, tmp_path: Path, file_id) -> None:
    shutil.copy(real("CT_small.dcm"), tmp_path / "secret.dcm")
    ds = pydicom.dcmread(medium)
    record = next(record for record in ds.DirectoryRecordSequence if "ReferencedFileID" in record)
    record.ReferencedFileID = file_id
    ds.save_as(medium)
    with Inputs([medium], LIMIT) as inputs:
        assert len(inputs.found) == 2
        bad = [found for found in inputs.found if found.member.startswith("record ")]
        assert [problem_of(found) for found in bad] == ["bad-file-id"]
        assert all(found.path.is_relative_to(medium.parent) for found in inputs.found)


def test_a_link_that_leads_out_of_the_medium_is_not_followed(medium: Path, tmp_path: Path) -> None:
    shutil.copy(real("CT_small.dcm"), tmp_path / "secret.dcm")
    named = next(path for path in sorted(medium.parent.rglob("*")) if path.is_file() and path != medium)
    named.unlink()
    os.symlink(tmp_path / "secret.dcm", named)
    with Inputs([medium], LIMIT) as inputs:
        assert sorted(found.member.startswith("record ") for found in inputs.found) == [False, True]


def test_a_record_out_of_use_is_left_out_and_lower_case_names_are_found(medium: Path) -> None:
    ds = pydicom.dcmread(medium)
    records = [record for record in ds.DirectoryRecordSequence if "ReferencedFileID" in record]
    records[0].RecordInUseFlag = 0
    ds.save_as(medium)
    wanted = medium.parent / Path(*records[1].ReferencedFileID)
    lower = medium.parent / str(wanted.relative_to(medium.parent)).lower()
    lower.parent.mkdir(parents=True, exist_ok=True)
    wanted.rename(lower)
    with Inputs([medium], LIMIT) as inputs:
        assert [found.path for found in inputs.found] == [lower]


def test_a_damaged_dicomdir_is_one_refusal(site, medium: Path, tmp_path: Path) -> None:
    medium.write_bytes(medium.read_bytes()[:700])
    (result,) = protect(site, medium, out=tmp_path / "out")
    assert (result.outcome, result.reason_code) == ("refused", "truncated")


# --- zip


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def test_the_members_of_an_archive_go_out_marked_under_no_name_of_theirs(site, tmp_path: Path) -> None:
    ct, mr = real("CT_small.dcm").read_bytes(), real("MR_small.dcm").read_bytes()
    members = {"DOE_JANE/ct.dcm": ct, "../../DOE.dcm": mr, "DOE_JANE/report.txt": b"no image"}
    path = packed(tmp_path / "export.zip", members)
    before = path.read_bytes()
    results = protect(site, path, out=tmp_path / "out")
    assert codes(results) == {
        "DOE_JANE/ct.dcm": "marked",
        "../../DOE.dcm": "marked",
        "DOE_JANE/report.txt": "not-dicom",
    }
    outputs = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.stem for path in outputs) == sorted(r.sop_instance_uid for r in results if r.outcome == "marked")
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob("*DOE*"))
    again = packed(tmp_path / "marked.zip", {path.name: path.read_bytes() for path in outputs})
    back = restore(site, again, out=tmp_path / "back")
    assert {data_set(result.output) for result in back} == {
        data_set(real("CT_small.dcm")),
        data_set(real("MR_small.dcm")),
    }


def test_a_dicomdir_inside_an_archive_tells_what_is_missing(medium: Path, tmp_path: Path) -> None:
    files = {
        str(path.relative_to(medium.parent)): path.read_bytes() for path in medium.parent.rglob("*") if path.is_file()
    }
    gone = next(name for name in files if name != "DICOMDIR")
    del files[gone]
    path = packed(tmp_path / "medium.zip", {f"disc/{name}": data for name, data in files.items()})
    with Inputs([path], LIMIT) as inputs:
        readable = [found.member for found in inputs.found if found.member != f"disc/{gone}"]
        (missing,) = [found for found in inputs.found if found.member == f"disc/{gone}"]
        assert problem_of(missing) == "file-missing"
    assert readable == [f"disc/{name}" for name in files if name != "DICOMDIR"]


def test_encrypted_and_damaged_members_are_told_one_by_one(site, tmp_path: Path) -> None:
    ct = real("CT_small.dcm").read_bytes()
    path = packed(tmp_path / "export.zip", {"good": ct, "encrypted": ct, "damaged": ct, "method": ct, "crc": ct})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        infos = {info.filename: info for info in opened.infolist()}
    directory = {name: data.rindex(name.encode()) - 46 for name in infos}  # heads in the archive's directory
    data[directory["encrypted"] + 8] |= 1
    struct.pack_into("<H", data, directory["method"] + 10, zipfile.ZIP_LZMA)
    struct.pack_into("<I", data, directory["crc"] + 16, 1)
    start = infos["damaged"].header_offset + 200
    data[start : start + 64] = bytes(64)
    path.write_bytes(data)
    results = codes(protect(site, path, out=tmp_path / "out"))
    assert results["damaged"] in ("damaged-member", "not-dicom", "truncated")
    assert results == {
        "good": "marked",
        "encrypted": "encrypted-member",
        "damaged": results["damaged"],
        "method": "unsupported-compression",
        "crc": "damaged-member",
    }


def test_a_member_without_a_name_is_a_member(site, tmp_path: Path) -> None:
    """Found by tests.fuzz: `ZipInfo.is_dir` looks at the last letter of a name that has none."""
    path = packed(tmp_path / "export.zip", {"x": real("CT_small.dcm").read_bytes()})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, at + 28, 0)
    del data[at + 46]
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, 46)
    struct.pack_into("<H", data, 26, 0)
    struct.pack_into("<H", data, 28, 1)
    path.write_bytes(data)
    (result,) = protect(site, path, out=tmp_path / "out")
    assert result.outcome == "marked", result


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\x1b[31mb", "a?[31mb"), ("a\u202egpj.b", "a?gpj.b"), ("a\xad\u200bb", "a??b"), ("b\xfccher", "b\xfccher")],
    ids=["escape", "right to left", "invisible", "umlaut"],
)
def test_a_members_name_is_fit_for_a_terminal(tmp_path: Path, name: str, shown: str) -> None:
    path = packed(tmp_path / "export.zip", {name: b"x"})
    with Inputs([path], LIMIT) as inputs:
        assert [found.member for found in inputs.found] == [shown]


def test_bombs_are_refused_before_they_are_inflated(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archive, "RATIO_FROM", 1 << 20)
    path = packed(tmp_path / "bomb.zip", {"bomb": bytes(8 << 20)})
    with pytest.raises(DicomError) as caught:
        Archive(path, LIMIT)
    assert caught.value.code == "archive-ratio"
    noise = os.urandom(1 << 20)
    path = packed(tmp_path / "part.zip", {"noise": noise, "bomb": bytes(8 << 20), "large": bytes(2 << 10)})
    with Archive(path, LIMIT) as opened:
        members = {member.filename: member for member in opened.members()}
        with pytest.raises(DicomError) as caught:
            opened.open(members["bomb"])
        assert caught.value.code == "archive-ratio"
        assert opened.open(members["noise"]).read() == noise
    with Archive(path, 1 << 10) as opened, pytest.raises(DicomError) as caught:
        opened.open(members["large"])
    assert caught.value.code == "member-too-large"


def test_a_huge_directory_and_a_lying_one_are_refused(site, tmp_path: Path, monkeypatch) -> None:
    path = packed(tmp_path / "many.zip", {f"{number}": b"x" for number in range(50)})
    cut = tmp_path / "cut.zip"
    cut.write_bytes(path.read_bytes()[:-30])
    assert codes(protect(site, cut, out=tmp_path / "out")) == {"cut.zip": "not-an-archive"}
    monkeypatch.setattr(archive, "MAX_MEMBERS", 49)
    (result,) = protect(site, path, out=tmp_path / "out")
    assert (result.outcome, result.reason_code) == ("refused", "too-many-members")
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 1000)
    assert codes(protect(site, path, out=tmp_path / "out")) == {"many.zip": "archive-directory-too-large"}


def test_a_dicom_file_whose_preamble_looks_like_an_archive_is_a_dicom_file(site, tmp_path: Path) -> None:
    file = tmp_path / "both.dcm"
    file.write_bytes(b"PK\x03\x04" + real("CT_small.dcm").read_bytes()[4:])
    (result,) = protect(site, file, out=tmp_path / "out")
    assert (result.outcome, result.output) == ("marked", tmp_path / "out" / "both.dcm")


# --- output


def test_the_flow_keeps_no_more_than_a_batch(site, tmp_path: Path) -> None:
    ct, report = real("CT_small.dcm").read_bytes(), real("reportsi.dcm").read_bytes()
    path = packed(tmp_path / "export.zip", {f"{number}": report if number % 6 else ct for number in range(24)})
    state = site.site.state
    with Inputs([path], LIMIT) as inputs:
        outcomes = []
        for result in protect_files(site, inputs, tmp_path / "out"):
            kept = [file for file in state.glob("files-*/*/*") if file.is_file()]
            assert len(kept) <= 2 * BATCH
            outcomes.append(result.outcome)
        assert sorted(outcomes) == ["marked"] * 4 + ["remapped"] * 20
    assert not list(state.glob("files-*"))


def test_one_name_never_overwrites_another(site, folder: Path, tmp_path: Path) -> None:
    files = [folder / "one" / "image.dcm", folder / "two" / "image.dcm"]
    results = protect(site, *files, out=tmp_path / "out")
    assert [result.output.name for result in results] == ["image.dcm", "image-2.dcm"]
    assert len({result.output.read_bytes() for result in results}) == 2
    again = protect(site, *reversed(files), out=tmp_path / "out")
    assert [result.output.name for result in again] == ["image-2.dcm", "image.dcm"]  # the same bytes: already there
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["image-2.dcm", "image.dcm"]


def test_output_among_the_originals_is_refused(site, folder: Path, medium: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder / "one")
    for given, out in (
        (folder, folder),
        (folder, folder / "out"),
        (folder, tmp_path),
        (folder, link),
        (folder / "one" / "image.dcm", folder / "one"),
        (folder / "one" / "image.dcm", link),
        (medium, medium.parent / "out"),
    ):
        before = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
        for run in (protect, restore):
            with pytest.raises(ConfigError) as caught:
                run(site, given, out=out)
            assert caught.value.code == "output-among-originals"
        assert {path for path in tmp_path.rglob("*") if "state" not in path.parts} == before
