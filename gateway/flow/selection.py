"""Which instances are meant: lists with filters, and ids that are written short. It reads, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from gateway.config.models import Destination
from gateway.database import DeliveryRow, InstanceRow, VaultRow, has_new_study, reading
from gateway.errors import ConfigError, NotFoundError
from gateway.flow.states import DELIVERED, DISCARDED, HELD, QUEUED, SENT

SHORTEST_ID = 3  # letters; shorter ones would soon mean another instance


@dataclass(frozen=True)
class Filter:
    """What a line of the queue has to be; what is empty or None says nothing.

    Attributes
    ----------
    reason
        A reason code, of the instance or of one of its deliveries.
    older_s
        Received at least so many seconds ago.
    study
        A Study Instance UID, of originals or of copies; what is not sealed yet has none.
    """

    state: str | None = None
    reason: str | None = None
    destination: str | None = None
    route: str | None = None
    older_s: float | None = None
    study: str | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def applied(self, query: Select[Any]) -> Select[Any]:
        """The query, narrowed to these instances."""
        state: ColumnElement[str] | InstrumentedAttribute[str] = InstanceRow.state
        if self.state == DELIVERED:  # nearly all of them: SQLite is to go by the time, and not by this
            state = func.coalesce(state, "")
        if self.state is not None:
            query = query.where(state == self.state)
        if self.route is not None:
            query = query.where(func.coalesce(InstanceRow.route, "") == self.route)  # the same: a route has many
        if self.study is not None:
            column = VaultRow.derived_study_uid
            of_it = (VaultRow.study_uid == self.study) | (has_new_study(column) & (column == self.study))
            query = query.where(InstanceRow.record.in_(select(VaultRow.locator).where(of_it)))
        if self.older_s is not None:
            query = query.where(InstanceRow.received_at <= time.time() - self.older_s)
        if self.destination is not None:
            to_it = select(DeliveryRow).where(
                DeliveryRow.instance_id == InstanceRow.id, DeliveryRow.destination == self.destination
            )
            if self.state == HELD:  # held for another destination's sake, it went to this one
                to_it = to_it.where(DeliveryRow.state != SENT)
            query = query.where(to_it.exists())
        if self.reason is not None:
            delivery = select(DeliveryRow.instance_id).where(DeliveryRow.reason_code == self.reason)
            query = query.where((InstanceRow.reason_code == self.reason) | InstanceRow.id.in_(delivery))
        return query


@dataclass(frozen=True)
class QueueEntry:
    """One line of `queue ls`: no PHI, and UIDs only in the operator's own output.

    next_attempt_at: when the instance, or the first of its deliveries that wait, is tried again; None: at once, or
    it waits for nothing.
    """

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
    next_attempt_at: float | None
    reason_code: str | None
    reason: str | None
    deliveries: dict[str, str]  # destination -> state
    study_uid: str | None = None  # of the original; None: not sealed yet


def list_instances(
    engine: Engine,
    state: str | None = None,
    limit: int = 100,
    only: Filter | None = None,
    destinations: Iterable[Destination] = (),
) -> list[QueueEntry]:
    """The newest `limit` instances, of one state or of all, and of those that `only` lets through.

    destinations: where they are given, what waits for the schedule of one of them says so.
    """
    closed = {one.name: until for one in destinations if (until := one.closed_until(time.time())) is not None}
    with reading(engine) as session:
        query = (only or Filter(state)).applied(select(InstanceRow))
        rows = session.scalars(query.order_by(InstanceRow.received_at.desc()).limit(limit)).all()
        by_instance = _deliveries(session, [row.id for row in rows])
        studies = _studies(session, [row.record for row in rows if row.record])
    entries = [_entry(row, by_instance.get(row.id, []), closed) for row in rows]
    return [replace(one, study_uid=studies.get(row.record or "")) for one, row in zip(entries, rows, strict=True)]


def ids_of(engine: Engine, only: Filter) -> list[str]:
    """All instances that the filter lets through, the oldest first."""
    with reading(engine) as session:
        return list(session.scalars(only.applied(select(InstanceRow.id)).order_by(InstanceRow.received_at)))


def whole_ids(engine: Engine, written: Sequence[str]) -> list[str]:
    """Instance ids, each of which may be written as its first letters.

    Raises
    ------
    NotFoundError
        ``no-such-instance``.
    ConfigError
        ``ambiguous-id``: several begin so; ``short-id``: too few letters to be sure of.
    """
    found: list[str] = []
    missing: list[str] = []
    with reading(engine) as session:
        for word in dict.fromkeys(written):
            if session.get(InstanceRow, word) is not None:
                found.append(word)
                continue
            if len(word) < SHORTEST_ID:
                raise ConfigError(
                    "short-id", f"{word!r} is too short for an id", f"write {SHORTEST_ID} letters or more"
                )
            query = select(InstanceRow.id).where(InstanceRow.id.startswith(word, autoescape=True))
            ids = session.scalars(query.limit(2)).all()
            if len(ids) > 1:
                raise ConfigError("ambiguous-id", f"several instances begin with {word}", "write more of the id")
            (found if ids else missing).append(ids[0] if ids else word)
    if missing:
        raise NotFoundError("no-such-instance", f"no instance {', '.join(missing)}", "see `miad-gateway queue ls`")
    return list(dict.fromkeys(found))


def facts_of(engine: Engine, instance_id: str) -> dict[str, Any]:
    """Everything that the tables say of one instance, for the operator's own output: UIDs, and no PHI."""
    with reading(engine) as session:
        row = session.get(InstanceRow, instance_id)
        if row is None:
            raise NotFoundError("no-such-instance", f"no instance {instance_id}", "see `miad-gateway queue ls`")
        facts = {column.key: getattr(row, column.key) for column in InstanceRow.__mapper__.column_attrs}
        # Of a record these two alone: the page's account may read no column that could name a patient.
        uids = select(VaultRow.study_uid, VaultRow.derived_sop_uid).where(VaultRow.locator == row.record)
        facts["study_uid"], facts["derived_sop_instance_uid"] = session.execute(uids).one_or_none() or (None, None)
        names = (
            "destination",
            "fallback_of",
            "state",
            "attempts",
            "next_attempt_at",
            "dimse_status",
            "reason_code",
            "reason",
            "sent_at",
            "commit_state",
            "commit_uid",
            "commit_at",
            "commit_failures",
        )
        facts["deliveries"] = [
            {name: getattr(one, name) for name in names} for one in _deliveries(session, [row.id]).get(row.id, [])
        ]
    return facts


def _studies(session: Session, locators: Sequence[str]) -> dict[str, str]:
    """Locator of a record -> its Study Instance UID."""
    found: dict[str, str] = {}
    for start in range(0, len(locators), 500):
        query = select(VaultRow.locator, VaultRow.study_uid).where(VaultRow.locator.in_(locators[start : start + 500]))
        found |= {row.locator: row.study_uid for row in session.execute(query)}
    return found


def _deliveries(session: Session, ids: Sequence[str]) -> dict[str, list[DeliveryRow]]:
    found: dict[str, list[DeliveryRow]] = {}
    for start in range(0, len(ids), 500):
        query = (
            select(DeliveryRow).where(DeliveryRow.instance_id.in_(ids[start : start + 500])).order_by(DeliveryRow.id)
        )
        for row in session.scalars(query):
            found.setdefault(row.instance_id, []).append(row)
    return found


def _entry(row: InstanceRow, deliveries: Sequence[DeliveryRow], closed: Mapping[str, float]) -> QueueEntry:
    own = {"attempts", "next_attempt_at", "deliveries", "reason_code", "reason", "study_uid"}
    shared = {name: getattr(row, name) for name in QueueEntry.__dataclass_fields__ if name not in own}
    waits = [row.next_attempt_at] if row.state not in (HELD, DISCARDED) else []
    queued = [one for one in deliveries if one.state == QUEUED]
    waits += [max(one.next_attempt_at, closed.get(one.destination, 0.0)) for one in queued]
    code, reason = row.reason_code, row.reason
    if code is None and row.state not in (HELD, DISCARDED):
        code, reason = _why_it_waits(queued, closed)
    later = [moment for moment in waits if moment > time.time()]
    return QueueEntry(
        **shared,
        attempts=max([row.attempts, *(one.attempts for one in deliveries)]),
        next_attempt_at=min(later) if later else None,
        reason_code=code,
        reason=reason,
        deliveries={one.destination: one.state for one in deliveries},
    )


def _why_it_waits(queued: Sequence[DeliveryRow], closed: Mapping[str, float]) -> tuple[str | None, str | None]:
    """Code and words for a delivery that failed and is tried again, or that waits for a schedule."""
    for one in queued:
        if one.destination in closed:
            return "outside-schedule", f"the schedule of destination {one.destination} is closed"
    tried = next((one for one in queued if one.reason_code is not None), None)
    return (tried.reason_code, tried.reason) if tried else (None, None)
