"""The table of deliveries: claims with leases, and one method for each change of state."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from gateway.database import DeliveryRow, InstanceRow, changed, reading, transaction
from gateway.flow.leases import LeaseLost, Leases
from gateway.flow.states import DELIVERED, HELD, MARKED, QUEUED, SENT


def untold() -> None:
    """What stands for a change of state that nobody needs to be told of."""


# On its way, or held after it was marked: for another destination's sake. What is held from an earlier step is decided
# anew before anything of it leaves.
_MAY_LEAVE = or_(InstanceRow.state == MARKED, (InstanceRow.state == HELD) & (InstanceRow.held_from == MARKED))

_SUSPECTED = DeliveryRow.deaths > 0


@dataclass(frozen=True)
class Stranded:
    """A delivery that nobody would make any more."""

    instance_id: str
    route: str
    destination: str


class DeliveryTable(Leases):
    """Instances on their way to destinations."""

    def claim_deliveries(self, destination: str, limit: int, lease_s: float) -> list[tuple[DeliveryRow, InstanceRow]]:
        """Take up to `limit` deliveries to one destination, oldest first, each with its instance; none suspected."""
        return self._claim_deliveries(destination, limit, lease_s, DeliveryRow.deaths == 0, DeliveryRow.id)

    def claim_suspect_delivery(self, destination: str, lease_s: float) -> list[tuple[DeliveryRow, InstanceRow]]:
        """Take one delivery that a process died of, or beside; the one with the fewest deaths first."""
        return self._claim_deliveries(destination, 1, lease_s, _SUSPECTED, DeliveryRow.deaths, DeliveryRow.id)

    def has_suspect_delivery(self, destination: str) -> bool:
        """Whether one waits for its turn to be done alone."""
        with reading(self._engine) as session:
            waiting = select(DeliveryRow.id).where(
                DeliveryRow.destination == destination,
                DeliveryRow.state == QUEUED,
                DeliveryRow.next_attempt_at <= time.time(),
                DeliveryRow.lease_owner.is_(None),
                _SUSPECTED,
            )
            return session.scalar(waiting.limit(1)) is not None

    def _claim_deliveries(
        self, destination: str, limit: int, lease_s: float, of_kind: ColumnElement[bool], *order: Any
    ) -> list[tuple[DeliveryRow, InstanceRow]]:
        now = time.time()
        with transaction(self._engine) as session:
            self._end_overdue(session, DeliveryRow, now, DeliveryRow.destination == destination)
            pairs = session.execute(
                select(DeliveryRow, InstanceRow)
                .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                .where(
                    DeliveryRow.destination == destination,
                    DeliveryRow.state == QUEUED,
                    DeliveryRow.next_attempt_at <= now,
                    DeliveryRow.lease_until <= now,
                    of_kind,
                    _MAY_LEAVE,
                )
                .order_by(*order)
                .limit(limit)
                .with_for_update(skip_locked=True, of=DeliveryRow)
            ).all()
            for delivery, _ in pairs:
                self._lease(delivery, lease_s)
        return [(delivery, instance) for delivery, instance in pairs]

    def renew_deliveries(self, ids: Sequence[int], lease_s: float) -> None:
        """Keep the leases of deliveries that take long."""
        with transaction(self._engine) as session:
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.id.in_(ids), DeliveryRow.lease_owner == self.owner)
                .values(lease_until=time.time() + lease_s)
            )

    def give_back(self, ids: Sequence[int], delay_s: float = 0.0) -> None:
        """Return claimed deliveries untried."""
        with transaction(self._engine) as session:
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.id.in_(ids), DeliveryRow.lease_owner == self.owner, DeliveryRow.state == QUEUED)
                .values(
                    lease_owner=None,
                    lease_until=0.0,
                    next_attempt_at=time.time() + delay_s,
                    attempts=DeliveryRow.attempts - 1,
                )
            )

    def sent(self, delivery: DeliveryRow, dimse_status: int) -> bool:
        """Queued -> sent. Returns True when this was the instance's last delivery, so that it is now delivered."""
        now = time.time()
        with transaction(self._engine) as session:
            self._settle(
                session, delivery, state=SENT, sent_at=now, dimse_status=dimse_status, failing_since=None, deaths=0
            )
            open_ones = session.scalar(
                select(func.count())
                .select_from(DeliveryRow)
                .where(DeliveryRow.instance_id == delivery.instance_id, DeliveryRow.state != SENT)
            )
            if open_ones:
                return False
            session.execute(
                update(InstanceRow)
                .where(InstanceRow.id == delivery.instance_id, InstanceRow.state == MARKED)
                .values(state=DELIVERED, delivered_at=now)
            )
            return True

    def delivery_later(
        self, delivery: DeliveryRow, delay_s: float, code: str, reason: str, failing_since: float | None = None
    ) -> None:
        """The destination did not take it now: try again after `delay_s`.

        Parameters
        ----------
        failing_since
            Seconds since 1970: when the failures began that end after a time, not after a number.
        """
        with transaction(self._engine) as session:
            self._settle(
                session,
                delivery,
                next_attempt_at=time.time() + delay_s,
                reason_code=code,
                reason=reason,
                failing_since=failing_since,
            )

    def delivery_held(self, delivery: DeliveryRow, code: str, reason: str, tell: Callable[[], None] = untold) -> None:
        """The destination will not take it: the delivery and its instance are held for a person.

        `tell` is called before the commit: when it raises, nothing has happened.
        """
        with transaction(self._engine) as session:
            self._settle(session, delivery, state=HELD, reason_code=code, reason=reason)
            _hold_marked(session, delivery.instance_id, code, reason)
            tell()

    def stranded(self, named: Collection[tuple[str, str]]) -> list[Stranded]:
        """Deliveries that wait for a destination which their route does not name.

        Parameters
        ----------
        named
            Each (route, destination) of the configuration.
        """
        with reading(self._engine) as session:
            waiting = (
                select(InstanceRow.route, DeliveryRow.destination)
                .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                .where(DeliveryRow.state == QUEUED)
                .distinct()
            )
            pairs = [(route, destination) for route, destination in session.execute(waiting)]
            gone = [pair for pair in pairs if pair not in named]
            return [
                Stranded(instance_id, route, destination)
                for route, destination in gone
                for instance_id in session.scalars(
                    select(DeliveryRow.instance_id)
                    .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                    .where(
                        DeliveryRow.state == QUEUED,
                        DeliveryRow.destination == destination,
                        InstanceRow.route == route,
                        DeliveryRow.lease_until <= time.time(),  # another worker's, which still knows it
                    )
                )
            ]

    def hold_stranded(self, one: Stranded, code: str, reason: str, tell: Callable[[], None] = untold) -> bool:
        """Hold such a delivery, and its instance; False when it has moved meanwhile. `tell` as for `delivery_held`."""
        with transaction(self._engine) as session:
            done = changed(
                session,
                update(DeliveryRow)
                .where(
                    DeliveryRow.instance_id == one.instance_id,
                    DeliveryRow.destination == one.destination,
                    DeliveryRow.state == QUEUED,
                    DeliveryRow.lease_until <= time.time(),
                )
                .values(state=HELD, reason_code=code, reason=reason, lease_owner=None, lease_until=0.0),
            )
            if done:
                _hold_marked(session, one.instance_id, code, reason)
                tell()
            return bool(done)

    def _settle(self, session: Session, delivery: DeliveryRow, **changes: Any) -> None:
        done = changed(
            session,
            update(DeliveryRow)
            .where(DeliveryRow.id == delivery.id, DeliveryRow.state == QUEUED, DeliveryRow.lease_owner == self.owner)
            .values(lease_owner=None, lease_until=0.0, **changes),
        )
        if done != 1:
            raise LeaseLost(str(delivery.id))


def queue_deliveries(session: Session, instance_id: str, destinations: Sequence[str], *, keep_sent: bool) -> int:
    """Queue one delivery for each destination; `keep_sent` leaves those that have these very bytes. Returns how many
    are still to be sent.
    """
    known = {
        row.destination: row
        for row in session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == instance_id))
    }
    left = 0
    for name in destinations:
        row = known.get(name)
        if row is None:
            session.add(DeliveryRow(instance_id=instance_id, destination=name, state=QUEUED))
        elif row.state == SENT and keep_sent:
            continue
        else:
            row.state, row.attempts, row.next_attempt_at, row.lease_until = QUEUED, 0, 0.0, 0.0
            row.lease_owner = row.failing_since = row.reason_code = row.reason = None
            row.deaths = min(row.deaths, 1)  # what killed a worker goes alone, whoever released it
        left += 1
    for name, row in known.items():
        if name not in destinations:
            session.delete(row)  # the route no longer names it
    return left


def _hold_marked(session: Session, instance_id: str, code: str, reason: str) -> None:
    session.execute(
        update(InstanceRow)
        .where(InstanceRow.id == instance_id, InstanceRow.state == MARKED)
        .values(state=HELD, held_from=MARKED, reason_code=code, reason=reason)
    )
