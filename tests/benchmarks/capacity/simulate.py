"""A day of a site as queues in a row, event by event: studies come, and each batch waits for the next free server."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

DAY_S = 86_400.0
INSTANCES = 300  # of a study
BATCH = 32
LATEST_S = 900.0  # that a study may take from its last slice to its delivery, 19 of 20 studies
# Share of a day's studies in each hour: eight in ten between 7 and 18 o'clock, as of a hospital with an emergency room.
HOURS = (1, 1, 1, 1, 1, 1, 2, 6, 9, 9, 9, 8, 6, 7, 8, 8, 6, 4, 3, 3, 2, 2, 1, 1)


@dataclass(frozen=True)
class Station:
    """Servers that do one step; seconds that one of them takes for one instance."""

    name: str
    servers: int
    seconds: float


def arrivals(studies: int, dice: random.Random) -> list[float]:
    """When a day's studies come."""
    hours = dice.choices(range(24), weights=HOURS, k=studies)
    return sorted(3600 * (hour + dice.random()) for hour in hours)


def delays(stations: Sequence[Station], times: Sequence[float]) -> list[float]:
    """Seconds of each study from its arrival until its last batch has left the last station; first come, first served.

    A study comes at once, which is the worst case; its batches go through the stations one by one.
    """
    batches, left = [], INSTANCES
    while left > 0:
        batches.append(min(BATCH, left))
        left -= BATCH
    waiting = [(at, number, size) for number, at in enumerate(times) for size in batches]
    for station in stations:
        free = [0.0] * station.servers
        heapq.heapify(free)
        done = []
        for at, number, size in sorted(waiting):
            ready = max(at, heapq.heappop(free)) + size * station.seconds
            heapq.heappush(free, ready)
            done.append((ready, number, size))
        waiting = done
    last = dict.fromkeys(range(len(times)), 0.0)
    for at, number, _ in waiting:
        last[number] = max(last[number], at)
    return [last[number] - at for number, at in enumerate(times)]


def keeps_up(stations: Sequence[Station], studies: int, seed: int = 2026) -> bool:
    """Whether 19 of 20 studies of the day are out in time."""
    found = sorted(delays(stations, arrivals(studies, random.Random(seed))))
    return found[int(0.95 * (len(found) - 1))] <= LATEST_S


def most_studies(stations: Sequence[Station], highest: int = 60_000) -> int:
    """The most studies a day that these stations keep up with, to a twentieth; `highest`: not looked beyond."""
    if not keeps_up(stations, 1):
        return 0
    low, high = 1, 2
    while high < highest and keeps_up(stations, high):
        low, high = high, 2 * high
    high = min(high, highest)
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        if keeps_up(stations, middle):
            low = middle
        else:
            high = middle
    return low


def ceiling(station: Station) -> int:
    """Studies a day at which this station is busy without a pause in the busiest hour: more only wait longer."""
    busiest = max(HOURS) / sum(HOURS)
    return int(3600 * station.servers / (busiest * INSTANCES * station.seconds))
