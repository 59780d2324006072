"""`vault`: what is kept is verified, backed up, and restores a marked file on an empty machine folder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from gateway.dicom.encoding.part10 import split_part10


def data_set(file: Path) -> str:
    with file.open("rb") as stream:
        _, offset = split_part10(stream)
        stream.seek(offset)
        return hashlib.sha256(stream.read()).hexdigest()


@pytest.fixture
def protected(run, sample: Path, tmp_path: Path) -> Path:
    """A marked file whose original lies in the sample site's vault."""
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "ct.dcm")
    done = run("protect", tmp_path / "ct.dcm", "--out", tmp_path / "out", "--config", sample)
    assert done.code == 0, done.err
    return tmp_path / "out" / "ct.dcm"


def test_a_backup_restores_a_marked_file_on_an_empty_folder(run, sample: Path, protected: Path, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    backed = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, "--passphrase-file", secret)
    assert backed.code == 0, backed.err
    shutil.rmtree(sample.parent)  # the machine is gone: keys, vault, database and configuration

    folder = tmp_path / "empty"
    wrong = run("vault", "recover", tmp_path / "b.miad", "--into", folder, MIAD_GATEWAY_PASSPHRASE="wrong")
    assert (wrong.code, "code: wrong-key" in wrong.err) == (1, True)
    assert not folder.exists()
    recovered = run("vault", "recover", tmp_path / "b.miad", "--into", folder, MIAD_GATEWAY_PASSPHRASE="correct horse")
    assert recovered.code == 0, recovered.err
    assert f"--config {folder}/recovered.toml" in recovered.err

    back = run("restore", protected, "--out", tmp_path / "back", "--config", folder / "recovered.toml")
    assert back.code == 0, back.err
    assert data_set(tmp_path / "back" / "ct.dcm") == data_set(tmp_path / "ct.dcm")


def test_without_config_it_is_the_site_s_vault_where_there_is_a_site(run, sample: Path, tmp_path: Path) -> None:
    """Not this user's own, of which "0 wrong" would be told as if it were the site's."""
    shutil.copytree(sample.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "keys" / "restore.private.pem").unlink()
    done = run("vault", "verify")
    assert done.code == 2 and str(tmp_path / "keys" / "restore.private.pem") in done.err
    (tmp_path / "gateway.toml").unlink()
    own = run("vault", "verify")
    assert own.code == 0 and "made new keys in" in own.err


def test_verify_opens_every_original_and_finds_the_one_that_was_changed(run, sample: Path, protected: Path) -> None:
    sound = run("vault", "verify", "--config", sample, "--json")
    assert sound.code == 0, sound.err
    assert [(row["ok"], row["reason_code"]) for row in sound.rows] == [(True, "")]
    assert "1 originals verified, 0 wrong" in sound.err

    (payload,) = [path for path in (sample.parent / "state" / "vault").rglob("*") if path.is_file()]
    data = bytearray(payload.read_bytes())
    data[-40] ^= 1
    payload.write_bytes(data)
    broken = run("vault", "verify", "--config", sample, "--json")
    assert broken.code == 1
    assert [row["ok"] for row in broken.rows] == [False]
    assert broken.rows[0]["reason_code"] == "payload-tampered"


def test_verifying_an_empty_vault_is_code_0(run, sample: Path) -> None:
    done = run("vault", "verify", "--config", sample)
    assert (done.code, done.out) == (0, ""), done.err
    assert "0 originals verified" in done.err


def test_an_empty_passphrase_is_refused(run, sample: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("\n")
    done = run("vault", "backup", "--out", "b.miad", "--config", sample, "--passphrase-file", tmp_path / "passphrase")
    assert (done.code, "code: no-passphrase" in done.err) == (2, True)
    assert not (tmp_path / "b.miad").exists()


def test_a_missing_tls_file_is_named_and_nothing_is_written(run, sample: Path, tmp_path: Path) -> None:
    (sample.parent / "tls" / "restore.key").unlink()
    words = {"MIAD_GATEWAY_PASSPHRASE": "correct horse"}
    done = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", sample, **words)
    assert (done.code, "code: backup-file-missing" in done.err) == (2, True)
    assert f"restore.tls.private_key: cannot read {sample.parent}/tls/restore.key: No such file" in done.err
    assert not [path for path in tmp_path.iterdir() if "b.miad" in path.name or path.name.startswith(".")]


def test_the_recovered_configuration_is_the_whole_one(run, sample: Path, tmp_path: Path) -> None:
    """By paths that are relative, with a key from the environment; what came back passes `config check`."""
    secret = (sample.parent / "keys" / "uid.key").read_text().strip()
    sample.write_text(sample.read_text().replace("file:keys/uid.key", "env:UID_KEY"))
    words = {"MIAD_GATEWAY_PASSPHRASE": "correct horse"}
    done = run("vault", "backup", "--out", "b.miad", "--config", "site/gateway.toml", UID_KEY=secret, **words)
    assert done.code == 0, done.err
    written = sample.read_bytes()
    shutil.rmtree(sample.parent)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = run("vault", "recover", "b.miad", "--into", "full", **words)
    assert (done.code, "code: folder-not-empty" in done.err) == (1, True)
    done = run("vault", "recover", "b.miad", "--into", "new", **words)
    assert done.code == 0, done.err
    assert done.err.count("note: keys.uid_key was env:UID_KEY") == 1 and secret not in done.err
    assert (tmp_path / "new" / "gateway.toml").read_bytes() == written
    done = run("config", "check", "--config", "new/recovered.toml")
    assert (done.code, done.out) == (0, ""), done.err
