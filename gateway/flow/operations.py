"""What an operator does to the queue: look, hold, release, replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select, update

from gateway.database import DeliveryRow, InstanceRow, reading, transaction
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.store import DELIVERED, HELD, MARKED, QUEUED, RECEIVED, REPORT


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


def hold(engine: Engine, ids: Sequence[str], reason: str = "held by the operator") -> int:
    """Hold instances that are on their way; a step at work on one of them finds its lease gone and drops its result.

    Returns how many were held. Delivered and held instances stay as they are.
    """
    with transaction(engine) as session:
        held = 0
        for row in _rows(session, ids):
            if row.state in (DELIVERED, HELD):
                continue
            row.held_from, row.state = row.state, HELD
            row.reason_code, row.reason = "operator", reason
            row.lease_owner, row.lease_until = None, 0.0
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.instance_id == row.id, DeliveryRow.state == QUEUED)
                .values(state=HELD, reason_code="operator", lease_owner=None, lease_until=0.0)
            )
            held += 1
    return held


def release(engine: Engine, ids: Sequence[str]) -> int:
    """Let held instances begin anew: they are decided and marked again, never sent as they are. (A protection report
    has nothing to be marked: it is sent again.)

    Raises
    ------
    GatewayError
        Code ``spool-purged``: the received bytes are gone; the archive has to send the instance again.
    """
    with transaction(engine) as session:
        released = 0
        for row in _rows(session, ids):
            if row.state != HELD:
                continue
            if row.action == REPORT and row.derived_file is not None:  # its bytes are what they were
                row.state, row.held_from = MARKED, None
                _start_again(row)
                _send_again(session, row)
                released += 1
                continue
            if row.spool_file is None:
                raise GatewayError("spool-purged", f"instance {row.id}: its received bytes are gone", "send it again")
            row.state, row.held_from, row.action = RECEIVED, None, None
            _start_again(row)
            released += 1
    return released


def replay(engine: Engine, ids: Sequence[str]) -> int:
    """Send delivered instances once more: the same derived bytes, to the same destinations.

    Raises
    ------
    GatewayError
        Code ``derived-purged``: retention has removed the derived file; the archive has to send the instance again.
    """
    with transaction(engine) as session:
        replayed = 0
        for row in _rows(session, ids):
            if row.state != DELIVERED:
                continue
            if row.derived_file is None:
                raise GatewayError("derived-purged", f"instance {row.id}: its derived file is gone", "send it again")
            row.state, row.delivered_at = MARKED, None
            _start_again(row)
            _send_again(session, row)
            replayed += 1
    return replayed


def _send_again(session, row: InstanceRow) -> None:
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.instance_id == row.id)
        .values(state=QUEUED, attempts=0, next_attempt_at=0.0, lease_owner=None, lease_until=0.0)
    )


def _start_again(row: InstanceRow) -> None:
    row.attempts, row.next_attempt_at = 0, 0.0
    row.reason_code = row.reason = row.lease_owner = None
    row.lease_until = 0.0


def _rows(session, ids: Sequence[str]) -> list[InstanceRow]:
    rows = session.scalars(select(InstanceRow).where(InstanceRow.id.in_(ids)).with_for_update()).all()
    missing = sorted(set(ids) - {row.id for row in rows})
    if missing:
        raise NotFoundError("no-such-instance", f"no instance {', '.join(missing)}", "see `miad-gateway queue ls`")
    return list(rows)
