"""A whole site in a backup: configuration, the files that it names, the restore role's list; and what is refused."""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.audit import AuditLog
from gateway.config import load_config
from gateway.config.models import Config
from gateway.database import FiguresRow, PayloadCheckRow, ReportRow, VaultRow, open_database, reading, transaction
from gateway.errors import GatewayError
from gateway.flow.keeping import KeptFiles
from gateway.keys import ChunkedReader, ChunkedWriter, OpeningKeys, make_keys
from gateway.restore import Restorer, SeenRecords
from gateway.service.restore import _tell_of_recovery
from gateway.vault import backup as module
from gateway.vault import site_files
from gateway.vault.backup import HEAD, backup, passphrase_key
from gateway.vault.recovery import recover
from tests.support.vault import Vault, data_set, open_vault

WORDS = "correct horse battery"
REPOSITORY = Path(__file__).parents[2]
Member = tuple[str, bytes]


@pytest.fixture(autouse=True)
def _quick_scrypt(monkeypatch):
    monkeypatch.setattr(module, "_LOG_N", 10)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """deploy/gateway.toml with a destination by TLS and a logo; what the files hold does not matter here."""
    folder = tmp_path / "site"
    text = (REPOSITORY / "deploy" / "gateway.toml").read_text("utf-8").replace("\n", "\r\n")  # as an editor left it
    tls = '[destinations.tls]\r\ncertificate = "tls/restore.pem"\r\nprivate_key = "tls/public.key"\r\n'
    text = text.replace("# [destinations.tls]\r\n", tls + f'trust = "{folder}/tls/trust"\r\n')
    text = text.replace('# logo = "logo.png"', 'logo = "logo.png"')
    (folder / "tls" / "trust" / "sub").mkdir(parents=True)
    for name in ("restore.pem", "restore.key", "public.key", "trust/a.pem", "trust/b.CRT", "trust/sub/not.pem"):
        (folder / "tls" / name).write_bytes(name.encode())
    (folder / "tls" / "trust" / "both.pem").write_text("-----BEGIN PRIVATE KEY-----")
    (folder / "logo.png").write_bytes(b"png")
    (folder / "state").mkdir()
    (folder / "gateway.toml").write_bytes(text.encode())
    make_keys(folder / "keys")
    return folder / "gateway.toml"


def saved(file: Path, out: Path) -> Path:
    backup(load_config(file), out, WORDS, file)
    return out


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


def told(config: Config) -> str:
    """The configuration without the paths and references that a recovery changes; it names the proof."""
    text = config.model_dump_json().replace('"restore_proof":null', '"restore_proof":"PATH"')
    return re.sub(r'"[^"]*(/site|/new|file:)[^"]*"', '"PATH"', text)


def modes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mode & 0o777 for file in sorted(folder.rglob("*"))}


def test_the_whole_site_comes_back(site: Path, tmp_path: Path):
    new = tmp_path / "new"
    made = recover(saved(site, tmp_path / "b"), new, WORDS)
    assert made.config == new / "recovered.toml"
    assert (new / "gateway.toml").read_bytes() == site.read_bytes()
    before, after = load_config(site), load_config(made.config)
    assert told(after) == told(before) and after != before
    assert before.restore and after.restore and after.restore.tls and after.destinations[0].tls
    theirs = after.destinations[0].tls
    assert theirs.certificate == after.restore.tls.certificate  # one file, named twice
    assert theirs.certificate.read_bytes() == b"restore.pem" and theirs.private_key.read_bytes() == b"public.key"
    assert theirs.trust == after.restore.tls.trust
    assert {file.name[5:]: file.read_bytes() for file in theirs.trust.iterdir()} == {
        "a.pem": b"trust/a.pem", "b.CRT": b"trust/b.CRT", "both.pem": b"-----BEGIN PRIVATE KEY-----",
    }  # fmt: skip
    assert after.routes[0].mark.logo and after.routes[0].mark.logo.read_bytes() == b"png"
    assert all(path.is_relative_to(new) for path in (theirs.certificate, theirs.trust, after.routes[0].mark.logo))
    found = {re.sub(r"\d{4}-", "", name): mode for name, mode in modes(new).items() if not name.startswith("state")}
    assert found == {
        "files": 0o700, "files/logo.png": 0o644, "gateway.toml": 0o600, "keys": 0o700, "keys/mark.key": 0o600,
        "keys/restore.private.pem": 0o600, "keys/restore.proof": 0o644, "keys/restore.public.pem": 0o644,
        "keys/signing.private.pem": 0o600, "keys/signing.public.pem": 0o644, "keys/spool.key": 0o600,
        "keys/uid.key": 0o600, "recovered.toml": 0o600, "tls": 0o700, "tls/public.key": 0o600,
        "tls/restore.key": 0o600, "tls/restore.pem": 0o644, "tls/trust-2": 0o755, "tls/trust-2/a.pem": 0o644,
        "tls/trust-2/b.CRT": 0o644, "tls/trust-2/both.pem": 0o600,
    }  # fmt: skip
    os.rename(new, tmp_path / "moved")  # its paths are its own
    moved = load_config(tmp_path / "moved" / "recovered.toml")
    assert moved.restore and moved.restore.tls and moved.restore.tls.private_key.read_bytes() == b"restore.key"


def test_a_recovered_site_is_backed_up_and_recovered_again(site: Path, tmp_path: Path):
    first = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS).config
    second = recover(saved(first, tmp_path / "c"), tmp_path / "again" / "new", WORDS).config
    assert told(load_config(second)) == told(load_config(first))
    assert second.with_name("gateway.toml").read_bytes() == first.read_bytes()


def test_what_was_promised_to_an_archive_stays_promised(filled: Vault, site: Path, tmp_path: Path):
    """It may have deleted its own: retention of the recovered site must not end ours."""
    with transaction(filled.engine) as session:
        session.add(PayloadCheckRow(locator="0" * 32, asked_at=1.0, checked_at=2.0, result="good", promised_at=3.5))
        session.add(PayloadCheckRow(locator="1" * 32, asked_at=1.0, checked_at=2.0, result="good"))
    new = load_config(recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS).config)
    engine = open_database(new.database_url)
    assert KeptFiles(engine, "").promised() == {"0" * 32}
    engine.dispose()


def test_references_are_never_resolved_into_the_configuration(site: Path, tmp_path: Path, monkeypatch):
    secret = (site.parent / "keys" / "uid.key").read_text().strip()
    text = (
        site.read_text()
        .replace("file:keys/uid.key", "env:UID_KEY")
        .replace("file:keys/mark.key", "credential:mark.key")
    )
    site.write_text(text + '\n[database]\nurl = "env:DATABASE"\n')
    monkeypatch.setenv("UID_KEY", secret)
    monkeypatch.setenv("DATABASE", f"sqlite:///{tmp_path}/elsewhere.sqlite")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site.parent / "keys"))
    made = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS)
    assert (tmp_path / "new" / "gateway.toml").read_bytes() == site.read_bytes()
    text = made.config.read_text()
    assert secret not in text and "env:" not in text and "credential:" not in text
    assert (tmp_path / "new" / "keys" / "uid.key").read_text() == secret
    named = [note.split()[0] for note in made.notes]
    assert [named.count(one) for one in ("keys.uid_key", "keys.mark_key", "database.url")] == [1, 1, 1]
    assert any("env:UID_KEY" in note and "keys/uid.key" in note for note in made.notes)
    for name in ("UID_KEY", "DATABASE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name)
    config = load_config(made.config)
    assert config.database_url == f"sqlite:///{tmp_path}/new/state/gateway.sqlite"
    assert config.keys.mark_key.resolve() and config.keys.uid_key.resolve() == secret.encode()


def test_a_database_is_named_by_reference(site: Path, tmp_path: Path, monkeypatch):
    open_vault(load_config(site)).store(data_set(b"one"))
    archive = saved(site, tmp_path / "b")
    monkeypatch.setenv("DATABASE", f"sqlite:///{tmp_path}/other.sqlite")
    made = recover(archive, tmp_path / "new", WORDS, "env:DATABASE")
    assert 'url = "env:DATABASE"' in made.config.read_text() and not (tmp_path / "new/state/gateway.sqlite").exists()
    assert open_vault(load_config(made.config)).records.by_original_uid("1.2.3.1")
    assert code_of(lambda: recover(archive, tmp_path / "n2", WORDS, "env:DATABASE")) == "database-not-empty"
    monkeypatch.delenv("DATABASE")
    assert code_of(lambda: recover(archive, tmp_path / "n2", WORDS, "env:DATABASE")) == "secret-missing"
    assert not (tmp_path / "n2").exists() and not list(tmp_path.glob(".*"))


def test_what_no_backup_holds_is_told(site: Path, tmp_path: Path):
    site.write_text(site.read_text() + '\n[[surrogates]]\nname = "ours"\npack = "ours/pack.toml"\n')
    made = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS)
    assert load_config(made.config).surrogates[0].pack == site.parent / "ours" / "pack.toml"
    assert any(note.startswith(f"surrogates[0].pack names {site.parent}/ours/pack.toml") for note in made.notes)


def remove(file: Path) -> None:
    file.unlink()


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("name", "spoil", "code", "setting"),
    [
        ("tls/restore.key", remove, "backup-file-missing", "restore.tls.private_key"),
        ("tls/public.key", remove, "backup-file-missing", "destinations[0].tls.private_key"),
        ("logo.png", remove, "backup-file-missing", "routes[0].mark.logo"),
        ("tls/restore.key", loop, "backup-file-unreadable", "restore.tls.private_key"),
        ("tls/restore.key", pipe, "backup-file-unreadable", "restore.tls.private_key"),
        ("tls/trust/a.pem", pipe, "backup-file-unreadable", "destinations[0].tls.trust"),
        ("tls/restore.key", lambda f: f.write_bytes(bytes(1025)), "backup-file-too-large", "restore.tls.private_key"),
        ("tls/trust/c.pem", lambda f: f.symlink_to("nothing"), "backup-file-missing", "destinations[0].tls.trust"),
        ("tls/trust/c.pem", lambda f: f.write_bytes(bytes(1000)), "backup-file-too-large", "destinations[0].tls.trust"),
        ("tls/trust/c.pem", lambda f: f.write_bytes(b""), "backup-too-many-files", "destinations[0].tls"),
    ],
)
def test_a_file_that_cannot_be_had(site: Path, tmp_path: Path, monkeypatch, name, spoil, code, setting):
    monkeypatch.setattr(site_files, "LARGEST_FILE", 1024)
    monkeypatch.setattr(site_files, "LARGEST_SUM", 1030)
    monkeypatch.setattr(site_files, "MOST_FILES", 7 if code == "backup-too-many-files" else 100)
    if code != "backup-too-many-files":
        saved(site, tmp_path / "fine")
    spoil(site.parent / name)
    with pytest.raises(GatewayError) as caught:
        saved(site, tmp_path / "b")
    assert caught.value.code == code
    assert caught.value.message.startswith(setting) or code == "backup-too-many-files"
    assert code == "backup-too-many-files" or str(site.parent / name) in caught.value.message
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob(".*"))


def test_a_trust_folder_without_files_and_a_configuration_that_changed(site: Path, tmp_path: Path):
    config = load_config(site)
    site.write_text(site.read_text().replace('tier = "notice"', 'tier = "discreet"'))
    assert code_of(lambda: backup(config, tmp_path / "b", WORDS, site)) == "config-changed"
    for file in (site.parent / "tls" / "trust").glob("*.*"):
        file.unlink()
    assert code_of(lambda: saved(site, tmp_path / "b")) == "backup-file-missing"
    assert not (tmp_path / "b").exists()


# what a backup may say


def rewritten(archive: Path, change: Callable[[list[Member], dict], None]) -> None:
    """Write the same backup with other members; the manifest's digests agree with them again."""
    with archive.open("rb") as file:
        head = file.read(HEAD.size)
        key = passphrase_key(WORDS, head)
        plain = ChunkedReader(file, key, head).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    manifest = json.loads(members.pop()[1])
    change(members, manifest)
    manifest["sha256"] = {name: module.hashlib.sha256(data).hexdigest() for name, data in members}
    members.append(("manifest.json", json.dumps(manifest).encode()))
    with archive.open("wb") as file:
        file.write(head)
        chunks = ChunkedWriter(file, key, head)
        with tarfile.open(fileobj=chunks, mode="w|") as tar:  # type: ignore[call-overload]
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        chunks.close()


def renamed(old: str, new: str) -> Callable[[list[Member], dict], None]:
    def change(members: list[Member], manifest: dict) -> None:
        members[:] = [(new if name == old else name, data) for name, data in members]
        manifest["files"][new] = manifest["files"].pop(old)

    return change


def set_in(*steps: str, value: object) -> Callable[[list[Member], dict], None]:
    def change(members: list[Member], manifest: dict) -> None:
        for step in steps[:-1]:
            manifest = manifest[step]
        manifest[steps[-1]] = value

    return change


FILE = "files/0000-restore.pem"
KEY = "files/0001-public.key"


@pytest.mark.parametrize(
    "change",
    [
        *(renamed(FILE, f"files/{name}") for name in ("../evil", ".hidden", "a/b", "a b", "..", "x" * 129, "")),
        renamed(FILE, "keys/../evil"),
        renamed(FILE, "evil"),
        renamed("gateway.toml", "recovered.toml"),
        set_in("files", FILE, "mode", value="0777"),
        set_in("files", FILE, "mode", value="4644"),
        *(set_in("files", FILE, "folder", value=one) for one in ("../evil", "/tmp", "state", "", "keys", "tls/../..")),
        set_in("files", "keys/uid.key", "folder", value="tls"),
        set_in("files", "gateway.toml", "folder", value="tls"),
        *(set_in("folders", name, value="0755") for name in ("../evil", "state", "keys", "", "other/x", "tls/a/b")),
        set_in("folders", "files/a", value="0755"),
        set_in("folders", value={"files": "0700"}),
        set_in("settings", value=[[["restore", "tls", "certificate"], "/etc/shadow"]]),
        set_in("settings", value=[[["restore", "tls", "certificates"], "tls"]]),
        set_in("left_out", value=[[["restore", "tls", "a", "b"], "x"]]),
        set_in("version", value=2),
        set_in("more", value=1),
        set_in("files", value={}),
        lambda members, _: members.append((FILE, b"again")),
        lambda members, _: members.append(("files/9999-more", b"")),
        lambda members, _: members.append(("keys/big", bytes(70_000))),
        lambda members, _: members.append(("vault/..", b"")),
        lambda members, _: members.insert(0, ("manifest.json", b"{}")),
    ],
)
def test_a_backup_that_says_what_none_says(site: Path, tmp_path: Path, change):
    site.write_text(site.read_text().replace('logo = "logo.png"', ""))
    rewritten(saved(site, tmp_path / "b"), lambda members, manifest: None)
    recover(tmp_path / "b", tmp_path / "unchanged", WORDS)
    rewritten(tmp_path / "b", change)
    assert code_of(lambda: recover(tmp_path / "b", tmp_path / "new", WORDS)) in ("backup-format", "backup-incomplete")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))
    assert not (tmp_path / "evil").exists()


def test_the_number_and_size_of_files_are_bounded(site: Path, tmp_path: Path, monkeypatch):
    archive = saved(site, tmp_path / "b")
    for name, value in {
        "MOST_FILES": 4,
        "LARGEST_FILE": 10,
        "LARGEST_SUM": 20,
        "MOST_KEYS": 4,
        "LARGEST_CONFIG": 9,
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"gateway.vault.recovery.{name}", value)
            assert code_of(lambda: recover(archive, tmp_path / "new", WORDS)) == "backup-format", name
    recover(archive, tmp_path / "new", WORDS)


def test_a_backup_cut_anywhere_leaves_nothing(site: Path, tmp_path: Path):
    content = saved(site, tmp_path / "b").read_bytes()
    for length in [0, 3, 24, 25, 100, *random.Random(5).sample(range(len(content)), 25), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        assert code_of(lambda: recover(tmp_path / "cut", tmp_path / "new", WORDS)) in (
            "backup-format", "truncated", "tampered", "seal-format", "wrong-key",
        )  # fmt: skip
        assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))


def test_a_configuration_that_is_valid_no_more_still_restores(site: Path, tmp_path: Path):
    record = open_vault(load_config(site)).store(data_set(b"one"))

    def age(members: list[Member], manifest: dict) -> None:
        members[:] = [(name, data + b"\nwas_allowed_once = 1\n" * (name == "gateway.toml")) for name, data in members]

    rewritten(saved(site, tmp_path / "b"), age)
    made = recover(tmp_path / "b", tmp_path / "new", WORDS)
    assert any("gateway.toml is not valid" in note and "was_allowed_once" in note for note in made.notes)
    config = load_config(made.config)
    assert not config.routes and config.site.name == "site"
    assert open_vault(config).records.by_original_uid("1.2.3.1") == record


# rows of other times


def test_reports_that_were_not_signed_and_rows_of_fewer_columns(site: Path, tmp_path: Path):
    config = load_config(site)
    engine = open_vault(config).engine
    told_of = {"sop_instance_uid": "2.25.1", "copies_sha256": "0" * 64, "last_marked_at": 1.5}
    with transaction(engine) as session:
        session.add(ReportRow(route="r", study_uid="1.2", number=1, instance_id="0" * 32, **told_of))
    made = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS)
    with reading(open_database(load_config(made.config).database_url)) as session:
        [row] = session.query(ReportRow)
        assert (row.study_uid, row.document, row.signature) == ("1.2", None, None)
        assert session.query(FiguresRow).count() == 0

    def age(members: list[Member], manifest: dict) -> None:
        for index, (name, data) in enumerate(members):
            if name == "reports.jsonl":
                row = json.loads(data)
                members[index] = (name, json.dumps({k: v for k, v in row.items() if v is not None}).encode() + b"\n")

    rewritten(tmp_path / "b", age)
    made = recover(tmp_path / "b", tmp_path / "older", WORDS)
    with reading(open_database(load_config(made.config).database_url)) as session:
        assert [row.document for row in session.query(ReportRow)] == [None]


# the restore role's own list


@pytest.fixture
def filled(site: Path) -> Vault:
    """A vault with one original, which the restore role has seen."""
    vault = open_vault(load_config(site))
    record = vault.store(data_set(b"one"))
    (site.parent / "state" / "restore").mkdir()
    SeenRecords(site.parent / "state" / "restore" / "records.sqlite").note([record])
    return vault


def restorer_of(config: Config) -> Restorer:
    seen = SeenRecords(config.site.state / "restore" / "records.sqlite")
    engine = open_database(config.database_url)
    return Restorer(engine, config.site.state / "vault", OpeningKeys.load(config.keys), config.site.name, seen)


def forge(vault: Vault) -> None:
    """Sign the one record anew with another policy, as whoever holds the signing key can."""
    record = vault.records.by_original_uid("1.2.3.1")
    with transaction(vault.engine) as session:
        row = session.get_one(VaultRow, record.locator)
        document = row.document.replace(b'"policy":"policy-1"', b'"policy":"policy-2"')
        assert document != row.document
        session.execute(
            update(VaultRow).values(document=document, signature=vault.sealing.signer.sign(document), policy="policy-2")
        )


def test_a_record_that_was_changed_is_known_after_a_recovery(filled: Vault, site: Path, tmp_path: Path):
    made = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS)
    assert any("list-recovered" in note for note in made.notes)
    config = load_config(made.config)
    assert (config.site.state / "restore" / "records.sqlite").stat().st_mode & 0o777 == 0o600
    restorer = restorer_of(config)
    assert not restorer.begins_list()
    restorer.by_uid("1.2.3.1").verify()
    forge(open_vault(config))
    assert code_of(lambda: restorer.by_uid("1.2.3.1")) == "record-changed"


def test_what_was_forged_before_the_backup_is_not_trusted_after_it(filled: Vault, site: Path, tmp_path: Path):
    forge(filled)
    config = load_config(recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS).config)
    assert code_of(lambda: restorer_of(config).by_uid("1.2.3.1")) == "record-changed"


def test_without_a_list_that_is_told(site: Path, tmp_path: Path):
    vault = open_vault(load_config(site))
    vault.store(data_set(b"one"))
    made = recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS)
    assert any("holds no list" in note and "list-begun" in note for note in made.notes)
    config = load_config(made.config)
    assert not (config.site.state / "restore").exists()
    (config.site.state / "restore").mkdir()
    assert restorer_of(config).begins_list()


def test_a_record_that_goes_on_while_the_backup_is_written_is_no_forgery(
    filled: Vault, site: Path, tmp_path: Path, monkeypatch
):
    dump = module._dump

    def goes_on(engine, table, out):
        yield from dump(engine, table, out)
        if table is VaultRow:
            assert filled.records.fix_derived(filled.records.by_original_uid("1.2.3.1").locator, "1" * 64)
            now = filled.records.by_original_uid("1.2.3.1")
            SeenRecords(site.parent / "state" / "restore" / "records.sqlite").note([now])

    monkeypatch.setattr(module, "_dump", goes_on)
    config = load_config(recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS).config)
    restorer_of(config).by_uid("1.2.3.1").verify()


def test_a_list_that_cannot_be_read_stops_the_backup(filled: Vault, site: Path, tmp_path: Path):
    (site.parent / "state" / "restore" / "records.sqlite").write_bytes(b"no database" * 100)
    assert code_of(lambda: saved(site, tmp_path / "b")) == "list-unavailable"
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob(".*"))


def test_the_next_start_tells_once_that_the_list_was_recovered(filled: Vault, site: Path, tmp_path: Path):
    config = load_config(recover(saved(site, tmp_path / "b"), tmp_path / "new", WORDS).config)
    marker = config.site.state / "restore" / "recovered.json"
    assert json.loads(marker.read_text())["taken_at"] > 1_700_000_000
    for _ in range(2):
        _tell_of_recovery(marker, AuditLog(tmp_path / "audit.jsonl"))
    [line] = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["reason"]) == ("record-changed", "list-recovered")
