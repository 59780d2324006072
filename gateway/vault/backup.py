"""Everything that a site needs to get its originals back, in one encrypted file; and the way back from it.

A backup holds the keys (the private ones too), the records, their sealed payloads, and what protection reports tell of
them: the figures of marked copies, and which reports went out. It is a tar stream inside a chunked file, under a key
that scrypt (RFC 7914) makes from a passphrase; layout: deploy/formats.md, "backup".

Records are read first, payloads second: a payload that is sealed meanwhile may be in the backup without its record, and
is then left out; a record whose payload was not put yet is in it, and its payload when it came in time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from sqlalchemy import Engine, LargeBinary, inspect, select, tuple_

from gateway.config.models import Config
from gateway.config.secret import SecretRef
from gateway.database import Base, FiguresRow, ReportRow, VaultRow, open_database, reading, sqlite_url, transaction
from gateway.errors import ConfigError, NotFoundError, SealError, VaultError
from gateway.keys import ChunkedReader, ChunkedWriter, pem
from gateway.keys.generate import write_key_file
from gateway.keys.pair import PROOF_NAME
from gateway.vault.payloads import PayloadStore
from gateway.vault.places import VAULT, vault_folder

MAGIC = b"MGBK"
VERSION = 2
_KNOWN = (1, 2)  # version 1 has records alone
CONFIG_NAME = "recovered.toml"
_HEAD = struct.Struct(">4sBBBB16s")  # magic, version, log2 of scrypt's N, r, p, salt
_LOG_N, _R, _P = 17, 8, 1  # 128 MiB of memory, once
_RECORDS = "records.jsonl"
_TABLES: dict[str, type[Base]] = {
    _RECORDS: VaultRow,
    "figures.jsonl": FiguresRow,
    "reports.jsonl": ReportRow,
}
_MANIFEST = "manifest.json"
_KEYS = "keys"
_PIECE = 1 << 20
_PAGE = 500
SHORTEST_PASSPHRASE = 12  # characters; of new backups: older ones are read with whatever they have
_ABOUT = ("institution", "manufacturer", "contact")  # of the site, in reports and copies


def backup(config: Config, out: Path, passphrase: str) -> None:
    """Write a backup of keys, records and payloads to `out`, which appears complete or not at all.

    Secrets given by `env:` are written as files under their usual names.

    Raises
    ------
    ConfigError
        A key cannot be read; the private restore key is one of them. ``passphrase-too-short``: under
        `SHORTEST_PASSPHRASE` characters.
    VaultError
        ``backup-exists``: `out` is there already.
    """
    if len(passphrase.strip()) < SHORTEST_PASSPHRASE:
        raise ConfigError(
            "passphrase-too-short",
            f"the passphrase has fewer than {SHORTEST_PASSPHRASE} characters, and is all that guards the private key",
            "take several words that do not belong together",
        )
    if out.exists():
        raise VaultError("backup-exists", f"{out} is there already", "give another name: backups are not replaced")
    engine = open_database(config.database_url)
    salt = os.urandom(16)
    head = _HEAD.pack(MAGIC, VERSION, _LOG_N, _R, _P, salt)
    handle, name = tempfile.mkstemp(prefix=".backup-", dir=out.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head)
            chunks = ChunkedWriter(file, _passphrase_key(passphrase, head), head)
            _write_tar(chunks, config, engine)
            chunks.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, out)
    finally:
        Path(name).unlink(missing_ok=True)


def recover(archive: Path, folder: Path, passphrase: str, database_url: str = "") -> Path:
    """Bring a backup back into an empty or new folder, which is filled completely or not at all.

    Afterwards `folder` holds `keys/`, `state/vault/`, a fresh `state/gateway.sqlite` (or the records went into the
    empty database at `database_url`) and a configuration, whose path is returned, that restores from all this.

    Raises
    ------
    VaultError
        ``folder-not-empty``, ``backup-format``, ``backup-incomplete`` (files missing, or not what the manifest says),
        ``database-not-empty``.
    SealError
        ``wrong-key`` (the passphrase), ``truncated``, ``tampered``, ``seal-format``.
    """
    if folder.exists() and any(folder.iterdir()):
        raise VaultError("folder-not-empty", f"{folder} is not empty", "recover into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".recover-", dir=folder.absolute().parent))
    try:
        with open(archive, "rb") as file:
            manifest = _read_tar(_open_chunks(file, passphrase), made)
        _fill_database(made, database_url or sqlite_url(made / "state" / "gateway.sqlite"))
        for name in _TABLES:
            (made / name).unlink(missing_ok=True)
        (made / CONFIG_NAME).write_text(_config_text(manifest, database_url), "utf-8")
        if folder.exists():
            folder.rmdir()
        os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder / CONFIG_NAME


# writing


def _write_tar(chunks: ChunkedWriter, config: Config, engine: Engine) -> None:
    digests: dict[str, str] = {}
    keys = _key_files(config)
    with tarfile.open(fileobj=cast(IO[bytes], chunks), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, data in keys.items():
            _add(tar, digests, f"{_KEYS}/{name}", io.BytesIO(data), len(data))
        live: list[str] = []
        for name, table in _TABLES.items():
            with tempfile.TemporaryFile(dir=config.site.state) as rows:
                for row in _dump(engine, table, rows):
                    if isinstance(row, VaultRow) and row.payload_file is not None:
                        live.append(row.locator)
                size = rows.tell()
                rows.seek(0)
                _add(tar, digests, name, rows, size)
        payloads = PayloadStore(vault_folder(config))
        for locator in live:
            try:
                payload = payloads.open(locator)
            except NotFoundError:
                continue  # not put yet, or purged since the records were read
            with payload:
                size = os.fstat(payload.fileno()).st_size
                _add(tar, digests, f"{VAULT}/{locator}", payload, size)
        signers = [name for name in keys if name.startswith(("signer-", "signing.public"))]
        manifest = {"version": VERSION, "site": config.site.name, "trusted_signers": signers, "sha256": digests}
        manifest["about"] = {name: getattr(config.site, name) for name in _ABOUT}
        data = json.dumps(manifest, sort_keys=True).encode()
        _add(tar, {}, _MANIFEST, io.BytesIO(data), len(data))


def _key_files(config: Config) -> dict[str, bytes]:
    keys = config.keys
    files = {
        "restore.public.pem": keys.restore_public_key.resolve(private=False),
        "restore.private.pem": keys.restore_private_key.resolve(),
        "signing.private.pem": keys.signing_key.resolve(),
        "spool.key": keys.spool_key.resolve(),
        "uid.key": keys.uid_key.resolve(),
        "mark.key": keys.mark_key.resolve(),
    }
    public = keys.restore_public_key.path
    if public is not None and (proof := public.with_name(PROOF_NAME)).exists():
        files[PROOF_NAME] = proof.read_bytes()
    own = pem.private_key(files["signing.private.pem"], Ed25519PrivateKey, "keys.signing_key").public_key()
    for number, reference in enumerate(keys.trusted_signers, start=1):
        data = reference.resolve(private=False)
        signer = pem.public_key(data, Ed25519PublicKey, "keys.trusted_signers")
        files["signing.public.pem" if signer == own else f"signer-{number}.public.pem"] = data
    return files


def _dump(engine: Engine, table: type[Base], out: BinaryIO) -> Iterator[Base]:
    """Write all rows of a table as JSON lines, and give each of them; read page by page, in the order of its key."""
    key = inspect(table).primary_key
    after: tuple[Any, ...] | None = None
    while True:
        query = select(table).order_by(*key).limit(_PAGE)
        with reading(engine) as session:
            page = session.scalars(query if after is None else query.where(tuple_(*key) > after)).all()
        for row in page:
            values = {column.name: getattr(row, column.name) for column in table.__table__.columns}
            after = tuple(values[column.name] for column in key)
            for name in _binary(table):
                values[name] = base64.b64encode(values[name]).decode("ascii")
            out.write(json.dumps(values, sort_keys=True).encode("ascii") + b"\n")
            yield row
        if len(page) < _PAGE:
            return


def _binary(table: type[Base]) -> list[str]:
    return [column.name for column in table.__table__.columns if isinstance(column.type, LargeBinary)]


def _add(tar: tarfile.TarFile, digests: dict[str, str], name: str, source: BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    digesting = _Digesting(source)
    tar.addfile(info, digesting)
    digests[name] = digesting.digest.hexdigest()


class _Digesting:
    """Hashes what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


# reading


def _open_chunks(file: BinaryIO, passphrase: str) -> ChunkedReader:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or head[:4] != MAGIC or head[4] not in _KNOWN or not _is_bearable(*head[5:8]):
        raise VaultError("backup-format", "this is not a backup of a version that is known here")
    try:
        return ChunkedReader(file, _passphrase_key(passphrase, head), head)
    except SealError as error:
        if error.code == "wrong-key":
            raise SealError("wrong-key", "the passphrase does not fit this backup, or its header was changed") from None
        raise


def _read_tar(chunks: ChunkedReader, folder: Path) -> dict[str, Any]:
    """Unpack into `folder`; gives the manifest, after everything was held against it."""
    for name in (_KEYS, "state", f"state/{VAULT}"):
        (folder / name).mkdir(mode=0o700 if name == _KEYS else 0o750)
    payloads = PayloadStore(folder / "state" / VAULT)
    digests: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(fileobj=cast(IO[bytes], chunks), mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                place, _, name = member.name.partition("/")
                if content is None or "/" in name or name.startswith("."):
                    raise VaultError("backup-format", "the backup holds something that a backup never holds")
                source = _Digesting(cast(BinaryIO, content))
                if member.name == _MANIFEST:
                    manifest = json.loads(source.read())
                    continue
                if place == _KEYS and name:
                    write_key_file(folder / _KEYS / name, source.read(), 0o644 if "public" in name else 0o600)
                elif place == VAULT:
                    payloads.put(name, partial(shutil.copyfileobj, source, length=_PIECE))
                elif member.name in _TABLES:
                    with open(folder / member.name, "xb") as out:
                        shutil.copyfileobj(source, out, _PIECE)
                else:
                    raise VaultError("backup-format", "the backup holds something that a backup never holds")
                digests[member.name] = source.digest.hexdigest()
        while chunks.read(_PIECE):
            pass  # up to the final chunk: a backup that was cut short is none
    except (tarfile.TarError, ValueError):
        raise VaultError("backup-format", "the backup's content cannot be read") from None
    if manifest is None or manifest.get("sha256") != digests or _RECORDS not in digests:
        raise VaultError("backup-incomplete", "the backup's content is not what its manifest says")
    return manifest


def _fill_database(folder: Path, url: str) -> None:
    engine = open_database(url)
    with transaction(engine) as session:
        if session.scalars(select(VaultRow.locator).limit(1)).first() is not None:
            raise VaultError("database-not-empty", "the database to recover into holds records already")
        for name, table in _TABLES.items():
            if not (folder / name).exists():
                continue
            with open(folder / name, "rb") as lines:
                for page in _pages(lines, table):
                    session.add_all(page)
                    session.flush()
                    session.expunge_all()
    engine.dispose()


def _pages(lines: BinaryIO, table: type[Base]) -> Iterator[list[Base]]:
    page: list[Base] = []
    for line in lines:
        values = json.loads(line)
        for name in _binary(table):
            values[name] = base64.b64decode(values[name])
        page.append(table(**values))
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _config_text(manifest: dict[str, Any], database_url: str) -> str:
    """A configuration for what was recovered; the site's own, with its peers and routes, is kept elsewhere."""
    about = manifest.get("about", {})
    signers = ", ".join(json.dumps(SecretRef(f"file:{_KEYS}/{name}")) for name in manifest["trusted_signers"])
    lines = [
        "# Made by `miad-gateway vault recover`: restores what the backup held.",
        "version = 1",
        "",
        "[site]",
        f"name = {json.dumps(manifest['site'])}",
        *(f"{name} = {json.dumps(about[name], ensure_ascii=False)}" for name in _ABOUT if name in about),
        "",
        "[keys]",
        f"trusted_signers = [{signers}]",
    ]
    if database_url:
        lines += ["", "[database]", f"url = {json.dumps(database_url)}"]
    return "\n".join(lines) + "\n"


def _is_bearable(log_n: int, r: int, p: int) -> bool:
    """Whether scrypt with these parameters stays within 1 GiB of memory and some seconds."""
    return 10 <= log_n <= 20 and 1 <= r <= 8 and 1 <= p <= 4


def _passphrase_key(passphrase: str, head: bytes) -> bytes:
    _, _, log_n, r, p, salt = _HEAD.unpack(head)
    return Scrypt(salt=salt, length=32, n=1 << log_n, r=r, p=p).derive(passphrase.encode("utf-8"))
