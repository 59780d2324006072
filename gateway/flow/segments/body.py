"""One data set on its way in: encrypted in memory, or, when it is large or memory is short, in a file of its own."""

from __future__ import annotations

import io
import secrets
import threading
from contextlib import suppress
from typing import BinaryIO, cast

from gateway.flow.spool import Files, Unpublished
from gateway.keys.spoolfile import SpoolCipher

LARGE = 32 << 20  # encrypted bytes; what is longer gets a file of its own


class Memory:
    """How much all data sets that are being received may take together."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take `size` bytes; False, and nothing is taken, when there are not so many."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._left += size


class Body:
    """Encrypted bytes of one data set, in a random name that they are bound to.

    Not for several threads at once. `release` ends it in any case.
    """

    def __init__(self, files: Files, cipher: SpoolCipher, memory: Memory) -> None:
        self.name = secrets.token_hex(16)
        self._files = files
        self._cipher = cipher
        self._memory = memory
        self._taken = 0
        self._kept: list[bytes] = []
        self._file: Unpublished | None = None
        self._published = False
        self._writer = cipher.writer(cast(BinaryIO, _Sink(self)), self.name)

    def write(self, data: bytes | memoryview) -> None:
        """Append plain bytes; OSError when the disk does not take them."""
        self._writer.write(data)

    def complete(self) -> None:
        """Encrypt what is left: nothing more is written."""
        self._writer.close()

    def open(self) -> BinaryIO:
        """What was written, plain, after `complete`."""
        if self._file is None:
            source: BinaryIO = io.BytesIO(b"".join(self._kept))
        else:
            source = self._file.reopen()
        return cast(BinaryIO, self._cipher.reader(source, self.name))

    def publish(self) -> str | None:
        """Make a file of its own durable and return its name; None when there is none."""
        if self._file is None:
            return None
        self._file.publish()
        self._published = True
        return self.name

    def pieces(self) -> list[bytes]:
        """What belongs into the record; nothing when it lies in a file of its own."""
        return self._kept if self._file is None else []

    def release(self) -> None:
        """Give the memory back, and forget a file that was not published."""
        self._memory.give(self._taken)
        self._taken = 0
        self._kept = []
        if self._file is not None and not self._published:
            with suppress(OSError):
                self._file.discard()

    def take(self, data: bytes) -> int:
        """Take encrypted bytes: for the cipher's writer only."""
        if self._file is None and self._taken + len(data) <= LARGE and self._memory.take(len(data)):
            self._taken += len(data)
            self._kept.append(data)
            return len(data)
        if self._file is None:
            self._file = self._files.new(self.name)
            for kept in self._kept:
                self._file.write(kept)
            self._kept = []
            self._memory.give(self._taken)
            self._taken = 0
        return self._file.write(data)


class _Sink:
    """Where the cipher writes: the body, as a file."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def write(self, data: bytes) -> int:
        return self._body.take(data)
