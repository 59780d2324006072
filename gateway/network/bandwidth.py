"""A limit of bytes a second for all that goes to one destination: a token bucket, and streams that wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import BinaryIO

_PIECES_S = 0.1  # a read asks for the bytes of so many seconds at most, so that nobody waits long in one go
_SHORTEST = 4096


class Bucket:
    """Bytes that may go now; filled evenly, and never with more than those of one second. Safe for several threads.

    Parameters
    ----------
    bytes_s
        Bytes a second.
    clock, wait
        Seconds that only grow, and what waits for some.
    """

    def __init__(
        self,
        bytes_s: float,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.bytes_s = bytes_s
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._left = bytes_s
        self._at = clock()

    def take(self, count: int) -> None:
        """Take the place of `count` bytes that have just been read; waits when there were too few left.

        The debt of one is waited for by itself, outside the lock: whoever comes later owes more, and waits longer.
        """
        with self._lock:
            now = self._clock()
            self._left = min(self.bytes_s, self._left + (now - self._at) * self.bytes_s) - count
            self._at = now
            owed_s = -self._left / self.bytes_s
        if owed_s > 0:
            self._wait(owed_s)


class Throttled:
    """A stream that hands out no more than its bucket has."""

    def __init__(self, stream: BinaryIO, bucket: Bucket) -> None:
        self._stream = stream
        self._bucket = bucket
        self._piece = max(_SHORTEST, int(bucket.bytes_s * _PIECES_S))

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, fewer at a time; none only at the end."""
        data = self._stream.read(min(size, self._piece))
        if data:
            self._bucket.take(len(data))
        return data
