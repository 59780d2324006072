"""Files in an object store, so that every replica reads what any of them wrote (`gateway.flow.spool.Files`).

A file on its way lies, encrypted already, in a folder of this machine, without a name there: it ends with the process.
Reading fetches pieces as they are asked for, and keeps the last: memory is bounded, whatever the file's size.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from gateway.bucket import Bucket, Listed

FIRST_PIECE = 512 << 10  # bytes; an image and what stands around it
LARGEST_PIECE = 4 << 20


class StoreFiles:
    """Files below one name in a bucket. Safe for any number of processes.

    Parameters
    ----------
    under
        What the names of all objects begin with, without a slash: "received" or "derived".
    scratch
        A folder of ours on this machine, for what is on its way; made when it is not there.
    """

    def __init__(self, bucket: Bucket, under: str, scratch: Path) -> None:
        self.bucket = bucket
        self.folder = scratch
        self._under = under
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self, name: str) -> StoreFile:
        """Begin a file."""
        return StoreFile(self, name)

    def open(self, name: str) -> BinaryIO:
        """A published file for reading; FileNotFoundError at the first read, where there is none."""
        return cast(BinaryIO, _Pieces(self.bucket, self.path(name)))

    def exists(self, name: str) -> bool:
        """Whether it is there."""
        try:
            self.bucket.size(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete it."""
        self.bucket.delete(self.path(name))

    def names(self, older_than_s: float) -> Iterator[str]:
        """Names of all files that were last changed at least `older_than_s` seconds ago."""
        return (one.name for one in self.listed(older_than_s))

    def listed(self, older_than_s: float) -> Iterator[Listed]:
        """As `names`, with sizes and times."""
        limit = time.time() - older_than_s
        for one in self.bucket.list(self._under):
            if one.changed_at <= limit:
                yield Listed(one.name.removeprefix(f"{self._under}/"), one.size, one.changed_at)

    def path(self, name: str) -> str:
        """The object's name."""
        return f"{self._under}/{name}"


class StoreFile:
    """One file on its way into the store (`gateway.flow.spool.Unpublished`)."""

    def __init__(self, files: StoreFiles, name: str) -> None:
        self.name = name
        self._files = files
        self._file = tempfile.TemporaryFile(dir=files.folder)  # noqa: SIM115 - closed by publish or discard

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes as they are."""
        return self._file.write(data)

    def reopen(self) -> BinaryIO:
        """What was written so far, for reading, once all is written."""
        self._file.flush()
        file = os.fdopen(os.dup(self._file.fileno()), "rb")
        file.seek(0)
        return file

    def publish(self) -> None:
        """Hand it to the store; it has it whole when this returns. CapacityError as `Bucket`."""
        self._file.flush()
        size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        path = self._files.path(self.name)
        # one of this name that is there already has the same contents, whoever wrote it
        self._files.bucket.upload(path, cast(BinaryIO, self._file), size)
        self._file.close()

    def discard(self) -> None:
        """Forget it."""
        self._file.close()


class _Pieces(io.RawIOBase):
    """An object as a file for reading. All pieces are of one version of it; one that was replaced is not there."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._path = path
        self._position = 0
        self._start = 0
        self._kept = b""
        self._next = FIRST_PIECE
        self._size: int | None = None
        self._version: str | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self._size is None:
                self._size = self._bucket.size(self._path)
            offset += self._size
        elif whence == io.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        pieces, left = [], size if size >= 0 else 1 << 62
        while left and (piece := self._at_position(left)):
            pieces.append(piece)
            left -= len(piece)
            self._position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _at_position(self, most: int) -> bytes:
        """Some bytes from the position on; none at the end."""
        if self._size is not None and self._position >= self._size:
            return b""
        if not self._start <= self._position < self._start + len(self._kept):
            found = self._bucket.range(self._path, self._position, self._next, self._version)
            self._start, self._kept = self._position, found.data
            self._size, self._version = found.size, found.version
            self._next = min(2 * self._next, LARGEST_PIECE)
        start = self._position - self._start
        return self._kept[start : start + most]
