"""Destinations that take nothing now: since when, and where their marked copies go meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.config.destination import Destination
from gateway.database import DeliveryRow, InstanceRow

PROBE_S = 30.0  # so often one instance is tried all the same, while the others go to the fallback


@dataclass
class _Outage:
    since: float
    tried_at: float


class Outages:
    """What this process knows of destinations that fail. Safe for several threads.

    A start forgets it: then `fallback_after_s` begins anew.
    """

    def __init__(self, destinations: Mapping[str, Destination], clock: Callable[[], float] = time.monotonic) -> None:
        self._destinations = destinations
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, _Outage] = {}

    def failed(self, name: str) -> None:
        """It was tried, and takes nothing."""
        with self._lock:
            now = self._clock()
            self._found.setdefault(name, _Outage(now, now)).tried_at = now

    def over(self, name: str) -> None:
        """It has answered."""
        with self._lock:
            self._found.pop(name, None)

    def fallback(self, delivery: DeliveryRow, row: InstanceRow) -> Destination | None:
        """Where this may go instead, if it may: a marked copy, or what refers to copies; never an original.

        What is at its fallback already goes nowhere else.
        """
        first = self._destinations.get(delivery.destination)
        if first is None or first.fallback is None or delivery.fallback_of is not None or row.action == "pass":
            return None
        return self._destinations.get(first.fallback)

    def is_long(self, name: str) -> bool:
        """Whether it has failed for so long that its fallback takes over."""
        with self._lock:
            found = self._found.get(name)
            return found is not None and self._clock() - found.since >= self._destinations[name].fallback_after_s

    def was_just_tried(self, name: str) -> bool:
        """Whether there is no need to try it once more before something goes to the fallback."""
        with self._lock:
            found = self._found.get(name)
            return found is not None and self._clock() - found.tried_at < PROBE_S
