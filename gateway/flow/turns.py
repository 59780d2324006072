"""Turns: so many instances are sent at a time, and of those that wait the most urgent go first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ORDER = {"high": 0, "medium": 1, "low": 2}


class Turns:
    """Turns of all the threads that send.

    Parameters
    ----------
    most
        At a time; 0: there is no limit, and nobody waits.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting: list[tuple[int, int]] = []
        self._last = 0

    @contextmanager
    def turn(self, priority: str) -> Iterator[None]:
        """Wait for one's turn: by priority, and of the same in the order of coming."""
        if not self._most:
            yield
            return
        with self._changed:
            self._last += 1
            own = (ORDER[priority], self._last)
            self._waiting.append(own)
            self._changed.wait_for(lambda: self._inside < self._most and min(self._waiting) == own)
            self._waiting.remove(own)
            self._inside += 1
            self._changed.notify_all()  # there may be room for one more
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()
