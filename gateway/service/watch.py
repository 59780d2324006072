"""Sees that the configuration, or a file that it names, was changed: certificates are renewed, authorities added."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.service.reading import Reading
from gateway.service.wishes import Wish, Wishes

PAUSE_S = 2.0  # between two looks; what changed is taken when it has rested for so long


class Watcher:
    """Asks for a reload when files have changed and rest again, in a thread, where `[reload] watch` says so.

    Parameters
    ----------
    in_force
        The reading that the process runs on.
    """

    def __init__(self, in_force: Callable[[], Reading], wishes: Wishes, pause_s: float = PAUSE_S) -> None:
        self._in_force = in_force
        self._wishes = wishes
        self._pause_s = pause_s
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        tried = before = self._in_force().state
        while not self._stopping.wait(self._pause_s):
            reading = self._in_force()
            now = reading.look()
            rests, before = now == before, now
            if rests and reading.config.reload.watch and now not in (reading.state, tried):
                tried = now  # what was refused is not tried again until it changes
                self._wishes.put(Wish("reload", "watch"))
