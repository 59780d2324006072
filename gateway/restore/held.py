"""Memory in which verified originals wait to be sent: bounded for each, and for all of a process together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.vault import PayloadOpener

EACH = 32 << 20  # bytes; what is larger is decrypted twice, piece by piece
TOGETHER = 128 << 20
KEPT = 16 << 20  # bytes of buffers that nobody uses and that wait for the next original
_OPENERS = 4  # that wait for the next payload
_STEP = 64 << 10  # bytes: slices of one series differ by a few, and fit into each other's buffers


class HeldMemory:
    """Bytes that verified originals may take. Safe for any number of threads.

    Parameters
    ----------
    each, together
        Bytes of one original, and of all at a time.
    """

    def __init__(self, each: int = EACH, together: int = TOGETHER) -> None:
        self._each = each
        self._left = together
        self._lock = threading.Lock()
        self._kept: list[bytearray] = []
        self._openers: list[PayloadOpener] = []

    def take(self, size: int) -> bool:
        """Whether there is room for `size` bytes; it is taken then."""
        with self._lock:
            if size > min(self._each, self._left):
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give room back."""
        with self._lock:
            self._left += size

    def buffer(self, size: int) -> bytearray:
        """A buffer of more than `size` bytes, of room that was taken; what is in it means nothing.

        Buffers are used again: the system clears memory that it gives anew.
        """
        length = (size // _STEP + 1) * _STEP
        with self._lock:
            for number in range(len(self._kept) - 1, -1, -1):
                if length <= len(self._kept[number]) <= 2 * length:
                    return self._kept.pop(number)
        return bytearray(length)

    def keep(self, buffer: bytearray) -> None:
        """Keep a buffer for the next original, unless somebody still looks at it or enough are kept."""
        try:
            buffer.append(buffer.pop())  # not while there is a view of it, which would show another original then
        except BufferError:
            return
        with self._lock:
            self._kept.append(buffer)
            while sum(map(len, self._kept)) > KEPT:
                del self._kept[0]

    @contextmanager
    def opener(self) -> Iterator[PayloadOpener]:
        """What opens payloads, for one thread in the block."""
        with self._lock:
            opener = self._openers.pop() if self._openers else PayloadOpener()
        try:
            yield opener
        finally:
            with self._lock:
                if len(self._openers) < _OPENERS:
                    self._openers.append(opener)
