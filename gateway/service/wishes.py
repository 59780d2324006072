"""What comes to the main thread of a process of ours: signals, requests, changed files; one queue for all."""

from __future__ import annotations

import queue
import signal
from dataclasses import dataclass
from typing import Any, Literal

from gateway.service.link import Link


@dataclass(frozen=True)
class Wish:
    """What is wanted: the end, a reload (and what asked for it), or an answer to a message on a link."""

    kind: Literal["stop", "reload", "message"]
    by: str = ""
    link: Link | None = None
    message: dict[str, Any] | None = None  # None on a link: the other side is gone


class Wishes:
    """The queue. Safe in signal handlers and for any number of threads."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Wish] = queue.SimpleQueue()

    def put(self, wish: Wish) -> None:
        """Add one."""
        self._queue.put(wish)

    def get(self, timeout_s: float) -> Wish | None:
        """The next one; None when there was none for so long."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def on_signals(self, *, stop: bool = True) -> Wishes:
        """SIGHUP reloads, and with `stop` SIGTERM and SIGINT end. What comes before somebody listens is kept."""
        signal.signal(signal.SIGHUP, lambda *_: self.put(Wish("reload", "signal")))
        for name in (signal.SIGTERM, signal.SIGINT) if stop else ():
            signal.signal(name, lambda *_: self.put(Wish("stop")))
        return self
