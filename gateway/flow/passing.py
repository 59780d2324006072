"""Unmarked originals on their way out: only to destinations named trusted, and in an emergency only until its end.

An emergency (`[routes.break_glass]`) is a row: its beginning is audited before the first original passes, its end when
its time comes, or when a worker starts without finding it in the configuration any more. The line is written before the
row says so: a kill in between repeats a line and loses none.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from gateway.audit import AuditLog, audited, events
from gateway.config.models import Route
from gateway.database import OverrideRow, transaction
from gateway.protect import Decision

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Emergency:
    route: str
    until: float


class Passing:
    """What lets an original pass, and what tells of it.

    Parameters
    ----------
    routes
        Of the configuration.
    trusted
        Names of the destinations that the site trusts with unmarked originals.
    """

    def __init__(self, routes: Iterable[Route], trusted: Collection[str], engine: Engine, audit: AuditLog) -> None:
        self._routes = tuple(routes)
        self._trusted = frozenset(trusted)
        self._engine = engine
        self._audit = audit
        self._begun: set[_Emergency] = set()

    def checked(self, decision: Decision, route: Route) -> Decision:
        """The policy's decision; a hold instead of a pass that is over, or would lead to a destination not trusted.

        When this says "pass", the beginning of the emergency that lets it pass has been audited.
        """
        if decision.action != "pass":
            return decision
        if not self._trusted.issuperset(route.destinations):
            reason = f"route {route.name} passes originals, and not all of its destinations are named trusted"
            return Decision("hold", code="destination-not-trusted", reason=reason)
        emergency = _emergency(route)
        if emergency is not None and emergency not in self._begun and not self._note_begin(emergency, again=False):
            return Decision("hold", code="pass-expired", reason=f"the emergency pass of route {route.name} has ended")
        return decision

    def start(self, now: float | None = None) -> None:
        """Of a worker: begin what the configuration says, end what it no longer says."""
        now = time.time() if now is None else now
        open_ones = self._open(now)
        for emergency in open_ones:
            self._note_begin(emergency, again=True)
        self._note_ends(now, open_ones)

    def tend(self, now: float | None = None) -> int:
        """Now and then: end the emergencies whose time has come. Returns how many."""
        return self._note_ends(time.time() if now is None else now, None)

    def _open(self, now: float) -> set[_Emergency]:
        found = set()
        for route in self._routes:
            emergency = _emergency(route)
            if route.passes and route.break_glass and emergency and route.break_glass.state(now) == "open":
                found.add(emergency)
        return found

    def _note_begin(self, emergency: _Emergency, *, again: bool) -> bool:
        """False when it was stopped; with `again` that which the configuration says once more begins once more."""
        try:
            with transaction(self._engine) as session:
                row = session.get(OverrideRow, (emergency.route, emergency.until), with_for_update=True)
                if row is None:
                    self._tell(events.OVERRIDE_STARTED, emergency, "break-glass")
                    session.add(OverrideRow(route=emergency.route, until=emergency.until, started_at=time.time()))
                elif row.stopped_at is not None:
                    if not again:
                        return False
                    self._tell(events.OVERRIDE_STARTED, emergency, "break-glass")
                    row.stopped_at = None
        except IntegrityError:  # another worker began it at this moment, and told of it
            pass
        self._begun.add(emergency)
        return True

    def _note_ends(self, now: float, configured: set[_Emergency] | None) -> int:
        ended = 0
        with transaction(self._engine) as session:
            running = select(OverrideRow).where(OverrideRow.stopped_at.is_(None)).with_for_update(skip_locked=True)
            for row in session.scalars(running):
                emergency = _Emergency(row.route, row.until)
                withdrawn = configured is not None and emergency not in configured
                if row.until <= now or withdrawn:
                    self._tell(events.OVERRIDE_STOPPED, emergency, "expired" if row.until <= now else "withdrawn")
                    row.stopped_at = now
                    self._begun.discard(emergency)
                    ended += 1
        return ended

    def _tell(self, event: str, emergency: _Emergency, reason: str) -> None:
        until = datetime.fromtimestamp(emergency.until, UTC).isoformat().replace("+00:00", "Z")
        audited(self._audit, event, "success", route=emergency.route, until=until, reason=reason)
        log.warning(event, route=emergency.route, until=until, reason=reason)


def _emergency(route: Route) -> _Emergency | None:
    if route.break_glass is None:
        return None
    return _Emergency(route.name, route.break_glass.until.timestamp())
