"""What comes to the main thread of a process of ours: signals, requests, changed files; one queue for all."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from contextlib import suppress
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
    """The queue: any number of threads and signal handlers put, one thread gets.

    Not a `queue.Queue`, which a signal handler must not put to, nor a `queue.SimpleQueue`, whose `get` waits for ever
    when a signal handler ends after its timeout (seen in CPython 3.11: then the process would not hear SIGTERM).
    """

    def __init__(self) -> None:
        self._wishes: deque[Wish] = deque()
        self._bell = threading.Lock()  # free when something was put since the last look

    def put(self, wish: Wish) -> None:
        """Add one."""
        self._wishes.append(wish)
        with suppress(RuntimeError):  # it is free already
            self._bell.release()

    def get(self, timeout_s: float) -> Wish | None:
        """The next one; None when there was none for so long."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(IndexError):
                return self._wishes.popleft()
            if not self._bell.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return None

    def on_signals(self, *, stop: bool = True) -> Wishes:
        """SIGHUP reloads, and with `stop` SIGTERM and SIGINT end. What comes before somebody listens is kept."""
        signal.signal(signal.SIGHUP, lambda *_: self.put(Wish("reload", "signal")))
        for name in (signal.SIGTERM, signal.SIGINT) if stop else ():
            signal.signal(name, lambda *_: self.put(Wish("stop")))
        return self
