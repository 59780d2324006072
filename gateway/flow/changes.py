"""What becomes of a claimed instance or delivery, as values that are settled many at a time (`FlowStore.settle`).

Each change names the row as it was claimed: it counts only while the claim does, by owner and fencing token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.audit import Line
from gateway.database import DeliveryRow, InstanceRow
from gateway.errors import CapacityError
from gateway.flow.states import DUE, HELD, MARKED, RECEIVED, SEALED, SENT

Tell = Callable[[Sequence[Line]], None]
_CLEAN = {"attempts": 0, "deaths": 0, "next_attempt_at": 0.0, "reason_code": None, "reason": None}


def nothing() -> None:
    """What follows a change that nothing follows."""


@dataclass(frozen=True)
class Change:
    """What becomes of one claimed instance.

    row
        As `FlowStore.claim` gave it.
    state
        In which it was claimed.
    values
        New values of its columns.
    lines
        Of the audit: they stand there before the change counts; when they cannot be written, it does not.
    destinations
        To which it is queued; None: what is queued stays as it is.
    done
        Called once the change is committed.
    """

    row: InstanceRow
    state: str
    values: Mapping[str, Any]
    lines: tuple[Line, ...] = ()
    destinations: tuple[str, ...] | None = None
    done: Callable[[], None] = nothing


def sealed(
    row: InstanceRow, record: str, action: str = "mark", batch_key: str = "", lines: Iterable[Line] = ()
) -> Change:
    """Received -> sealed: the original lies in the vault. `action`: what the policy decided, "mark" or "remap"."""
    values = {"state": SEALED, "record": record, "action": action, "batch_key": batch_key, "sealed_at": time.time()}
    return Change(row, RECEIVED, _CLEAN | values, tuple(lines))


def marked(
    row: InstanceRow,
    derived_file: str,
    size: int,
    record: str,
    destinations: Sequence[str],
    lines: Iterable[Line] = (),
    done: Callable[[], None] = nothing,
) -> Change:
    """Sealed -> marked: the derived bytes are fixed; deliveries are queued in the same transaction."""
    values = {"derived_file": derived_file, "derived_size": size, "record": record, "marked_at": time.time()}
    return Change(row, SEALED, _CLEAN | {"state": MARKED} | values, tuple(lines), tuple(destinations), done)


def passed(row: InstanceRow, destinations: Sequence[str], lines: Iterable[Line] = ()) -> Change:
    """Received -> marked, as it is: only for a route that says `pass` in so many words."""
    values = {"state": MARKED, "action": "pass", "marked_at": time.time()}
    return Change(row, RECEIVED, _CLEAN | values, tuple(lines), tuple(destinations))


def held(
    row: InstanceRow,
    state: str,
    code: str,
    reason: str,
    lines: Iterable[Line] = (),
    record: str | None = None,
    done: Callable[[], None] = nothing,
) -> Change:
    """Any state -> held, with the reason that an operator sees. `reason` holds no PHI; `record`: its original's."""
    values = {"state": HELD, "held_from": state, "reason_code": code, "reason": reason}
    values |= {"record": record} if record else {}
    return Change(row, state, values, tuple(lines), done=done)


def later(row: InstanceRow, state: str, delay_s: float, code: str, reason: str) -> Change:
    """Given back, to be tried again after `delay_s`."""
    return Change(row, state, {"next_attempt_at": time.time() + delay_s, "reason_code": code, "reason": reason})


@dataclass(frozen=True)
class DeliveryChange:
    """What becomes of one claimed delivery; `values`, `lines` and `done` as of `Change`."""

    delivery: DeliveryRow
    values: Mapping[str, Any]
    lines: tuple[Line, ...] = ()
    done: Callable[[], None] = nothing


def sent(delivery: DeliveryRow, dimse_status: int, commit_after_s: float | None = None) -> DeliveryChange:
    """Queued -> sent. commit_after_s: seconds until its commitment is asked for; None: it is not."""
    now = time.time()
    values: dict[str, Any] = {"state": SENT, "sent_at": now, "dimse_status": dimse_status}
    values |= {"failing_since": None, "deaths": 0}
    if commit_after_s is not None:
        values |= {"commit_state": DUE, "commit_at": now + commit_after_s, "commit_uid": None}
    return DeliveryChange(delivery, values)


def delivery_later(
    delivery: DeliveryRow,
    delay_s: float,
    code: str,
    reason: str,
    failing_since: float | None = None,
    attempts: int | None = None,
) -> DeliveryChange:
    """The destination did not take it now: try again after `delay_s`.

    Parameters
    ----------
    failing_since
        Seconds since 1970: when the failures began that end after a time, not after a number.
    attempts
        How many count from now on; None: all that there were.
    """
    values = {
        "next_attempt_at": time.time() + delay_s,
        "reason_code": code,
        "reason": reason,
        "failing_since": failing_since,
        "attempts": delivery.attempts if attempts is None else attempts,
    }
    return DeliveryChange(delivery, values)


def delivery_held(
    delivery: DeliveryRow, code: str, reason: str, lines: Iterable[Line] = (), done: Callable[[], None] = nothing
) -> DeliveryChange:
    """The destination will not take it: the delivery and its instance are held for a person."""
    return DeliveryChange(delivery, {"state": HELD, "reason_code": code, "reason": reason}, tuple(lines), done)


def fell_back(
    delivery: DeliveryRow, destination: str, lines: Iterable[Line], done: Callable[[], None] = nothing
) -> DeliveryChange:
    """Its destination takes nothing for long: queued for the fallback instead, as if it had never been tried."""
    values = {
        "destination": destination,
        "fallback_of": delivery.destination,
        "attempts": 0,
        "next_attempt_at": 0.0,
        "failing_since": None,
        "reason_code": None,
        "reason": None,
    }
    return DeliveryChange(delivery, values, tuple(lines), done)


def untried(delivery: DeliveryRow, delay_s: float = 0.0) -> DeliveryChange:
    """Given back as if it had not been claimed, not to be claimed before `delay_s`."""
    return DeliveryChange(
        delivery, {"next_attempt_at": time.time() + delay_s, "attempts": max(0, delivery.attempts - 1)}
    )


AnyChange = TypeVar("AnyChange", Change, DeliveryChange)


class Telling:
    """Writes the audit lines of changes, each once however often the changes are tried to be settled."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: set[int] = set()

    def tell(self, changes: Mapping[int, AnyChange]) -> dict[int, Exception]:
        """Tell of the changes, by their place in the batch; returns what could not be told, and why."""
        untold = {at: change for at, change in changes.items() if change.lines and at not in self._told}
        if not untold:
            return {}
        try:
            self._tell([line for change in untold.values() for line in change.lines])
            self._told |= untold.keys()
            return {}
        except Exception as error:
            if len(untold) == 1:
                return dict.fromkeys(untold, error)
        failed: dict[int, Exception] = {}
        for at, change in untold.items():  # one whose line is at fault keeps no neighbour
            failed |= self.tell({at: change})
        return failed


Together = Callable[[dict[int, AnyChange], set[int]], dict[int, Exception]]
"""Settles changes; returns those that did not count, and why. Those that are committed before it ends it adds to the
set at once: what it raises then is about the others.
"""


def settle_apart(
    changes: Sequence[AnyChange], together: Together[AnyChange], apart: Callable[[Exception], None]
) -> list[Exception | None]:
    """Settle a batch at once; when one of it makes the statement fail, each by itself.

    Parameters
    ----------
    apart
        Told of what made a batch fail as a whole: each by itself may go well, and is slow.

    Raises
    ------
    CapacityError
        The database cannot be written to now: nothing was settled.
    """
    batch = dict(enumerate(changes))
    counted: set[int] = set()
    failed: dict[int, Exception] = {}
    try:
        failed = together(batch, counted) if batch else {}
    except CapacityError as error:
        if not counted:
            raise
        failed = {at: error for at in batch if at not in counted}
    except Exception as error:
        apart(error)
        left = {at: change for at, change in batch.items() if at not in counted}
        failed = {0: error} if len(batch) == 1 else _each(left, together, counted)
    for at, change in batch.items():
        if at not in failed:
            change.done()
    return [failed.get(at) for at in batch]


def _each(changes: Mapping[int, AnyChange], together: Together[AnyChange], counted: set[int]) -> dict[int, Exception]:
    """Settle each by itself; CapacityError when none of the batch has counted yet."""
    failed: dict[int, Exception] = {}
    for at, change in changes.items():
        try:
            found = together({at: change}, counted)
        except CapacityError as error:  # of those that are left, too
            if not counted:
                raise
            return failed | dict.fromkeys(changes.keys() - counted - failed.keys(), error)
        except Exception as its_own:
            found = {at: its_own}
        failed |= found
        counted |= {at} - found.keys()
    return failed
