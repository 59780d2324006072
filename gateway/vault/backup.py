"""Everything that a site needs to come back as it was, in one encrypted file. `gateway.vault.recovery` is the way back.

A backup holds the keys (the private ones too), the configuration file as it stands, the files that it names
(certificates and their keys among them), the restore role's own list of records, the records, their sealed payloads,
what protection reports tell of them (the figures of marked copies, and which reports went out), and which originals
archives were told are committed: those must never end. It is a tar stream inside a chunked file, under a key that
scrypt (RFC 7914) makes from a passphrase; layout: deploy/formats.md, "backup".

The restore role's list is read first, records second, payloads third. So a record can have gone on since the list was
read, as it may, but never the other way round, which would look like a forgery. A payload that is sealed meanwhile may
be in the backup without its record, and is then left out; a record whose payload was not put yet is in it, and its
payload when it came in time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sqlite3
import struct
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from sqlalchemy import ColumnElement, Engine, LargeBinary, inspect, select, true, tuple_

from gateway.config.lines import KeyPath
from gateway.config.models import Config, Keys
from gateway.config.secret import SecretRef
from gateway.config.source import Source
from gateway.config.toml_text import to_toml
from gateway.database import Base, FiguresRow, PayloadCheckRow, ReportRow, VaultRow, open_database, reading
from gateway.errors import ConfigError, NotFoundError, VaultError
from gateway.keys import ChunkedWriter, OpeningKeys, pem
from gateway.keys.generate import sync_folder
from gateway.keys.pair import PROOF_NAME, read_proof
from gateway.vault.manifest import (
    CONFIG,
    FILES,
    KEYS,
    LARGEST_CONFIG,
    LARGEST_KEY,
    MANIFEST,
    MOST_KEYS,
    RESTORE_LIST,
)
from gateway.vault.places import VAULT, open_payloads, restore_list
from gateway.vault.site_files import PRIVATE, PUBLIC, SiteFiles, collect

MAGIC = b"MGBK"
Progress = Callable[[int, int], None]

VERSION = 4
HEAD = struct.Struct(">4sBBBB16s")  # magic, version, log2 of scrypt's N, r, p, salt
_LOG_N, _R, _P = 17, 8, 1  # 128 MiB of memory, once
RECORDS = "records.jsonl"
TABLES: dict[str, type[Base]] = {
    RECORDS: VaultRow,
    "figures.jsonl": FiguresRow,
    "reports.jsonl": ReportRow,
    "promises.jsonl": PayloadCheckRow,
}
_ONLY: dict[type[Base], ColumnElement[bool]] = {
    PayloadCheckRow: PayloadCheckRow.promised_at.is_not(None)
}  # what was only looked at is looked at again
_PAGE = 500
SHORTEST_PASSPHRASE = 12  # characters; of new backups: older ones are read with whatever they have
ABOUT = ("institution", "manufacturer", "contact")  # of the site, in reports and copies


@dataclass(frozen=True)
class _Key:
    """One key as a file: which setting names it, and how (a reference: its value may come from elsewhere)."""

    setting: KeyPath
    reference: str
    name: str
    mode: int
    data: bytes


def backup(
    config: Config, out: Path, passphrase: str, source: Path | None = None, progress: Progress | None = None
) -> None:
    """Write a backup of the site to `out`, which appears complete or not at all.

    Keys that are given by `env:` or `credential:` are written as files under their usual names; the configuration file
    goes in byte for byte, its references as they stand.

    Parameters
    ----------
    source
        The file that `config` was read from; None where there is none, and what comes back restores, no more.
    progress
        Called with (originals written, originals in all).

    Raises
    ------
    ConfigError
        A key cannot be read; the private restore key is one of them. ``restore-pair-differs``.
        ``passphrase-too-short``: under `SHORTEST_PASSPHRASE` characters. ``config-changed``: `source` says something
        else by now. A file that the configuration names cannot be had: the codes of
        `gateway.vault.site_files.collect`. ``backup-too-large``.
    VaultError
        ``backup-exists``: `out` is there already. ``list-unavailable``: the restore role's list cannot be read.
    """
    if len(passphrase.strip()) < SHORTEST_PASSPHRASE:
        raise ConfigError(
            "passphrase-too-short",
            f"the passphrase has fewer than {SHORTEST_PASSPHRASE} characters, and is all that guards the private key",
            "take several words that do not belong together",
        )
    if out.exists():
        raise VaultError("backup-exists", f"{out} is there already", "give another name: backups are not replaced")
    written = _configuration(config, source)
    site, keys = collect(config), _keys(config)
    if len(keys) > MOST_KEYS or len(written or b"") > LARGEST_CONFIG:
        message = f"no backup takes more than {MOST_KEYS} keys, or a configuration of over {LARGEST_CONFIG >> 20} MiB"
        raise ConfigError("backup-too-large", message)
    engine = open_database(config.database_url)
    head = HEAD.pack(MAGIC, VERSION, _LOG_N, _R, _P, os.urandom(16))
    handle, name = tempfile.mkstemp(prefix=".backup-", dir=out.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            chunks = ChunkedWriter(file, passphrase_key(passphrase, head), head)
            with tarfile.open(fileobj=cast(IO[bytes], chunks), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                manifest: dict[str, Any] = {"version": VERSION, "site": config.site.name, "taken_at": time.time()}
                manifest["about"] = {name: getattr(config.site, name) for name in ABOUT}
                _write_site(tar, manifest, keys, site, written, source)
                _write_vault(tar, manifest["sha256"], config, engine, progress)
                data = json.dumps(manifest, sort_keys=True).encode()
                _add(tar, {}, MANIFEST, io.BytesIO(data), len(data))
            chunks.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, out)
        try:
            sync_folder(out.absolute().parent)
        except OSError:  # a backup that a power cut would take away must not be there to be relied on
            out.unlink(missing_ok=True)
            raise
    finally:
        Path(name).unlink(missing_ok=True)


def _configuration(config: Config, source: Path | None) -> bytes | None:
    """The bytes of the configuration file, which must say what is backed up; with parts, of all of it as one."""
    if source is None:
        return None
    read = Source.read(source)
    if read.parse() != config:
        raise ConfigError("config-changed", f"{source} was changed after it was read", "run the command again")
    if len(read.texts) == 1:
        return source.read_bytes()
    return f"# {source.name} and its conf.d, joined\n{to_toml(read.table)}".encode()


def _write_site(
    tar: tarfile.TarFile,
    manifest: dict[str, Any],
    keys: list[_Key],
    site: SiteFiles,
    written: bytes | None,
    source: Path | None,
) -> None:
    """Keys, configuration and the files that it names; `manifest` gets what becomes of each."""
    digests: dict[str, str] = {}
    files: dict[str, dict[str, str]] = {}

    def add(name: str, data: bytes, path: str, kind: str, mode: int, folder: str) -> None:
        _add(tar, digests, name, io.BytesIO(data), len(data))
        files[name] = {"path": path, "kind": kind, "mode": f"{mode:04o}", "folder": folder}

    for key in keys:
        add(f"{KEYS}/{key.name}", key.data, key.reference, str(key.setting[1]), key.mode, KEYS)
    if written is not None:
        add(CONFIG, written, str(source and source.absolute()), "configuration", PRIVATE, "")
    for one in site.files:
        add(f"{FILES}/{one.name}", one.data, str(one.path), one.kind, one.mode, one.folder)
    manifest["sha256"], manifest["files"] = digests, files
    manifest["folders"] = {name: f"{mode:04o}" for name, mode in site.folders.items()}
    manifest["settings"] = [*([key.setting, f"{KEYS}/{key.name}"] for key in keys), *site.settings]
    manifest["left_out"] = site.left_out
    manifest["trusted_signers"] = [key.name for key in keys if key.setting[1] == "trusted_signers"]


def _write_vault(
    tar: tarfile.TarFile, digests: dict[str, str], config: Config, engine: Engine, progress: Progress | None
) -> None:
    """The restore role's list, rows and payloads, in this order."""
    _write_list(tar, digests, config)
    live: list[str] = []
    for name, table in TABLES.items():
        with tempfile.TemporaryFile(dir=config.site.state) as rows:
            for row in _dump(engine, table, rows):
                if isinstance(row, VaultRow) and row.payload_file is not None:
                    live.append(row.locator)
            size = rows.tell()
            rows.seek(0)
            _add(tar, digests, name, rows, size)
    payloads = open_payloads(config)
    for done, locator in enumerate(live, start=1):
        if progress is not None:
            progress(done, len(live))
        try:
            payload = payloads.open(locator)
        except NotFoundError:
            continue  # not put yet, or purged since the records were read
        with payload:
            size = os.fstat(payload.fileno()).st_size
            _add(tar, digests, f"{VAULT}/{locator}", payload, size)


def _write_list(tar: tarfile.TarFile, digests: dict[str, str], config: Config) -> None:
    """A copy of the list as it is at one moment, whoever writes it meanwhile; a site that never restored has none."""
    file = restore_list(config)
    if not file.exists():
        return
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=config.site.state) as folder:
        copy = Path(folder) / RESTORE_LIST
        copy.touch(mode=PRIVATE)
        try:
            where = f"{file.absolute().as_uri()}?mode=rw"  # readers of a write-ahead log write its index
            with closing(sqlite3.connect(where, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            message = f"the restore role's list of records cannot be read: {error}"
            raise VaultError("list-unavailable", message, f"look at {file}; without it no backup is made") from None
        with copy.open("rb") as content:
            _add(tar, digests, RESTORE_LIST, content, copy.stat().st_size)


def _keys(config: Config) -> list[_Key]:
    """Every key, read; public halves and what vouches for them may be seen by others, as where they were made."""
    keys = config.keys
    OpeningKeys.load(keys)  # compares the restore keys
    made = [
        _key(keys.restore_public_key, "restore_public_key", "restore.public.pem", PUBLIC),
        *_proof(keys),
        _key(keys.restore_private_key, "restore_private_key", "restore.private.pem"),
        own := _key(keys.signing_key, "signing_key", "signing.private.pem"),
        _key(keys.spool_key, "spool_key", "spool.key"),
        _key(keys.uid_key, "uid_key", "uid.key"),
        _key(keys.mark_key, "mark_key", "mark.key"),
    ]
    signer = pem.private_key(own.data, Ed25519PrivateKey, "keys.signing_key").public_key()
    for number, reference in enumerate(keys.trusted_signers):
        key = _key(reference, "trusted_signers", f"signer-{number + 1}.public.pem", PUBLIC)
        is_own = pem.public_key(key.data, Ed25519PublicKey, "keys.trusted_signers") == signer
        name = "signing.public.pem" if is_own else key.name
        if name not in [one.name for one in made]:
            made.append(replace(key, setting=("keys", "trusted_signers", number), name=name))
    return made


def _key(reference: SecretRef, setting: str, name: str, mode: int = PRIVATE) -> _Key:
    data = reference.resolve(private=mode == PRIVATE)
    if len(data) > LARGEST_KEY:
        message = f"keys.{setting} has more than {LARGEST_KEY >> 10} KiB, which no key has"
        raise ConfigError("backup-too-large", message, "is this the file that is meant?")
    return _Key(("keys", setting), reference, name, mode, data)


def _proof(keys: Keys) -> list[_Key]:
    """What vouches for the public key, wherever it lies: beside that key from now on."""
    if (data := read_proof(keys)) is None or keys.proof is None:
        return []
    return [_Key(("keys", "restore_proof"), keys.proof, PROOF_NAME, PUBLIC, data)]


def _dump(engine: Engine, table: type[Base], out: BinaryIO) -> Iterator[Base]:
    """Write the rows of a table as JSON lines, and give each of them; read page by page, in the order of its key."""
    key = inspect(table).primary_key
    after: tuple[Any, ...] | None = None
    while True:
        query = select(table).where(_ONLY.get(table, true())).order_by(*key).limit(_PAGE)
        with reading(engine) as session:
            page = session.scalars(query if after is None else query.where(tuple_(*key) > after)).all()
        for row in page:
            values = {column.name: getattr(row, column.name) for column in table.__table__.columns}
            after = tuple(values[column.name] for column in key)
            for name in binary_columns(table):
                if values[name] is None:
                    continue  # reports of versions that did not sign
                values[name] = base64.b64encode(values[name]).decode("ascii")
            out.write(json.dumps(values, sort_keys=True).encode("ascii") + b"\n")
            yield row
        if len(page) < _PAGE:
            return


def binary_columns(table: type[Base]) -> list[str]:
    """Columns whose values stand in base64."""
    return [column.name for column in table.__table__.columns if isinstance(column.type, LargeBinary)]


def _add(tar: tarfile.TarFile, digests: dict[str, str], name: str, source: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    digesting = Digesting(source)
    tar.addfile(info, digesting)
    digests[name] = digesting.digest.hexdigest()


class Digesting:
    """Hashes what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def passphrase_key(passphrase: str, head: bytes) -> bytes:
    """The key of the chunked file that a backup is, from the passphrase and the first `HEAD.size` bytes."""
    _, _, log_n, r, p, salt = HEAD.unpack(head)
    return Scrypt(salt=salt, length=32, n=1 << log_n, r=r, p=p).derive(passphrase.encode("utf-8"))
