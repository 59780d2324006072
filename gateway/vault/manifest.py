"""The last file of a backup: what is in it, and where and how it comes back (deploy/formats.md, "Backup")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from gateway.config.base import Model, Problem, checked
from gateway.errors import VaultError

MANIFEST = "manifest.json"
KEYS = "keys"
FILES = "files"  # flat names; `FileEntry.folder` says where each comes back
CONFIG = "gateway.toml"
RESTORE_LIST = "restore-list.sqlite"
MOST_KEYS = 1024
LARGEST_KEY = 1 << 16  # bytes
LARGEST_CONFIG = 16 << 20
LARGEST_MANIFEST = 1 << 30  # a digest for each payload

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_FOLDER = re.compile(rf"(keys|(tls|files)(/{_NAME})?)?")  # below the recovered site; itself: ""


def _folder(value: str) -> str:
    if not _FOLDER.fullmatch(value):
        raise ValueError("no folder of a recovered site")
    return value


Folder = Annotated[str, AfterValidator(_folder)]
FileMode = Literal["0600", "0644"]
FolderMode = Literal["0700", "0755"]


class FileEntry(Model):
    """A file of the site: where it lay (a key: its reference), what for, and how it comes back."""

    path: str
    kind: str
    mode: FileMode
    folder: Folder


class Manifest(Model):
    """Versions 1 and 2 have the first three (1 without `about`); what is missing there says that it is not known."""

    version: int
    site: str
    trusted_signers: tuple[str, ...]
    sha256: dict[str, str]
    about: Mapping[str, str] = Field(default_factory=dict)
    taken_at: float | None = None  # seconds since 1970
    # Name in the backup to what becomes of it: of keys, the configuration and files.
    files: Mapping[str, FileEntry] = Field(default_factory=dict)
    folders: Mapping[Folder, FolderMode] = Field(default_factory=dict)
    settings: tuple[tuple[tuple[str | int, ...], str], ...] = ()  # setting, and its place in the recovered site
    left_out: tuple[tuple[tuple[str | int, ...], str], ...] = ()  # setting, and what it names on the old machine

    @model_validator(mode="after")
    def _agrees(self) -> Manifest:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if self.version < 3:
            return
        described = {name for name in self.sha256 if name == CONFIG or name.startswith((f"{KEYS}/", f"{FILES}/"))}
        if described != set(self.files):
            yield ("files",), "not what the backup holds"
        for name, entry in self.files.items():
            allowed = {"": {""}, KEYS: {KEYS}}.get(name.rpartition("/")[0], set(self.folders))
            if entry.folder not in allowed:
                yield ("files", name), "comes back where it does not belong"
        for folder in self.folders:
            if folder in ("", KEYS) or ("/" in folder and folder.partition("/")[0] not in self.folders):
                yield ("folders", folder), "no folder that a backup makes"
        places = [*self.folders, *map(self.place, self.files)]
        if len(set(places)) < len(places):
            yield ("files",), "two come back in one place"
        if any(place not in places for _, place in self.settings):
            yield ("settings",), "a setting names what is not there"

    def place(self, name: str) -> str:
        """Where a file of the backup comes back, relative to the recovered site."""
        folder = self.files[name].folder
        return f"{folder}/{name.rpartition('/')[2]}" if folder else name


def is_flat(name: str) -> bool:
    """Whether this may be the name of a file in a backup: no folder, not hidden, no characters that need care."""
    return re.fullmatch(_NAME, name) is not None


def read_manifest(data: bytes) -> Manifest:
    """Parse a manifest.

    Raises
    ------
    VaultError
        ``backup-format``.
    """
    try:
        return Manifest.model_validate_json(data, strict=True)
    except ValidationError:
        raise VaultError("backup-format", "the backup's manifest is not as this version knows it") from None
