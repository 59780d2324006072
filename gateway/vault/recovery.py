"""The way back from a backup (`gateway.vault.backup`): every version that was ever released is read.

A backup is authentic when its passphrase opens it, and is held to its form all the same: names are flat, nothing comes
twice, sizes and numbers are bounded, and modes come from the manifest. Versions 1 and 2 have keys and vault alone.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from sqlalchemy import select

from gateway.config.load import make_absolute
from gateway.config.models import Config, Database, Site
from gateway.database import Base, VaultRow, open_database, transaction
from gateway.errors import SealError, VaultError
from gateway.keys import ChunkedReader
from gateway.keys.generate import write_key_file
from gateway.keys.pair import PROOF_NAME
from gateway.vault.backup import HEAD, MAGIC, RECORDS, TABLES, Digesting, Progress, binary_columns, passphrase_key
from gateway.vault.manifest import (
    CONFIG,
    FILES,
    KEYS,
    LARGEST_CONFIG,
    LARGEST_KEY,
    LARGEST_MANIFEST,
    MANIFEST,
    MOST_KEYS,
    RESTORE_LIST,
    Manifest,
    is_flat,
    read_manifest,
)
from gateway.vault.payloads import PayloadStore
from gateway.vault.places import LIST_RECOVERED, VAULT
from gateway.vault.places import RESTORE_LIST as LIST_PLACE
from gateway.vault.recovered import RECOVERED, configuration
from gateway.vault.site_files import LARGEST_FILE, LARGEST_SUM, MOST_FILES

_KNOWN = (1, 2, 3, 4)
_SITE_VERSION = 3  # the first with configuration, files and list
_PIECE = 1 << 20
_PAGE = 500
_NEVER = "the backup holds something that a backup never holds"


@dataclass(frozen=True)
class Recovered:
    """What came back: the configuration to go on with, and what a person has to know, a line each."""

    config: Path
    notes: tuple[str, ...]


def recover(
    archive: Path, folder: Path, passphrase: str, database_url: str = "", progress: Progress | None = None
) -> Recovered:
    """Bring a backup back into an empty or new folder, which is filled completely or not at all.

    Afterwards `folder` holds `keys/`, `tls/` and `files/` (what the configuration names), `gateway.toml` as it was,
    `state/vault/`, the restore role's list in `state/restore/`, a fresh `state/gateway.sqlite` (or the records went
    into the empty database that `database_url` names) and `recovered.toml`: the site's whole configuration with its
    paths led to all this. Of versions 1 and 2 come keys and vault, and a configuration that restores.

    Parameters
    ----------
    database_url
        As `database.url` in the configuration: a URL, or a reference to one. Empty: SQLite in the state folder.
    progress
        Called with (MiB of the backup that were read, MiB in all).

    Raises
    ------
    VaultError
        ``folder-not-empty``, ``backup-format``, ``backup-incomplete`` (files missing, or not what the manifest says),
        ``database-not-empty``.
    SealError
        ``wrong-key`` (the passphrase), ``truncated``, ``tampered``, ``seal-format``.
    ConfigError
        The reference to the database cannot be resolved.
    """
    if folder.exists() and any(folder.iterdir()):
        raise VaultError("folder-not-empty", f"{folder} is not empty", "recover into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".recover-", dir=folder.absolute().parent))
    try:
        with open(archive, "rb") as file:
            content = _Content(made, file.read(HEAD.size))
            content.unpack(_open_chunks(file, content.head, passphrase), _watching(file, progress))
        manifest = content.manifest
        _place_files(made, manifest)
        has_list = _place_list(made, manifest)
        notes = configuration(made, manifest, database_url, has_list=has_list)
        _fill_database(made, database_url)
        for name in TABLES:
            (made / name).unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()
        os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Recovered(folder / RECOVERED, tuple(notes))


def _open_chunks(file: BinaryIO, head: bytes, passphrase: str) -> ChunkedReader:
    try:
        return ChunkedReader(file, passphrase_key(passphrase, head), head)
    except SealError as error:
        if error.code == "wrong-key":
            raise SealError("wrong-key", "the passphrase does not fit this backup, or its header was changed") from None
        raise


def _watching(file: BinaryIO, progress: Progress | None) -> Callable[[], None]:
    """What tells, whenever it is called, how far the backup's file was read."""
    if progress is None:
        return lambda: None
    size = os.fstat(file.fileno()).st_size
    return lambda: progress(file.tell() >> 20, size >> 20)


class _Content:
    """Unpacks the tar of one backup into a folder, everything closed to others as long as the manifest is not read."""

    manifest: Manifest

    def __init__(self, folder: Path, head: bytes) -> None:
        if len(head) < HEAD.size or head[:4] != MAGIC or head[4] not in _KNOWN or not _is_bearable(*head[5:8]):
            raise VaultError("backup-format", "this is not a backup of a version that is known here")
        self.head = head
        self._folder = folder
        self._digests: dict[str, str] = {}
        self._bytes = 0  # of files
        for name in (KEYS, FILES, "state", f"state/{VAULT}"):
            (folder / name).mkdir(mode=0o700)
        self._payloads = PayloadStore(folder / "state" / VAULT)

    def unpack(self, chunks: ChunkedReader, moved: Callable[[], None]) -> None:
        """Write everything; `manifest` is there afterwards, and everything was held against it. `moved`: after each."""
        manifest = None
        try:
            with tarfile.open(fileobj=cast(IO[bytes], chunks), mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    if content is None or member.name in self._digests or manifest is not None:
                        raise VaultError("backup-format", _NEVER)
                    if member.name == MANIFEST and member.size <= LARGEST_MANIFEST:
                        manifest = content.read()
                        continue
                    source = Digesting(cast(BinaryIO, content))
                    self._take(member.name, source, member.size)
                    self._digests[member.name] = source.digest.hexdigest()
                    moved()
            while chunks.read(_PIECE):
                pass  # up to the final chunk: a backup that was cut short is none
            moved()
        except (tarfile.TarError, ValueError):
            raise VaultError("backup-format", "the backup's content cannot be read") from None
        if manifest is None or RECORDS not in self._digests:
            raise VaultError("backup-incomplete", "the backup's content is not what its manifest says")
        self.manifest = read_manifest(manifest)
        if self.manifest.sha256 != self._digests:
            raise VaultError("backup-incomplete", "the backup's content is not what its manifest says")
        if self.manifest.version != self.head[4]:
            raise VaultError("backup-format", "head and manifest of the backup name two versions")

    def _take(self, name: str, source: Digesting, size: int) -> None:
        place, slash, flat = name.partition("/")
        is_site = self.head[4] >= _SITE_VERSION
        if slash and not is_flat(flat):
            raise VaultError("backup-format", _NEVER)
        if place == KEYS and slash and size <= LARGEST_KEY and self._count(KEYS) < MOST_KEYS:
            write_key_file(self._folder / name, source.read(), 0o600)
        elif place == VAULT and slash:
            self._payloads.put(flat, partial(shutil.copyfileobj, source, length=_PIECE))
        elif name in TABLES or (is_site and (name == RESTORE_LIST or (name == CONFIG and size <= LARGEST_CONFIG))):
            self._write(self._folder / name, source)
        elif is_site and place == FILES and slash and size <= LARGEST_FILE and self._count(FILES) < MOST_FILES:
            self._bytes += size
            if self._bytes > LARGEST_SUM:
                raise VaultError("backup-format", _NEVER)
            self._write(self._folder / name, source)
        else:
            raise VaultError("backup-format", _NEVER)

    def _count(self, place: str) -> int:
        return sum(1 for name in self._digests if name.startswith(f"{place}/"))

    @staticmethod
    def _write(path: Path, source: Digesting) -> None:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            shutil.copyfileobj(source, out, _PIECE)
            out.flush()
            os.fsync(out.fileno())


def _place_files(folder: Path, manifest: Manifest) -> None:
    """Every file goes where the manifest says, with the mode that it says; in versions that say nothing, as then."""
    staged = folder / ".files"
    os.rename(folder / FILES, staged)
    for name, mode in sorted(manifest.folders.items()):
        (folder / name).mkdir(mode=0o700)
        (folder / name).chmod(int(mode, 8))
    for name, entry in manifest.files.items():
        file = folder / manifest.place(name)
        if name.startswith(f"{FILES}/"):
            os.rename(staged / name.partition("/")[2], file)
        file.chmod(int(entry.mode, 8))
    staged.rmdir()
    if manifest.version < _SITE_VERSION:
        for file in (folder / KEYS).iterdir():
            file.chmod(0o644 if "public" in file.name or file.name == PROOF_NAME else 0o600)


def _place_list(folder: Path, manifest: Manifest) -> bool:
    """The restore role's list, and beside it for the role's next start when it was taken. Whether there is one."""
    if not (folder / RESTORE_LIST).exists():
        return False
    place = folder / "state" / LIST_PLACE
    place.parent.mkdir(mode=0o700)
    os.rename(folder / RESTORE_LIST, place)
    place.with_name(LIST_RECOVERED).write_text(json.dumps({"taken_at": manifest.taken_at}), "utf-8")
    return True


def _fill_database(folder: Path, url: str) -> None:
    config = Config(site=Site(state=folder / "state"), database=make_absolute(Database(url=url), Path.cwd()))
    engine = open_database(config.database_url)
    with transaction(engine) as session:
        if session.scalars(select(VaultRow.locator).limit(1)).first() is not None:
            raise VaultError("database-not-empty", "the database to recover into holds records already")
        for name, table in TABLES.items():
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
        for name in binary_columns(table):
            if values.get(name) is not None:  # nothing, or a column that is younger than the backup
                values[name] = base64.b64decode(values[name])
        page.append(table(**values))
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _is_bearable(log_n: int, r: int, p: int) -> bool:
    """Whether scrypt with these parameters stays within 1 GiB of memory and some seconds."""
    return 10 <= log_n <= 20 and 1 <= r <= 8 and 1 <= p <= 4
