"""Guessing passwords is slow, and keeps nobody else out.

Tries are counted by name and source. A browser in which that user has logged in before is a source of its own: whoever
guesses elsewhere, from the same address or from thousands, does not make it wait. All else shares an allowance for each
name, so that many addresses guess no faster than a few. All of this ends with the process, and with a new password.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

TRIES = 5  # wrong passwords of a name from one source, until it has to wait ...
WAIT_S, LONGEST_WAIT_S = 60.0, 900.0  # ... so long after the next one, twice as long after each further one
MOST_TRIES, PERIOD_S = 200, 3600.0  # of a name from all sources together that it has never logged in from
_MOST = 10_000  # counts, and browsers, that are kept: the oldest goes first

Key = tuple[str, str]
K = TypeVar("K")
V = TypeVar("V")


class Guesses:
    """Counts tries. Safe for any number of threads.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Of names that are no user's apart, so that they do not make those of users forgotten.
        self._failed: dict[bool, OrderedDict[Key, tuple[int, float]]] = {True: OrderedDict(), False: OrderedDict()}
        self._strange: OrderedDict[str, tuple[int, float]] = OrderedDict()  # name: tries since then
        self._browsers: OrderedDict[Key, None] = OrderedDict()

    def begin(self, name: str, source: str, browser: str | None, *, is_user: bool) -> bool:
        """Whether this may be tried now. It counts as failed until `succeeded`: of many at once none is free.

        Parameters
        ----------
        name
            What tells one account, with one password, from others.
        source
            The address that the request comes from, "" where it is not known.
        browser
            What `succeeded` once gave to this browser.
        """
        now = self._clock()
        with self._lock:
            known = browser is not None and (name, _digest(browser)) in self._browsers
            key = (name, _digest(browser or "") if known else _source(source))
            failed = self._failed[is_user]
            count, last = failed.get(key, (0, 0.0))
            wait = min(WAIT_S * 2 ** min(count - TRIES, 30), LONGEST_WAIT_S) if count >= TRIES else 0.0
            if now - last < wait:
                return False
            if not known and not self._is_left(name, now):
                return False
            _put(failed, key, (count + 1, now))
            return True

    def succeeded(self, name: str, source: str, browser: str | None) -> str:
        """Forget the tries of this source; gives what the browser is to keep."""
        with self._lock:
            if browser is None or (name, _digest(browser)) not in self._browsers:
                self._failed[True].pop((name, _source(source)), None)
                browser = secrets.token_urlsafe(24)
            self._failed[True].pop((name, _digest(browser)), None)
            _put(self._browsers, (name, _digest(browser)), None)
            return browser

    def _is_left(self, name: str, now: float) -> bool:
        count, since = self._strange.get(name, (0, now))
        if now - since >= PERIOD_S:
            count, since = 0, now
        if count >= MOST_TRIES:
            return False
        _put(self._strange, name, (count + 1, since))
        return True


def _source(address: str) -> str:
    """The network of an address that one machine has at its disposal: of IPv6 that is a /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _put(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > _MOST:
        table.popitem(last=False)
