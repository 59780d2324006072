"""The files beside the keys that a configuration names: certificates, their keys, whom we trust, logos, generators.

They are read before anything is written, all at once, so that a certificate and its key belong together. In a backup
they have flat names; where each comes back and with which mode stands in the manifest, never in a name.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.lines import KeyPath, format_path
from gateway.config.models import Config
from gateway.config.named import named_paths
from gateway.errors import ConfigError

MOST_FILES = 4096
LARGEST_FILE = 64 << 20  # bytes
LARGEST_SUM = 256 << 20
PRIVATE, PUBLIC = 0o600, 0o644
CLOSED, OPEN = 0o700, 0o755  # folders
_PRIVATE_KEY = b"PRIVATE KEY-----"  # PEM (RFC 7468): some keep a certificate and its key in one file


@dataclass(frozen=True)
class SiteFile:
    """One file: where it lay, what for, and where and how it comes back (`folder`: below the recovered site)."""

    name: str
    path: Path
    kind: str  # the key that names it: certificate, private_key, trust ...
    folder: str
    mode: int
    data: bytes

    @property
    def place(self) -> str:
        """Where it comes back, relative to the recovered site."""
        return f"{self.folder}/{self.name}"


@dataclass
class SiteFiles:
    """What `collect` found: the files, the folders that they come back in with their modes, and each setting's place.

    left_out: settings that name what no backup holds, with their absolute paths.
    """

    files: list[SiteFile] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    settings: list[tuple[KeyPath, str]] = field(default_factory=list)
    left_out: list[tuple[KeyPath, str]] = field(default_factory=list)


def collect(config: Config) -> SiteFiles:
    """Read all files that the configuration names, but for keys, the state folder and packs of surrogates.

    Packs name further files, of any size; whoever has the site's images can train them anew.

    Raises
    ------
    ConfigError
        ``backup-file-missing``, ``backup-file-unreadable``, ``backup-file-too-large``, ``backup-too-many-files``: with
        the setting and the file. Nothing was written.
    """
    found = SiteFiles()
    settings = [(path, file) for path, file in named_paths(config) if path != ("site", "state")]
    private = {_real(file) for path, file in settings if path[-1] == "private_key"}
    known: dict[str, str] = {}  # several tables may name one file: it is kept once
    for path, file in settings:
        if path[0] == "surrogates":
            found.left_out.append((path, str(file)))
            continue
        if _real(file) not in known:
            known[_real(file)] = _take(found, path, file, private)
        found.settings.append((path, known[_real(file)]))
    return found


def _take(found: SiteFiles, path: KeyPath, file: Path, private: set[str]) -> str:
    """Read one file, or all files of a folder; gives the place where it comes back."""
    top = "tls" if "tls" in path else "files"
    found.folders.setdefault(top, CLOSED)
    if not os.path.isdir(file):
        _read_into(found, path, file, top, private)
        return found.files[-1].place
    folder = f"{top}/{path[-1]}-{len(found.folders)}"
    found.folders[folder] = OPEN
    inside = sorted(one for one in _entries(path, file) if not (os.path.isdir(one) or one.name.startswith(".")))
    if not inside:
        raise ConfigError(
            "backup-file-missing",
            f"{format_path(path)}: there is no file in {file}",
            "put the files back, or correct the setting",
        )
    for entry in inside:
        _read_into(found, path, entry, folder, private)
    return folder


def _entries(path: KeyPath, folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _unreadable(path, folder, error) from None


def _read_into(found: SiteFiles, path: KeyPath, file: Path, folder: str, private: set[str]) -> None:
    data = _read(path, file)
    if len(found.files) == MOST_FILES:
        message = f"{format_path(path)}: with {file} the configuration names more than {MOST_FILES} files"
        raise ConfigError("backup-too-many-files", message, "name a folder that holds only what is trusted")
    if sum(len(one.data) for one in found.files) + len(data) > LARGEST_SUM:
        message = f"{format_path(path)}: with {file} the files of the configuration have over {LARGEST_SUM >> 20} MiB"
        raise ConfigError("backup-file-too-large", message, "name smaller files, or a folder with fewer of them")
    mode = PRIVATE if _real(file) in private or _PRIVATE_KEY in data else PUBLIC
    name = _flat(len(found.files), file)
    found.files.append(SiteFile(name, file, str(path[-1]), folder, mode, data))


def _read(path: KeyPath, file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would let us wait for ever
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError("backup-file-unreadable", f"{format_path(path)}: {file} is no file")
            data = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _unreadable(path, file, error) from None
    if len(data) > LARGEST_FILE:
        message = f"{format_path(path)}: {file} has more than {LARGEST_FILE >> 20} MiB"
        raise ConfigError("backup-file-too-large", message, "is this the file that is meant?")
    return data


def _unreadable(path: KeyPath, file: Path, error: OSError) -> ConfigError:
    code = "backup-file-missing" if isinstance(error, FileNotFoundError) else "backup-file-unreadable"
    hint = "no backup was written: put the file back, or correct the setting"
    return ConfigError(code, f"{format_path(path)}: cannot read {file}: {error.strerror}", hint)


def _flat(number: int, file: Path) -> str:
    """A name without folders, unlike all others by its number; its ending stays, by which trusted files are known."""
    return f"{number:04d}-{re.sub(r'[^A-Za-z0-9._-]', '_', file.name)[-80:]}"


def _real(file: Path) -> str:
    return os.path.realpath(file)
