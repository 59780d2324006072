"""The next originals are made ready while one is sent: in order, never too many, and none is left open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from gateway.errors import IntegrityError, NotFoundError, UnreachableError
from gateway.network.retrieve.ahead import AHEAD, LOOKED_UP, Ahead
from gateway.network.retrieve.suboperations import Planned

NAMES = [f"{number:032x}" for number in range(40)]
PLAN = [Planned(name, "", "", "") for name in NAMES]


class Fake:
    """An original that notes what is done to it."""

    def __init__(self, locator: str, verify: Callable[[], None] = lambda: None, size: int = 1000) -> None:
        self.locator, self.size = locator, size
        self.verified = self.closed = False
        self._verify = verify

    def verify(self) -> None:
        self._verify()
        self.verified = True

    def __exit__(self, *_: object) -> None:
        self.closed = True


class FakeRestorer:
    """Gives fakes, or what a test puts in their place."""

    def __init__(self, **instead: object) -> None:
        self.instead = instead
        self.asked: list[int] = []
        self.given: list[Fake] = []

    def by_locators(self, locators: list[str], named: object = None) -> dict[str, object]:
        self.asked.append(len(locators))
        found = {name: self.instead.get(name) or Fake(name) for name in locators}
        self.given += [one for one in found.values() if isinstance(one, Fake)]
        return found


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 50
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_come_verified_and_in_order() -> None:
    restorer = FakeRestorer()
    taken = []
    with Ahead(restorer, PLAN) as ahead:
        for _ in PLAN:
            with ahead.take() as ready:
                ready.verify()
                assert ready.original.verified
                taken.append(ready.original.locator)
                begun = sum(one.verified for one in restorer.given) - len(taken)
                assert begun <= AHEAD
    assert taken == NAMES
    assert restorer.asked == [32, 8] and LOOKED_UP == 32
    until(lambda: all(one.closed for one in restorer.given))


def test_one_that_cannot_be_had_or_is_wrong_fails_alone() -> None:
    def tampered() -> None:
        raise IntegrityError("payload-tampered", "changed")

    missing = NotFoundError("payload-missing", "gone")
    restorer = FakeRestorer(**{NAMES[1]: missing, NAMES[2]: Fake(NAMES[2], tampered)})
    with Ahead(restorer, PLAN[:4]) as ahead:
        with ahead.take() as first:
            first.verify()
        with pytest.raises(NotFoundError):
            ahead.take()
        with ahead.take() as third, pytest.raises(IntegrityError):
            third.verify()
        with ahead.take() as fourth:
            fourth.verify()


def test_the_database_away_fails_all_that_were_asked_for() -> None:
    class Away:
        def by_locators(self, locators: list[str], named: object = None) -> dict[str, object]:
            raise UnreachableError("database-unreachable", "away")

    with Ahead(Away(), PLAN[:2]) as ahead:
        for _ in range(2):
            with pytest.raises(UnreachableError):
                ahead.take()


def test_a_retrieval_that_ends_early_leaves_nothing_open() -> None:
    """Also not what is being verified at that moment, which nobody waits for."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        assert go_on.wait(50)

    restorer = FakeRestorer(**{NAMES[1]: (slow := Fake(NAMES[1], slowly))})
    with Ahead(restorer, PLAN) as ahead, ahead.take() as first:
        first.verify()
        assert begun.wait(50)
    others = [one for one in restorer.given if one is not slow]
    assert all(one.closed for one in others)
    assert not slow.closed
    go_on.set()
    until(lambda: slow.closed)
    assert not any(one.verified for one in others[1:])
