"""Where sealed originals lie: one file per record, named by its locator, complete or not there at all.

`Payloads` is what every place for them can do: a folder here, an object store in `gateway.vault.objects`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from gateway.errors import CapacityError, NotFoundError, VaultError

LOCATOR = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = ".new-"
_FILE_MODE = 0o640  # sealed bytes: the restore role, another user of the same group, reads them
_FOLDER_MODE = 0o750
_PIECE = 1 << 20


class Payloads(Protocol):
    """A place for payloads. A payload that is there is complete; CapacityError: the place cannot be used now."""

    def put(self, locator: str, write: Callable[[BinaryIO], None]) -> None:
        """Store what `write` writes, unless it is there; returns when it is kept."""

    def open(self, locator: str) -> BinaryIO:
        """The payload as a file of the system, for reading; NotFoundError ``payload-missing``."""

    def exists(self, locator: str) -> bool:
        """Whether it is there."""

    def size(self, locator: str) -> int:
        """Its bytes; NotFoundError ``payload-missing``."""

    def delete(self, locator: str) -> bool:
        """Remove it; false when there was none."""

    def locators(self) -> Iterator[str]:
        """All of them, in no order."""

    def sweep(self, before: float) -> int:
        """Remove what killed processes left half written before that time (seconds since 1970); gives the count."""


class PayloadStore:
    """A folder of payload files. Made when missing; safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def put(self, locator: str, write: Callable[[BinaryIO], None]) -> None:
        """Store what `write` writes. When this returns, the payload survives a power cut.

        A payload that is there already is complete (it got its name by renaming), but whether its name was flushed
        nobody knows: whoever put it may have been killed before, or its flush may have failed, and a second one of the
        same entry may succeed and lie. So a copy of it takes its place, with an entry and flushes of its own; `write`
        is then not called. Two processes that put at once both succeed; one of the two equal payloads stays.

        Raises
        ------
        CapacityError
            ``disk-full``, or ``disk-error`` when a flush failed. Whatever `write` raises goes through; nothing half
            written is left behind either way.
        """
        target = self._path(locator)
        temporary = self.folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with open(temporary, "xb", opener=_private_to_group) as file:
                if not _copied(target, file):
                    write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            self._sync()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CapacityError("disk-full", "the vault's disk is full") from None
            if error.errno in (errno.EIO, errno.EROFS):
                words = f"the vault's disk does not take a sealed original: {error.strerror}"
                raise CapacityError("disk-error", words, "look at the disk: `dmesg` names it") from None
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, locator: str) -> BinaryIO:
        """The payload, for reading; NotFoundError ``payload-missing``."""
        try:
            return open(self._path(locator), "rb")
        except FileNotFoundError:
            raise NotFoundError("payload-missing", f"the sealed original of record {locator} is not there") from None

    def exists(self, locator: str) -> bool:
        """Whether the payload is there (then it is complete)."""
        return self._path(locator).exists()

    def size(self, locator: str) -> int:
        """Bytes of the payload file; NotFoundError ``payload-missing``."""
        try:
            return self._path(locator).stat().st_size
        except FileNotFoundError:
            raise NotFoundError("payload-missing", f"the sealed original of record {locator} is not there") from None

    def delete(self, locator: str) -> bool:
        """Remove the payload; false when there was none."""
        try:
            self._path(locator).unlink()
        except FileNotFoundError:
            return False
        self._sync()
        return True

    def locators(self) -> Iterator[str]:
        """The locators of all payloads, in no order."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if LOCATOR.fullmatch(entry.name):
                    yield entry.name

    def sweep(self, before: float) -> int:
        """Remove what killed processes left half written before `before` (seconds since 1970); gives the count."""
        count = 0
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue  # its writer ended, or another process sweeps too
        return count

    def _path(self, locator: str) -> Path:
        return self.folder / as_locator(locator)

    def _sync(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def as_locator(text: str) -> str:
    """The text, where it is a locator; VaultError ``bad-locator``: no name leads anywhere else."""
    if not LOCATOR.fullmatch(text):
        raise VaultError("bad-locator", "a locator has 32 lower-case hexadecimal digits")
    return text


def _copied(source: Path, out: BinaryIO) -> bool:
    """Copy a file; false when there is none."""
    try:
        with open(source, "rb") as file:
            shutil.copyfileobj(file, out, _PIECE)
    except FileNotFoundError:
        return False
    return True


def _private_to_group(name: str, flags: int) -> int:
    return os.open(name, flags, _FILE_MODE)
