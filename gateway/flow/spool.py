"""Encrypted files: received originals wait in them until they are delivered, derived files until they expire.

A file is either there whole or not there at all. Where files lie is behind `Files`: a folder of this machine here, an
object store in `gateway.flow.shared`. Their names are random or record locators, never anything from the object.
Contents are encrypted under the receiving roles' spool key (`gateway.keys.spoolfile`), each file bound to its own name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from gateway.errors import SealError
from gateway.keys.spoolfile import SpoolCipher

PARTIAL = ".part"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Contents:
    """Plain contents of a file: hexadecimal digest ("" when they are not what was written), and bytes."""

    sha256: str
    size: int


class Unpublished(Protocol):
    """A file being written as it is: there under its name only after `publish`, and durable then."""

    name: str

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes as they are."""

    def reopen(self) -> BinaryIO:
        """What was written so far, for reading."""

    def publish(self) -> None:
        """Make it durable under its name; CapacityError where the place for it cannot be used now."""

    def discard(self) -> None:
        """Forget it; also allowed after a failed write or publish."""


class Files(Protocol):
    """A place for files as they are. CapacityError: the place cannot be used now."""

    folder: Path  # of this machine: the files, or those on their way to a place elsewhere

    def new(self, name: str) -> Unpublished:
        """Begin a file."""

    def open(self, name: str) -> BinaryIO:
        """A published file for reading, seekable; FileNotFoundError."""

    def exists(self, name: str) -> bool:
        """Whether it is there."""

    def delete(self, name: str) -> None:
        """Delete it; one that is not there is no error (steps repeat)."""

    def names(self, older_than_s: float) -> Iterator[str]:
        """Names of all files, published or partial, last changed at least so many seconds ago."""


class Folder:
    """Files in one folder of ours (mode 0700 when it is made here): written under a temporary name, synced, renamed,
    and the folder synced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self, name: str) -> NewFile:
        """Begin a file."""
        return NewFile(self.folder, name)

    def open(self, name: str) -> BinaryIO:
        """A published file for reading; FileNotFoundError."""
        return open(self.folder / name, "rb")

    def exists(self, name: str) -> bool:
        """Whether it is there."""
        return (self.folder / name).is_file()

    def delete(self, name: str) -> None:
        """Delete it."""
        with suppress(FileNotFoundError):
            (self.folder / name).unlink()

    def names(self, older_than_s: float) -> Iterator[str]:
        """Names of all files, published or partial, last changed at least `older_than_s` seconds ago."""
        limit = time.time() - older_than_s
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                if entry.is_file() and entry.stat().st_mtime <= limit:
                    yield entry.name


class Spool:
    """Encrypted files in one place: a folder, or what stands for one."""

    def __init__(self, files: Files | Path, cipher: SpoolCipher) -> None:
        self.files: Files = Folder(files) if isinstance(files, Path) else files
        self.folder = self.files.folder
        self._cipher = cipher

    def create(self, name: str | None = None) -> SpoolWriter:
        """Begin a file; it exists only after `SpoolWriter.publish`. `name` defaults to 128 random bits."""
        return SpoolWriter(self.files, self._cipher, name or secrets.token_hex(16))

    def open(self, name: str) -> BinaryIO:
        """Open a published file for reading its plain contents.

        Raises
        ------
        FileNotFoundError
            There is no such file, or this is no name of a file here.
        SealError
            While reading: the file was changed since it was written.
        """
        file = self.files.open(_checked(name))
        return cast(BinaryIO, self._cipher.reader(file, name))

    def exists(self, name: str) -> bool:
        """Whether a published file of this name is there."""
        return _is_name(name) and self.files.exists(name)

    def digest(self, name: str) -> Contents | None:
        """What a published file holds (read through once); None when there is none."""
        digest, size = hashlib.sha256(), 0
        try:
            with self.open(name) as file:
                while data := file.read(1 << 20):
                    digest.update(data)
                    size += len(data)
        except FileNotFoundError:
            return None
        except SealError:
            return Contents("", size)
        return Contents(digest.hexdigest(), size)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error (steps repeat), nor is what names no file of this place."""
        if _is_name(name):
            self.files.delete(name)

    def names(self, older_than_s: float) -> Iterator[str]:
        """Names of all files, published or partial, last changed at least `older_than_s` seconds ago."""
        return self.files.names(older_than_s)


def _is_name(name: str) -> bool:
    """Whether it can be a file's. Names come out of rows, which other roles write: none leads elsewhere."""
    return _NAME.fullmatch(name) is not None


def _checked(name: str) -> str:
    if not _is_name(name):
        raise FileNotFoundError(errno.ENOENT, "no name of a file in this folder")
    return name


class NewFile:
    """One file being written as it is: there under its name only after `publish`, and durable then."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        # A random part: two processes may write the same name at once, and the last rename wins with equal contents.
        self._partial = folder / f"{name}.{secrets.token_hex(4)}{PARTIAL}"
        self._file = open(self._partial, "xb", opener=_private)  # noqa: SIM115 - closed by publish or discard

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes as they are."""
        return self._file.write(data)

    def reopen(self) -> BinaryIO:
        """What was written so far, for reading."""
        self._file.flush()
        return open(self._partial, "rb")

    def publish(self) -> None:
        """Make the file durable under its name. After this returns a power cut does not lose it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._partial, self._folder / self.name)
        try:
            sync_folder(self._folder)
        except OSError:  # a second flush may succeed and lie: who tries again must not find it under its name
            with suppress(OSError):
                (self._folder / self.name).unlink()
            raise

    def discard(self) -> None:
        """Forget the file; also allowed after a failed write or publish."""
        with suppress(OSError):  # a full disk does not take what is left in the buffer; what it took goes all the same
            self._file.close()
        with suppress(FileNotFoundError):
            self._partial.unlink()


class SpoolWriter:
    """One file being written and encrypted on the way."""

    def __init__(self, files: Files, cipher: SpoolCipher, name: str) -> None:
        self.name = name
        self._file = files.new(name)
        self._writer = cipher.writer(cast(BinaryIO, self._file), name)

    def write(self, data: bytes) -> None:
        """Append plain bytes."""
        self._writer.write(data)

    def publish(self) -> str:
        """Make the file durable under its name and return the name. After this returns a power cut does not lose it."""
        self._writer.close()
        self._file.publish()
        return self.name

    def discard(self) -> None:
        """Forget the file; also allowed after a failed write or publish."""
        self._file.discard()


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    # The group's bit counts only where the folder lets a group in: ingress and worker as users of their own.
    return os.open(path, flags, 0o640)
