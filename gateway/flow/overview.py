"""The flow at a glance: per route, per destination, and why things are held. It reads, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, case, func, literal, select, text
from sqlalchemy.orm import Session

from gateway.config.models import Destination, Route
from gateway.database import ClockRow, DeliveryRow, InstanceRow, PausedRow, reading
from gateway.flow.states import DELIVERED, DISCARDED, HELD, MARKED, QUEUED, RECEIVED, SEALED, SENT, UNCOMMITTED

RECENT_S = 300.0  # rates are counted over the last so many seconds


@dataclass(frozen=True)
class RouteFigures:
    """Instances of one route: how many there ever were, and where those are that are not done.

    Times are seconds since 1970. oldest_at: when the oldest that is still on its way was received.
    """

    route: str
    configured: bool
    total: int
    waiting: int  # received or sealed, not marked yet
    marked: int  # on their way to destinations
    held: int
    delivered: int
    discarded: int
    oldest_at: float | None
    received_recently: int = 0  # within `RECENT_S`
    marked_recently: int = 0


@dataclass(frozen=True)
class DeliveryFigures:
    """Deliveries of one route to one destination.

    oldest_at: when the one was received that is queued for the longest time. next_attempt_at: of those that wait for
    another try. latency_s: from receipt to delivery, mean of those that were sent within `RECENT_S`. paused_at: when a
    person paused the destination.
    """

    route: str
    destination: str
    configured: bool = True
    queued: int = 0
    held: int = 0
    sent: int = 0
    oldest_at: float | None = None
    next_attempt_at: float | None = None
    last_sent_at: float | None = None
    failing: int = 0  # queued, and tried in vain before
    sent_recently: int = 0
    latency_s: float | None = None
    uncommitted: int = 0  # sent, and not committed by the destination, which is asked to
    opens_at: float | None = None  # outside the destination's schedule: when it is sent to again
    paused_at: float | None = None


@dataclass(frozen=True)
class HeldFigures:
    """Held instances of one route with one reason. oldest_at: when the first of them was received."""

    route: str
    reason_code: str
    count: int
    oldest_at: float | None = None


@dataclass(frozen=True)
class Overview:
    """The whole flow of a site at one moment.

    worker_seen_at: when a worker last said that it is there, which it does each minute; None: never. clock_doubt: why
    the clock is not believed (`gateway.flow.clock`), or None.
    """

    at: float
    routes: tuple[RouteFigures, ...]
    deliveries: tuple[DeliveryFigures, ...]
    held: tuple[HeldFigures, ...]
    worker_seen_at: float | None = None
    clock_doubt: str | None = None


def look(engine: Engine, routes: Iterable[Route], destinations: Iterable[Destination] = ()) -> Overview:
    """Count; routes and destinations of the configuration stand there even with nothing to tell of.

    destinations: where they are given, their schedules and fallbacks are told of.
    What is final is counted by indexes of its own: a site has ever more of it.
    """
    now = time.time()
    named = {route.name: route.destinations for route in routes}
    known = {one.name: one for one in destinations}
    fallbacks = {(route, known[name].fallback) for route, names in named.items() for name in names if name in known}
    with reading(engine) as session:
        states = _states(session, named)
        deliveries = _deliveries(session, {(r, d) for r, names in named.items() for d in names}, now)
        recent = _recent(session, InstanceRow.received_at, now - RECENT_S)
        marked = _recent(session, InstanceRow.marked_at, now - RECENT_S, InstanceRow.route.in_(states))
        oldest = func.min(InstanceRow.received_at)
        reasons = select(InstanceRow.route, InstanceRow.reason_code, func.count(), oldest)
        reasons = reasons.where(InstanceRow.state == HELD).group_by(InstanceRow.route, InstanceRow.reason_code)
        held = [HeldFigures(route, code or "", count, first) for route, code, count, first in session.execute(reasons)]
        paused = {row.destination: row.paused_at for row in session.scalars(select(PausedRow))}
        clock = session.get(ClockRow, 1)
    return Overview(
        now,
        tuple(
            _route(name, found, name in named, recent.get(name, 0), marked.get(name, 0))
            for name, found in states.items()
        ),
        tuple(
            replace(
                one,
                configured=one.destination in named.get(one.route, ()) or (one.route, one.destination) in fallbacks,
                opens_at=known[one.destination].closed_until(now) if one.destination in known else None,
                paused_at=paused.get(one.destination),
            )
            for one in deliveries
        ),
        tuple(sorted(held, key=lambda one: -one.count)),
        clock.seen_at if clock else None,
        clock.reason if clock and clock.stopped_at is not None else None,
    )


def _literal(column: Any, *states: str) -> ColumnElement[bool]:
    """In these states, written out in the statement: an index of them alone is taken only where it says so."""
    return column.in_([literal(state, literal_execute=True) for state in states])


def _states(session: Session, named: Iterable[str]) -> dict[str, dict[str, _States]]:
    """Of each route its instances by state."""
    found: dict[str, dict[str, _States]] = {name: {} for name in named}
    # SQLite would take the index of claims, and look at every row
    hint = "INDEXED BY instance_final" if session.get_bind().dialect.name == "sqlite" else ""
    final = f"SELECT route, state, count(*) FROM instance {hint} WHERE state IN ('delivered', 'discarded')"  # noqa: S608 - fixed words
    by = (InstanceRow.route, InstanceRow.state)
    others = select(*by, func.count(), func.min(InstanceRow.received_at))
    others = others.where(InstanceRow.state.in_([RECEIVED, SEALED, MARKED, HELD])).group_by(*by)
    for query in (text(f"{final} GROUP BY route, state"), others):
        for route, state, *figures in session.execute(query):
            found.setdefault(route, {})[state] = _States(*figures)
    return found


def _recent(session: Session, column: Any, since: float, *where: ColumnElement[bool]) -> dict[str, int]:
    """How many instances of each route have had a time since then."""
    route = func.coalesce(InstanceRow.route, "")  # as it is: by its name SQLite would look at every row, route by route
    query = select(route, func.count()).where(column > since, *where).group_by(route)
    return {row[0]: row[1] for row in session.execute(query)}


def _deliveries(session: Session, named: Iterable[tuple[str, str]], now: float) -> list[DeliveryFigures]:
    """Of each route and destination what is sent, and what is not yet."""
    found = {key: DeliveryFigures(*key) for key in sorted(named)}

    def note(key: tuple[str, str], **figures: Any) -> None:
        found[key] = replace(found.get(key, DeliveryFigures(*key)), **figures)

    by = (DeliveryRow.route, DeliveryRow.destination)
    is_sent = _literal(DeliveryRow.state, SENT)
    sent = select(*by, func.count(), func.max(DeliveryRow.sent_at)).where(is_sent)
    for route, destination, count, last in session.execute(sent.group_by(*by)):
        note((route, destination), sent=count, last_sent_at=last)
    recent = (
        select(*by, func.count(), func.avg(DeliveryRow.sent_at - InstanceRow.received_at))
        .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
        .where(is_sent, DeliveryRow.sent_at > now - RECENT_S)
    )
    for route, destination, count, latency in session.execute(recent.group_by(*by)):
        note((route, destination), sent_recently=count, latency_s=latency)
    asked = select(*by, func.count()).where(_literal(DeliveryRow.commit_state, *UNCOMMITTED))
    for route, destination, count in session.execute(asked.group_by(*by)):
        note((route, destination), uncommitted=count)
    tried = func.count(case((DeliveryRow.attempts > 0, 1)))
    later = func.min(case((DeliveryRow.next_attempt_at > now, DeliveryRow.next_attempt_at)))
    by_state = (*by, DeliveryRow.state)
    waiting = select(*by_state, func.count(), tried, later, func.min(DeliveryRow.id))
    first = {}
    waiting = waiting.where(DeliveryRow.state.in_([QUEUED, HELD])).group_by(*by_state)
    for route, destination, state, count, failing, next_at, lowest in session.execute(waiting):
        if state == HELD:
            note((route, destination), held=count)
            continue
        note((route, destination), queued=count, failing=failing, next_attempt_at=next_at)
        first[lowest] = (route, destination)
    oldest = select(DeliveryRow.id, InstanceRow.received_at).join(
        InstanceRow, InstanceRow.id == DeliveryRow.instance_id
    )
    for lowest, received_at in session.execute(oldest.where(DeliveryRow.id.in_(first))):
        note(first[lowest], oldest_at=received_at)
    return list(found.values())


class _States(NamedTuple):
    """Instances of one route in one state; `oldest` of those that are on their way, or held."""

    number: int
    oldest: float | None = None


def _route(name: str, states: dict[str, _States], configured: bool, received: int, marked: int) -> RouteFigures:
    def count(*wanted: str) -> int:
        return sum(states[state].number for state in wanted if state in states)

    on_its_way = [states[state].oldest for state in (RECEIVED, SEALED, MARKED) if state in states]
    return RouteFigures(
        name,
        configured,
        total=count(*states),
        waiting=count(RECEIVED, SEALED),
        marked=count(MARKED),
        held=count(HELD),
        delivered=count(DELIVERED),
        discarded=count(DISCARDED),
        oldest_at=min(filter(None, on_its_way), default=None),
        received_recently=received,
        marked_recently=marked,
    )


def span(seconds: float) -> str:
    """A span of time as people say it; the two largest units are enough."""
    left = max(0, int(seconds))
    for size, name, below, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            return f"{left // size} {name} {left % size // below} {small}"
    return f"{left} s"
