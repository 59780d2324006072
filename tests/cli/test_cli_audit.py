"""What is done at the command line with keys and originals stands in the operator's audit, or is not done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def protected(run, sample: Path, tmp_path: Path) -> Path:
    """Two marked files whose originals lie in the sample site's vault."""
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path / name)
        done = run("protect", tmp_path / name, "--out", tmp_path / "out", "--config", sample)
        assert done.code == 0, done.err
    return tmp_path / "out"


@pytest.mark.timeout(300)
def test_restoring_verifying_and_backing_up_are_audited(run, sample: Path, protected: Path, tmp_path: Path) -> None:
    assert run("restore", protected, "--out", tmp_path / "back", "--config", sample).code == 0
    assert run("vault", "verify", "--config", sample).code == 0
    words = {"MIAD_GATEWAY_PASSPHRASE": "correct horse battery"}
    assert run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, **words).code == 0
    written = lines(sample.parent / "state" / "audit" / "operator.jsonl")
    assert [(line["event"], line.get("operation", "")) for line in written] == [
        ("record-changed", ""),  # the list of records is begun
        ("key-used", "restore"),
        *[("restore-intended", "restore"), ("original-restored", "restore")] * 2,
        ("key-used", "vault-verify"),
        ("key-used", "vault-verified"),
        ("key-used", "vault-backup"),
        ("backup", ""),
    ]
    assert all(line["sop_instance_uid"] for line in written[2:6])


@pytest.mark.parametrize("carried", [False, True], ids=["by the vault", "by key and signer"])
def test_with_the_audit_full_no_original_comes_out(run, sample, protected: Path, tmp_path, carried: bool) -> None:
    folder = tmp_path / "home" / ".local" / "state" / "miad-gateway" if carried else sample.parent / "state"
    (folder / "audit").mkdir(parents=True, exist_ok=True)
    (folder / "audit" / "operator.jsonl").symlink_to("/dev/full")
    keys = sample.parent / "keys"
    how = ["--key", keys / "restore.private.pem", "--signer", keys / "signing.public.pem"]
    done = run("restore", protected, "--out", tmp_path / "back", *(how if carried else ["--config", sample]))
    assert done.code != 0 and "audit-full" in done.err
    assert not list((tmp_path / "back").rglob("*.dcm"))


def test_with_the_audit_full_there_is_no_backup_and_no_verification(run, sample: Path, tmp_path: Path) -> None:
    (sample.parent / "state" / "audit").mkdir(parents=True, mode=0o700)
    (sample.parent / "state" / "audit" / "operator.jsonl").symlink_to("/dev/full")
    words = {"MIAD_GATEWAY_PASSPHRASE": "correct horse battery"}
    done = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, **words)
    assert done.code != 0 and "audit-full" in done.err and not (tmp_path / "b.miad").exists()
    assert "audit-full" in run("vault", "verify", "--config", sample).err


def test_made_keys_are_audited_beside_them(run, tmp_path: Path) -> None:
    assert run("keys", "make", tmp_path / "keys").code == 0
    (line,) = lines(tmp_path / "keys" / "audit.jsonl")
    assert line["event"] == "keys-made" and len(line["key_id"]) == len(line["signer_id"]) == 16


@pytest.mark.parametrize("passphrase", ["short", "elevenchars", "  padded   "])
def test_a_short_passphrase_is_refused(run, sample: Path, tmp_path: Path, passphrase: str) -> None:
    words = {"MIAD_GATEWAY_PASSPHRASE": passphrase}
    done = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, **words)
    assert (done.code, "passphrase-too-short" in done.err) == (2, True)
    assert not (tmp_path / "b.miad").exists()
