"""Backup and recovery, and `vault verify`."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import time

import pytest
from sqlalchemy import update

from gateway.config import load_config
from gateway.database import VaultRow, open_database, transaction
from gateway.errors import GatewayError
from gateway.keys import OpeningKeys
from gateway.restore import Restorer
from gateway.vault import backup as module
from gateway.vault.backup import backup
from gateway.vault.recovery import recover
from gateway.vault.verify import verify_records, verify_vault
from tests.support.vault import Vault, data_set, facts_of, open_vault

CONTENTS = {"1.2.3.1": b"one!" * 1000, "1.2.3.2": os.urandom(3_000_000), "1.2.3.3": b""}
ORIGINALS = {uid: data_set(content, uid) for uid, content in CONTENTS.items()}


@pytest.fixture(autouse=True)
def _quick_scrypt(monkeypatch):
    monkeypatch.setattr(module, "_LOG_N", 12)


@pytest.fixture
def filled(vault) -> Vault:
    for uid, data in ORIGINALS.items():
        vault.store(data, uid)
    return vault


def code_of(call) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


def test_an_empty_machine_restores_a_marked_file(filled, tmp_path):
    tokens = {uid: filled.records.by_original_uid(uid) for uid in ORIGINALS}
    backup(filled.config, tmp_path / "site.backup", "correct horse")
    config = load_config(recover(tmp_path / "site.backup", tmp_path / "new", "correct horse").config)
    engine = open_database(config.database_url)
    restorer = Restorer(engine, config.site.state / "vault", OpeningKeys.load(config.keys), config.site.name)
    for uid, record in tokens.items():
        original = restorer.by_token(record.token, record.derived_sop_uid)
        original.verify()
        assert b"".join(original.stream()) == ORIGINALS[uid]
    again = open_vault(config)  # and it goes on as the same site: same record for the same original
    assert again.store(ORIGINALS["1.2.3.1"], "1.2.3.1").locator == tokens["1.2.3.1"].locator
    assert all(result.ok for result in verify_vault(config))
    assert {path.name for path in (tmp_path / "new" / "keys").iterdir()} == {
        path.name for path in (filled.config.site.state / "keys").iterdir()
    }


def test_a_record_without_payload_is_in_the_backup_too(filled, tmp_path):
    record = filled.records.create(facts_of(b"elsewhere", "1.2.3.9", is_carried=True))
    backup(filled.config, tmp_path / "b", "correct horse")
    config = load_config(recover(tmp_path / "b", tmp_path / "new", "correct horse").config)
    assert open_vault(config).records.by_locator(record.locator) == record
    found = {result.locator: result.reason_code for result in verify_vault(config)}
    assert found[record.locator] == "carried" and set(found.values()) == {"", "carried"}


def test_secrets_from_the_environment_become_files(filled, tmp_path, monkeypatch):
    monkeypatch.setenv("UID_KEY", (filled.config.site.state / "keys" / "uid.key").read_text())
    keys = filled.config.keys.model_copy(update={"uid_key": type(filled.config.keys.uid_key)("env:UID_KEY")})
    backup(filled.config.model_copy(update={"keys": keys}), tmp_path / "b", "correct horse")
    monkeypatch.delenv("UID_KEY")
    config = load_config(recover(tmp_path / "b", tmp_path / "new", "correct horse").config)
    assert open_vault(config).sealing.uid_key == filled.sealing.uid_key


def test_a_backup_shows_nothing(filled, tmp_path):
    backup(filled.config, tmp_path / "b", "correct horse")
    content = (tmp_path / "b").read_bytes()
    assert b"PRIVATE KEY" not in content and b"1.2.3.1" not in content
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0


def test_what_cannot_be_recovered_leaves_nothing(filled, tmp_path):
    backup(filled.config, tmp_path / "b", "correct horse")
    content = (tmp_path / "b").read_bytes()
    target = tmp_path / "new"
    assert code_of(lambda: recover(tmp_path / "b", target, "q")) == "wrong-key"
    for name, changed in {
        "wrong-key": content[:10] + bytes([content[10] ^ 1]) + content[11:],  # the salt
        "tampered": content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
        "truncated": content[: 24 + 80 + (1 << 20) + 16],
        "backup-format": b"X" + content[1:],
    }.items():
        (tmp_path / "changed").write_bytes(changed)
        assert code_of(lambda: recover(tmp_path / "changed", target, "correct horse")) == name
    hungry = bytearray(content)
    hungry[5] = 40  # scrypt would want a terabyte
    (tmp_path / "changed").write_bytes(hungry)
    assert code_of(lambda: recover(tmp_path / "changed", target, "correct horse")) == "backup-format"
    assert not target.exists() and not list(tmp_path.glob(".*"))


def test_no_folder_or_backup_is_overwritten(filled, tmp_path):
    backup(filled.config, tmp_path / "b", "correct horse")
    assert code_of(lambda: backup(filled.config, tmp_path / "b", "correct horse")) == "backup-exists"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert code_of(lambda: recover(tmp_path / "b", tmp_path / "full", "correct horse")) == "folder-not-empty"
    (tmp_path / "empty").mkdir()
    recover(tmp_path / "b", tmp_path / "empty", "correct horse")


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_backup_whose_flush_failed_is_not_there_to_be_relied_on(filled, tmp_path, monkeypatch, which):
    fsync = os.fsync

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) is (which == "folder"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patched, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        patched.setattr(os, "fsync", fails)
        backup(filled.config, tmp_path / "out" / "b", "correct horse")
    assert list((tmp_path / "out").iterdir()) == []
    backup(filled.config, tmp_path / "out" / "b", "correct horse")
    recover(tmp_path / "out" / "b", tmp_path / "new", "correct horse")


def test_a_manifest_that_does_not_fit(filled, tmp_path, monkeypatch):
    plain = tarfile.TarFile.addfile

    def forgetful(self, info, source):
        if not info.name.startswith("vault/"):
            plain(self, info, source)
        else:
            source.read()

    monkeypatch.setattr(tarfile.TarFile, "addfile", forgetful)
    backup(filled.config, tmp_path / "b", "correct horse")
    assert code_of(lambda: recover(tmp_path / "b", tmp_path / "new", "correct horse")) == "backup-incomplete"


@pytest.mark.parametrize("name", ["../evil", "vault/../../evil", "keys/.hidden", "other", "keys/a/b"])
def test_names_that_lead_out_of_the_folder(filled, tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, "TABLES", {name: VaultRow})
    backup(filled.config, tmp_path / "b", "correct horse")
    monkeypatch.undo()
    monkeypatch.setattr(module, "_LOG_N", 12)
    assert code_of(lambda: recover(tmp_path / "b", tmp_path / "new", "correct horse")) == "backup-format"
    assert not (tmp_path / "evil").exists() and not (tmp_path / "new").exists()


def test_verify_finds_what_is_wrong(filled):
    seen = []
    assert [result.ok for result in verify_vault(filled.config, lambda done, all_: seen.append((done, all_)))] == (
        [True] * 3
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    records = [filled.records.by_original_uid(uid) for uid in ORIGINALS]
    damaged = filled.payloads.folder / records[1].locator
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    filled.payloads.delete(records[0].locator)
    stray = "f" * 32
    (filled.payloads.folder / stray).write_bytes(b"")
    with transaction(filled.engine) as session:
        session.execute(
            update(VaultRow).where(VaultRow.locator == records[2].locator).values(transfer_syntax_uid="9.9")
        )
    found = {result.locator: result for result in verify_vault(filled.config)}
    assert found[records[0].locator].reason_code == "payload-awaited"  # it may be on its way for some minutes
    assert found[records[1].locator].reason_code == "payload-tampered" and not found[records[1].locator].ok
    assert found[records[2].locator].reason_code == "record-columns-differ"
    assert found[stray].reason_code == "payload-without-record"
    quick = {result.locator: result for result in verify_records(filled.records, filled.payloads, None)}
    assert quick[records[1].locator].ok and not quick[stray].ok


def test_verify_knows_missing_from_ended(filled, monkeypatch):
    record = filled.records.by_original_uid("1.2.3.1")
    filled.payloads.delete(record.locator)
    monkeypatch.setattr(time, "time", lambda: record.created_at + 1000)
    found = {result.locator: result for result in verify_vault(filled.config)}
    assert found[record.locator].reason_code == "payload-missing" and not found[record.locator].ok
    filled.records.expire(record.created_at + 500)
    found = {result.locator: result for result in verify_vault(filled.config)}
    assert found[record.locator].ok and found[record.locator].reason_code == "retention-ended"
