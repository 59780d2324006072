"""When a destination is sent to: windows of the week in local time, as ``"mon-fri 19:00-06:00"``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86_400
_FORM = re.compile(r"(?:(?P<days>[a-z,-]+) +)?(?P<begin>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})")
_EXAMPLE = 'write it as "mon-fri 19:00-06:00", "sat,sun 00:00-24:00" or "22:00-05:00"'


@dataclass(frozen=True)
class Window:
    """Open from `begin` to `end`, minutes of the day; an end that is not later is one of the day after.

    The days are those on which it opens, 0 is Monday.
    """

    days: frozenset[int]
    begin: int
    end: int

    @classmethod
    @cache
    def parse(cls, text: str) -> Window:
        """Read it as it is written; a ValueError says how to write it."""
        form = _FORM.fullmatch(text.strip().lower())
        if form is None:
            raise ValueError(f"is no window of the week: {_EXAMPLE}")
        begin, end = _minute(form["begin"]), _minute(form["end"])
        if begin == 24 * 60 or begin == end:
            raise ValueError(f"has no length: {_EXAMPLE}; the whole day is 00:00-24:00")
        return cls(frozenset(_days(form["days"] or "mon-sun")), begin, end)

    def spans(self, around: datetime) -> Iterator[tuple[float, float]]:
        """When it is open, seconds since 1970, from a day before `around` to a week after it."""
        for offset in range(-1, 8):
            day = (around + timedelta(days=offset)).replace(hour=0, minute=0, second=0, microsecond=0)
            if day.weekday() in self.days:
                last = self.end if self.end > self.begin else self.end + 24 * 60
                yield _at(day, self.begin), _at(day, last)


def _at(midnight: datetime, minute: int) -> float:
    """By the clock on the wall, also on a day whose clock is put forward or back."""
    return (midnight + timedelta(minutes=minute)).astimezone(UTC).timestamp()


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    found = int(hour) * 60 + int(minute)
    if int(minute) > 59 or found > 24 * 60:
        raise ValueError(f"{text} is no time of a day: {_EXAMPLE}")
    return found


def _days(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"{part!r} is no day: {_EXAMPLE}")
        begin = DAYS.index(first)
        yield from ((begin + n) % 7 for n in range((DAYS.index(last or first) - begin) % 7 + 1))


def _window(text: str) -> str:
    Window.parse(text)
    return text


def _zone(name: str) -> str:
    try:
        zone_of(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("is no time zone of this machine: write it as Europe/Berlin") from None
    return name


WindowText = Annotated[str, AfterValidator(_window)]
ZoneName = Annotated[str, AfterValidator(_zone)]


def zone_of(name: str) -> tzinfo | None:
    """The time zone of that name; of none the machine's own, for which Python's word is None."""
    return ZoneInfo(name) if name else None


def is_open(windows: tuple[str, ...], zone: str, at: float) -> bool:
    """Whether one of the windows is open at that time, seconds since 1970; without windows it always is."""
    return closed_until(windows, zone, at) is None


def closed_until(windows: tuple[str, ...], zone: str, now: float) -> float | None:
    """When the first window opens, seconds since 1970; None: one is open, or there are none and so it always is."""
    if not windows:
        return None
    local = datetime.fromtimestamp(now, zone_of(zone)) if zone else datetime.fromtimestamp(now)
    spans = [span for text in windows for span in Window.parse(text).spans(local)]
    if any(begin <= now < end for begin, end in spans):
        return None
    return min(begin for begin, _ in spans if begin > now)
