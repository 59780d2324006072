"""What an operator does to the queue: hold, release, retry, replay, discard. To look: `gateway.flow.selection`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from gateway.audit import AuditLog, Line, audited_all, events
from gateway.config.models import Route
from gateway.database import DeliveryRow, InstanceRow, VaultRow, Wakes, changed, transaction
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.deliveries import queue_deliveries
from gateway.flow.states import (
    DELIVERED,
    DISCARDED,
    HELD,
    MARKED,
    NOT_COMMITTED,
    QUEUED,
    RECEIVED,
    REPORT,
    SEALED,
    to,
)
from gateway.vault import Payloads
from gateway.vault.record import CARRIED


class Operator:
    """What a person may do to instances. Each is told of in the audit before it counts; untold, it is not done.

    Parameters
    ----------
    routes
        As they are configured now: nothing is queued for a destination that its route does not name.
    vault
        Where sealed originals lie; without it none counts as sealed (`discard`).
    wakes
        Told of what there is to do again; None: the worker finds it when it looks.
    told
        More that each audit line says, as who asked for it.

    Each method raises CapacityError ``audit-full`` when it could not be told of.
    """

    def __init__(
        self,
        engine: Engine,
        routes: Iterable[Route],
        audit: AuditLog,
        vault: Payloads | None = None,
        wakes: Wakes | None = None,
        told: Mapping[str, object] | None = None,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._routes = {route.name: route for route in routes}
        self._audit = audit
        self._wakes = wakes or Wakes()
        self._told = dict(told or {})

    def hold(self, ids: Sequence[str], reason: str = "held by the operator") -> int:
        """Hold instances that are on their way; a step at work on one of them finds its lease gone and drops its
        result.

        Returns how many were held. Delivered, discarded and held instances stay as they are.
        """
        with transaction(self._engine) as session:
            lines: list[Line] = []
            for row in _rows(session, ids):
                if row.state in (DELIVERED, DISCARDED, HELD):
                    continue
                row.held_from, row.state = row.state, HELD
                row.reason_code, row.reason = "operator", reason
                row.lease_owner, row.lease_until = None, 0.0
                _stop_deliveries(session, row, "operator")
                lines.append(self._line(events.INSTANCE_HELD, row, "hold"))
            audited_all(self._audit, lines)
        return len(lines)

    def release(self, ids: Sequence[str], after_s: float = 0.0) -> int:
        """Let held instances begin anew: they are decided and marked again, never sent as they are. (A protection
        report has nothing to be marked, and a copy that a destination did not commit to was delivered already: they are
        sent again, to the destinations that their route names now.)

        Parameters
        ----------
        after_s
            Nothing is done with them for so many seconds.

        Raises
        ------
        GatewayError
            Code ``spool-purged``: the received bytes are gone; the archive has to send the instance again.
            ``route-gone``: the route of a report is not configured any more.
        """
        with transaction(self._engine) as session:
            lines: list[Line] = []
            for row in _rows(session, ids):
                if row.state != HELD:
                    continue
                if _goes_as_it_is(row):  # its bytes are what they were
                    queue_deliveries(session, row, self._route(row).destinations, keep_sent=False)
                    row.state, row.held_from = MARKED, None
                    _put_off(session, row.id, after_s)
                elif row.spool_file is None:
                    message = f"instance {row.id}: its received bytes are gone"
                    raise GatewayError("spool-purged", message, "let the archive send it again")
                else:
                    _stop_deliveries(session, row, "released")  # of what was decided before; queued again when marked
                    row.state, row.held_from, row.action = RECEIVED, None, None
                _start_again(row)
                row.next_attempt_at = time.time() + after_s if after_s else 0.0
                lines.append(self._line(events.INSTANCE_RELEASED, row, "release"))
            audited_all(self._audit, lines)
        self._wake(len(lines))
        return len(lines)

    def replay(self, ids: Sequence[str], after_s: float = 0.0) -> int:
        """Send delivered instances once more: the same derived bytes, to the same destinations.

        A destination that the route does not name any more gets nothing. `after_s` as of `release`.

        Raises
        ------
        GatewayError
            Code ``derived-purged``: retention has removed the derived file; the archive has to send the instance again.
            ``route-gone``, ``destination-not-named``: the route is not configured any more, or names none of them.
        """
        with transaction(self._engine) as session:
            lines: list[Line] = []
            for row in _rows(session, ids):
                if row.state != DELIVERED:
                    continue
                if row.derived_file is None:
                    message = f"instance {row.id}: its derived file is gone"
                    raise GatewayError("derived-purged", message, "let the archive send it again")
                route = self._route(row)
                done = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == row.id)).all()
                again = [
                    delivery.id
                    for delivery in done
                    if (delivery.fallback_of or delivery.destination) in route.destinations
                ]
                if not again:
                    message = f"instance {row.id}: route {route.name} names none of the destinations that have it"
                    raise GatewayError("destination-not-named", message, "let the archive send it again")
                row.state, row.delivered_at = MARKED, None
                _start_again(row)
                session.execute(
                    update(DeliveryRow)
                    .where(DeliveryRow.id.in_(again))
                    .values(
                        state=QUEUED,
                        attempts=0,
                        next_attempt_at=0.0,
                        lease_owner=None,
                        lease_until=0.0,
                        commit_state="",
                        commit_uid=None,
                        commit_failures=0,
                    )
                )
                _put_off(session, row.id, after_s)
                lines.append(self._line(events.INSTANCE_RELEASED, row, "replay"))
            audited_all(self._audit, lines)
        self._wake(len(lines))
        return len(lines)

    def retry(self, ids: Sequence[str], after_s: float = 0.0) -> int:
        """Try again now what waits for its next attempt. Returns how many waited; the count of attempts stays.

        after_s: not now, but then; what waits for no attempt is put off as well.
        """
        with transaction(self._engine) as session:
            lines: list[Line] = []
            for row in _rows(session, ids):
                if row.state in (DELIVERED, DISCARDED, HELD):
                    continue
                now = time.time()
                if after_s:
                    row.next_attempt_at = now + after_s
                    _put_off(session, row.id, after_s)
                    lines.append(self._line(events.INSTANCE_RELEASED, row, "retry"))
                    continue
                waits = row.next_attempt_at > now
                if waits:
                    row.next_attempt_at = 0.0
                waiting = update(DeliveryRow).where(
                    DeliveryRow.instance_id == row.id, DeliveryRow.state == QUEUED, DeliveryRow.next_attempt_at > now
                )
                if changed(session, waiting.values(next_attempt_at=0.0)) or waits:
                    lines.append(self._line(events.INSTANCE_RELEASED, row, "retry"))
            audited_all(self._audit, lines)
        self._wake(len(lines))
        return len(lines)

    def discard(self, ids: Sequence[str], really: str = "") -> int:
        """Give held instances up: nothing more of them leaves, and their received bytes go. Returns how many.

        The sealed original stays in the vault, for as long as its retention says. Where there is none (nothing was
        sealed, or it was to ride in the copy), discarding loses it here, and `really` has to be that instance's id.

        Raises
        ------
        GatewayError
            ``original-not-sealed``: of one of them no sealed original is there; none was discarded.
        """
        with transaction(self._engine) as session:
            lines: list[Line] = []
            for row in _rows(session, ids):
                if row.state != HELD:
                    continue
                if row.action == REPORT:
                    why = "report"  # made here: there is no original
                elif self._is_sealed(session, row):
                    why = "original-sealed"
                elif really == row.id:
                    why = "confirmed-unsealed"
                else:
                    message = f"instance {row.id}: no sealed original of it is here, and discarding would lose it"
                    hint = (
                        f"release it; or, when the archive has it for certain, discard it alone with --really {row.id}"
                    )
                    raise GatewayError("original-not-sealed", message, hint)
                _stop_deliveries(session, row, "discarded")
                row.state, row.lease_owner, row.lease_until = DISCARDED, None, 0.0
                lines.append(self._line(events.INSTANCE_DISCARDED, row, "discard", why))
            audited_all(self._audit, lines)
        return len(lines)

    def _wake(self, changed: int) -> None:
        """Wake all who may have something to do now: a person does this, not a loop."""
        if changed:
            names = {name for route in self._routes.values() for name in route.destinations}
            self._wakes.tell([RECEIVED, SEALED, *map(to, names)])

    def _is_sealed(self, session: Session, row: InstanceRow) -> bool:
        record = session.get(VaultRow, row.record) if row.record else None
        if self._vault is None or record is None or record.payload_file in (None, CARRIED):
            return False
        return self._vault.exists(record.locator)

    def _route(self, row: InstanceRow) -> Route:
        try:
            return self._routes[row.route]
        except KeyError:
            message = f"instance {row.id}: route {row.route} is not configured any more"
            raise GatewayError("route-gone", message, "configure it, or let the archive send it again") from None

    def _line(self, event: str, row: InstanceRow, operation: str, reason: str = "operator") -> Line:
        """Written before the commit: what cannot be told of is not done."""
        told = {"operation": operation, "reason": reason, "instance_id": row.id, "route": row.route}
        return Line(event, "success", {**told, "sop_instance_uid": row.sop_instance_uid, **self._told})


def _stop_deliveries(session: Session, row: InstanceRow, code: str) -> None:
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.instance_id == row.id, DeliveryRow.state == QUEUED)
        .values(state=HELD, reason_code=code, lease_owner=None, lease_until=0.0)
    )


def _put_off(session: Session, instance_id: str, after_s: float) -> None:
    """Let what is queued of an instance wait for so many seconds."""
    if after_s:
        queued = (DeliveryRow.instance_id == instance_id, DeliveryRow.state == QUEUED)
        session.execute(update(DeliveryRow).where(*queued).values(next_attempt_at=time.time() + after_s))


def _goes_as_it_is(row: InstanceRow) -> bool:
    is_delivered_copy = row.spool_file is None and row.reason_code == NOT_COMMITTED
    return row.derived_file is not None and (row.action == REPORT or is_delivered_copy)


def _start_again(row: InstanceRow) -> None:
    row.attempts, row.next_attempt_at = 0, 0.0
    row.deaths = min(row.deaths, 1)  # what may have killed a worker goes alone, whoever released it
    row.reason_code = row.reason = row.lease_owner = None
    row.lease_until = 0.0


def _rows(session: Session, ids: Sequence[str]) -> list[InstanceRow]:
    # in one order, as wherever rows are locked
    query = select(InstanceRow).where(InstanceRow.id.in_(ids)).order_by(InstanceRow.id).with_for_update()
    rows = session.scalars(query).all()
    missing = sorted(set(ids) - {row.id for row in rows})
    if missing:
        raise NotFoundError("no-such-instance", f"no instance {', '.join(missing)}", "see `miad-gateway queue ls`")
    return list(rows)
