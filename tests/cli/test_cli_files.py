"""`protect` and `restore`: files, folders and archives in, DICOM files out, one JSON line a file, stable exit codes."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import pydicom
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydicom.data import get_testdata_file

from gateway.config import load_config
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from tests.support.copies import Gateway

KEYS = {"path", "outcome", "output", "sop_instance_uid", "reason_code", "reason"}


def data_set(file: Path) -> str:
    """SHA-256 of the bytes behind the File Meta: what must come back bit for bit."""
    with file.open("rb") as stream:
        _, offset = split_part10(stream)
        stream.seek(offset)
        return hashlib.sha256(stream.read()).hexdigest()


def private_pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def quick(sample: Path) -> Path:
    """The sample with the fast mark that tests of the plumbing use."""
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    return sample


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with an image, a report that refers to images, a PET image that is held, and a text file."""
    folder = tmp_path / "study"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "deep" / "ct.dcm")
    shutil.copy(get_testdata_file("reportsi.dcm", download=False), folder / "report.dcm")
    pet = pydicom.dcmread(folder / "deep" / "ct.dcm")
    pet.Modality = "PT"
    pet.save_as(folder / "pet.dcm")
    (folder / "note.txt").write_text("no DICOM")
    return folder


def test_a_folder_goes_out_marked_and_its_image_comes_back_bit_for_bit(run, quick, study, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}

    done = run("protect", study, "--out", tmp_path / "out", "--config", quick, "--json")

    assert done.code == 3, done.err
    rows = {Path(row["path"]).name: row for row in done.rows}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "ct.dcm": "marked", "report.dcm": "remapped", "pet.dcm": "held", "note.txt": "refused",
    }  # fmt: skip
    assert all(set(row) >= KEYS for row in done.rows)
    assert rows["note.txt"]["reason_code"] == "not-dicom"
    assert "1 held, 1 marked, 1 refused, 1 remapped" in done.err
    marked = tmp_path / "out" / "deep" / "ct.dcm"
    assert rows["ct.dcm"]["output"] == str(marked)
    assert [path for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()] == [
        marked,
        tmp_path / "out" / "report.dcm",
    ]
    assert {path: path.read_bytes() for path in before} == before  # originals are never changed in place
    copy, original = pydicom.dcmread(marked), pydicom.dcmread(study / "deep" / "ct.dcm")
    assert copy.SOPInstanceUID != original.SOPInstanceUID
    assert copy.PixelData != original.PixelData

    back = run("restore", tmp_path / "out", "--out", tmp_path / "back", "--config", quick, "--json")

    assert back.code == 0, back.err
    assert [(row["outcome"], row["output"]) for row in back.rows] == [
        ("restored", str(tmp_path / "back" / "deep" / "ct.dcm")),
        ("restored", str(tmp_path / "back" / "report.dcm")),
    ]
    for name in ("deep/ct.dcm", "report.dcm"):
        assert data_set(tmp_path / "back" / name) == data_set(study / name)


def test_text_lists_each_file_and_counts(run, quick: Path, study: Path, tmp_path: Path) -> None:
    done = run("protect", study, "--out", tmp_path / "out", "--config", quick)
    assert done.code == 3
    shown = sorted(done.out.splitlines())
    assert [line.split()[0] for line in shown] == ["held", "marked", "refused", "remapped"]
    assert shown[1].endswith(f"{study}/deep/ct.dcm -> {tmp_path}/out/deep/ct.dcm")
    assert shown[2].endswith("[not-dicom]")


def test_restoring_what_is_not_ours_is_refused_with_code_3(run, quick: Path, study: Path, tmp_path: Path) -> None:
    done = run("restore", study / "report.dcm", "--out", tmp_path / "back", "--config", quick, "--json")
    assert done.code == 3, done.err
    assert done.rows[0]["outcome"] == "refused"
    assert not list(tmp_path.glob("back/*"))


def test_a_list_that_is_begun_by_a_command_is_told_of_too(run, quick: Path, study: Path, tmp_path: Path) -> None:
    """A list of the restore role that was lost: whoever looks first begins it anew, and the role would not miss it."""
    state = load_config(quick).site.state
    assert run("protect", study / "deep", "--out", tmp_path / "out", "--config", quick).code == 0
    told = []
    for number in range(3):
        if number == 2:
            for path in (state / "restore").iterdir():
                path.unlink()
        back = tmp_path / f"back-{number}"
        assert run("restore", tmp_path / "out" / "ct.dcm", "--out", back, "--config", quick).code == 0
        lines = (state / "audit" / "operator.jsonl").read_text().splitlines()
        told.append(sum('"reason":"list-begun"' in line for line in lines))
    assert told == [1, 1, 2]


def test_restoring_needs_the_private_key_and_protecting_does_not(run, quick: Path, study: Path, tmp_path: Path) -> None:
    (quick.parent / "keys" / "restore.private.pem").unlink()
    marked = run("protect", study / "deep", "--out", tmp_path / "out", "--config", quick)
    assert marked.code == 0, marked.err
    done = run("restore", tmp_path / "out" / "ct.dcm", "--out", tmp_path / "back", "--config", quick)
    assert done.code == 2
    assert "code: secret-missing" in done.err


def test_without_a_configuration_keys_are_made_once_under_the_state_folder(run, study: Path, tmp_path: Path) -> None:
    first = run("protect", study / "note.txt", "--out", tmp_path / "out", "--json")
    state = tmp_path / "home" / ".local" / "state" / "miad-gateway"
    assert (first.code, first.rows[0]["outcome"]) == (3, "refused")
    assert f"made new keys in {state}/keys" in first.err
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    keys = {path.name: path.read_bytes() for path in (state / "keys").iterdir()}
    second = run("protect", study / "note.txt", "--out", tmp_path / "out")
    assert "made new keys" not in second.err
    assert {path.name: path.read_bytes() for path in (state / "keys").iterdir()} == keys


def test_a_state_folder_that_cannot_be_made_is_code_2(run, study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("protect", study, "--out", tmp_path / "out", XDG_STATE_HOME=str(tmp_path / "file"))
    assert done.code == 2
    assert "code: state-folder" in done.err


def test_an_empty_folder_is_code_2(run, quick: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("protect", tmp_path / "empty", "--out", tmp_path / "out", "--config", quick)
    assert (done.code, "no file found" in done.err) == (2, True)


def test_a_copy_that_carries_its_original_is_restored_on_another_machine(run, study: Path, tmp_path: Path) -> None:
    """Nothing of the site is there but the copy, the private key and the public signing key."""
    gateway = Gateway()
    (tmp_path / "restore.pem").write_bytes(private_pem(gateway.restore))
    (tmp_path / "restore.pem").chmod(0o600)
    (tmp_path / "signer.pem").write_bytes(public_pem(gateway.signing.public_key()))
    with (study / "deep" / "ct.dcm").open("rb") as file:
        meta, _ = split_part10(file)
        copy = gateway.copy(file.read(), meta.transfer_syntax_uid)
    lossy = copy[:-2] + bytes([copy[-2] ^ 1, copy[-1]])
    (tmp_path / "in").mkdir()
    for name, data in (("copy.dcm", copy), ("lossy.dcm", lossy)):
        with (tmp_path / "in" / name).open("wb") as file:
            write_part10(file, meta.sop_class_uid, "2.25.1001", EXPLICIT_LITTLE, [data])
    keys = ("--key", tmp_path / "restore.pem", "--signer", tmp_path / "signer.pem")

    back = run("restore", tmp_path / "in", "--out", tmp_path / "back", *keys, "--json")

    assert back.code == 3, back.err
    restored, refused = back.rows
    assert (restored["outcome"], restored["reason_code"]) == ("restored", "")
    assert (refused["outcome"], refused["reason_code"]) == ("refused", "marked-pixels-changed")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["copy.dcm"]
    assert data_set(tmp_path / "back" / "copy.dcm") == data_set(study / "deep" / "ct.dcm")
    made = [path.name for path in (tmp_path / "home" / ".local").rglob("*") if path.is_file()]
    assert made == ["operator.jsonl"]  # the audit; no local site is made for it

    (tmp_path / "signer.pem").write_bytes(public_pem(Gateway().signing.public_key()))
    refused = run("restore", tmp_path / "in" / "copy.dcm", "--out", tmp_path / "no", *keys, "--json")
    assert (refused.code, refused.rows[0]["outcome"], refused.rows[0]["reason_code"]) == (
        3,
        "refused",
        "signer-unknown",
    )


def test_key_and_signer_go_together(run, study: Path, tmp_path: Path) -> None:
    alone = run("restore", study, "--out", tmp_path / "back", "--key", study / "note.txt")
    assert (alone.code, "go together" in alone.err) == (2, True)


def test_an_archive_gives_a_line_a_member_and_output_among_originals_is_code_2(
    run, quick: Path, study: Path, tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "export"), "zip", study))
    done = run("protect", archive, "--out", tmp_path / "out", "--config", quick, "--json")
    assert done.code == 3, done.err
    rows = {row["member"]: row for row in done.rows}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "deep/ct.dcm": "marked", "report.dcm": "remapped", "pet.dcm": "held", "note.txt": "refused",
    }  # fmt: skip
    assert rows["deep/ct.dcm"]["output"] == str(tmp_path / "out" / f"{rows['deep/ct.dcm']['sop_instance_uid']}.dcm")
    assert all(row["path"] == str(archive) for row in done.rows)
    done = run("protect", study, "--out", study / "deep", "--config", quick)
    assert done.code == 2
    assert "code: output-among-originals" in done.err
