"""What an operator does to the queue: look, hold, release, replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from gateway.audit import AuditLog, events
from gateway.config.models import Route
from gateway.database import DeliveryRow, InstanceRow, reading, transaction
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.deliveries import queue_deliveries
from gateway.flow.states import DELIVERED, HELD, MARKED, QUEUED, RECEIVED, REPORT


@dataclass(frozen=True)
class QueueEntry:
    """One line of `queue ls`: no PHI, and UIDs only in the operator's own output."""

    id: str
    state: str
    route: str
    calling_ae: str
    sop_class_uid: str
    sop_instance_uid: str
    size: int
    received_at: float
    delivered_at: float | None
    attempts: int
    reason_code: str | None
    reason: str | None
    deliveries: dict[str, str]  # destination -> state


def list_instances(engine: Engine, state: str | None = None, limit: int = 100) -> list[QueueEntry]:
    """The newest `limit` instances, of one state or of all."""
    with reading(engine) as session:
        query = select(InstanceRow).order_by(InstanceRow.received_at.desc()).limit(limit)
        rows = session.scalars(query.where(InstanceRow.state == state) if state else query).all()
        deliveries = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id.in_([row.id for row in rows])))
        by_instance: dict[str, dict[str, str]] = {}
        for delivery in deliveries:
            by_instance.setdefault(delivery.instance_id, {})[delivery.destination] = delivery.state
    shared = [name for name in QueueEntry.__dataclass_fields__ if name != "deliveries"]
    return [
        QueueEntry(**{name: getattr(row, name) for name in shared}, deliveries=by_instance.get(row.id, {}))
        for row in rows
    ]


class Operator:
    """What a person may do to instances. Each is told of in the audit before it counts; untold, it is not done.

    Parameters
    ----------
    routes
        As they are configured now: nothing is queued for a destination that its route does not name.
    """

    def __init__(self, engine: Engine, routes: Iterable[Route], audit: AuditLog) -> None:
        self._engine = engine
        self._routes = {route.name: route for route in routes}
        self._audit = audit

    def hold(self, ids: Sequence[str], reason: str = "held by the operator") -> int:
        """Hold instances that are on their way; a step at work on one of them finds its lease gone and drops its
        result.

        Returns how many were held. Delivered and held instances stay as they are.
        """
        with transaction(self._engine) as session:
            held = 0
            for row in _rows(session, ids):
                if row.state in (DELIVERED, HELD):
                    continue
                row.held_from, row.state = row.state, HELD
                row.reason_code, row.reason = "operator", reason
                row.lease_owner, row.lease_until = None, 0.0
                _stop_deliveries(session, row, "operator")
                self._tell(events.INSTANCE_HELD, row, "hold")
                held += 1
        return held

    def release(self, ids: Sequence[str]) -> int:
        """Let held instances begin anew: they are decided and marked again, never sent as they are. (A protection
        report has nothing to be marked: it is sent again, to the destinations that its route names now.)

        Raises
        ------
        GatewayError
            Code ``spool-purged``: the received bytes are gone; the archive has to send the instance again.
            ``route-gone``: the route of a report is not configured any more.
        """
        with transaction(self._engine) as session:
            released = 0
            for row in _rows(session, ids):
                if row.state != HELD:
                    continue
                if row.action == REPORT and row.derived_file is not None:  # its bytes are what they were
                    queue_deliveries(session, row.id, self._route(row).destinations, keep_sent=False)
                    row.state, row.held_from = MARKED, None
                elif row.spool_file is None:
                    message = f"instance {row.id}: its received bytes are gone"
                    raise GatewayError("spool-purged", message, "let the archive send it again")
                else:
                    _stop_deliveries(session, row, "released")  # of what was decided before; queued again when marked
                    row.state, row.held_from, row.action = RECEIVED, None, None
                _start_again(row)
                self._tell(events.INSTANCE_RELEASED, row, "release")
                released += 1
        return released

    def replay(self, ids: Sequence[str]) -> int:
        """Send delivered instances once more: the same derived bytes, to the same destinations.

        A destination that the route does not name any more gets nothing.

        Raises
        ------
        GatewayError
            Code ``derived-purged``: retention has removed the derived file; the archive has to send the instance again.
            ``route-gone``, ``destination-not-named``: the route is not configured any more, or names none of them.
        """
        with transaction(self._engine) as session:
            replayed = 0
            for row in _rows(session, ids):
                if row.state != DELIVERED:
                    continue
                if row.derived_file is None:
                    message = f"instance {row.id}: its derived file is gone"
                    raise GatewayError("derived-purged", message, "let the archive send it again")
                route = self._route(row)
                done = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == row.id)).all()
                again = [delivery.id for delivery in done if delivery.destination in route.destinations]
                if not again:
                    message = f"instance {row.id}: route {route.name} names none of the destinations that have it"
                    raise GatewayError("destination-not-named", message, "let the archive send it again")
                row.state, row.delivered_at = MARKED, None
                _start_again(row)
                session.execute(
                    update(DeliveryRow)
                    .where(DeliveryRow.id.in_(again))
                    .values(state=QUEUED, attempts=0, next_attempt_at=0.0, lease_owner=None, lease_until=0.0)
                )
                self._tell(events.INSTANCE_RELEASED, row, "replay")
                replayed += 1
        return replayed

    def _route(self, row: InstanceRow) -> Route:
        try:
            return self._routes[row.route]
        except KeyError:
            message = f"instance {row.id}: route {row.route} is not configured any more"
            raise GatewayError("route-gone", message, "configure it, or let the archive send it again") from None

    def _tell(self, event: str, row: InstanceRow, operation: str) -> None:
        """Before the commit: a line that cannot be written undoes what it would tell of."""
        self._audit.write(
            event,
            "success",
            operation=operation,
            reason="operator",
            instance_id=row.id,
            route=row.route,
            sop_instance_uid=row.sop_instance_uid,
        )


def _stop_deliveries(session: Session, row: InstanceRow, code: str) -> None:
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.instance_id == row.id, DeliveryRow.state == QUEUED)
        .values(state=HELD, reason_code=code, lease_owner=None, lease_until=0.0)
    )


def _start_again(row: InstanceRow) -> None:
    row.attempts, row.next_attempt_at = 0, 0.0
    row.deaths = min(row.deaths, 1)  # what may have killed a worker goes alone, whoever released it
    row.reason_code = row.reason = row.lease_owner = None
    row.lease_until = 0.0


def _rows(session: Session, ids: Sequence[str]) -> list[InstanceRow]:
    rows = session.scalars(select(InstanceRow).where(InstanceRow.id.in_(ids)).with_for_update()).all()
    missing = sorted(set(ids) - {row.id for row in rows})
    if missing:
        raise NotFoundError("no-such-instance", f"no instance {', '.join(missing)}", "see `miad-gateway queue ls`")
    return list(rows)
