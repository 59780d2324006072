"""Memory in which verified originals wait to be sent: bounded for each, and for all of a process together."""

from __future__ import annotations

import threading

EACH = 32 << 20  # bytes; what is larger is decrypted twice, piece by piece
TOGETHER = 128 << 20


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
