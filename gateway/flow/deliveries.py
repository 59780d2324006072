"""The table of deliveries: claims with leases, and changes of state, many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Select, Update, bindparam, insert, or_, select, update
from sqlalchemy.orm import Session

from gateway.database import DeliveryRow, InstanceRow, PausedRow, at_once, changed, reading, transaction, update_each
from gateway.flow.changes import DeliveryChange, Tell, Telling, settle_apart
from gateway.flow.leases import LeaseLost, Leases, is_due, taking
from gateway.flow.settling import settle_sent
from gateway.flow.states import DELIVERED, HELD, MARKED, QUEUED, SENT, to


def untold(*_lines: object) -> None:
    """What stands for a change of state that nobody needs to be told of."""


# On its way, or held after it was marked: for another destination's sake. What is held from an earlier step is decided
# anew before anything of it leaves.
_MAY_LEAVE = or_(InstanceRow.state == MARKED, (InstanceRow.state == HELD) & (InstanceRow.held_from == MARKED))

_SUSPECTED = DeliveryRow.deaths > 0


_INSTANCES = select(InstanceRow.__table__).where(InstanceRow.id.in_(bindparam("ids", expanding=True)))


@cache
def _claiming(suspects: bool = False) -> dict[str, Update | Select]:
    """The statement that claims deliveries to a destination; made once."""
    picked = (
        select(DeliveryRow.id)
        .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
        .where(
            DeliveryRow.destination == bindparam("kind"),
            DeliveryRow.state == QUEUED,
            *is_due(DeliveryRow),
            _SUSPECTED if suspects else DeliveryRow.deaths == 0,
            _MAY_LEAVE,
            ~select(PausedRow).where(PausedRow.destination == bindparam("kind")).exists(),
        )
        .order_by(*((DeliveryRow.deaths, DeliveryRow.id) if suspects else (DeliveryRow.id,)))
        .limit(bindparam("limit"))
    )
    return taking(DeliveryRow, picked, of=DeliveryRow)


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
        return self._claim_deliveries(destination, limit, lease_s, _claiming())

    def claim_suspect_delivery(self, destination: str, lease_s: float) -> list[tuple[DeliveryRow, InstanceRow]]:
        """Take one delivery that a process died of, or beside; the one with the fewest deaths first."""
        return self._claim_deliveries(destination, 1, lease_s, _claiming(suspects=True))

    def has_suspect_delivery(self, destination: str) -> bool:
        """Whether one waits for its turn to be done alone."""
        with reading(self._engine) as session:
            waiting = select(DeliveryRow.id).where(
                DeliveryRow.destination == destination,
                DeliveryRow.state == QUEUED,
                DeliveryRow.next_attempt_at <= time.time(),
                DeliveryRow.lease_owner.is_(None),
                _SUSPECTED,
                ~select(PausedRow).where(PausedRow.destination == destination).exists(),
            )
            return session.scalar(waiting.limit(1)) is not None

    def _claim_deliveries(
        self, destination: str, limit: int, lease_s: float, statements: dict[str, Any]
    ) -> list[tuple[DeliveryRow, InstanceRow]]:
        deliveries = self._take(DeliveryRow, destination, statements, limit, lease_s)
        if not deliveries:
            return []
        with at_once(self._engine) as connection:
            rows = connection.execute(_INSTANCES, {"ids": [delivery.instance_id for delivery in deliveries]})
            instances: dict[str, Any] = {row.id: row for row in rows}
        deliveries.sort(key=lambda delivery: (delivery.deaths, delivery.id))
        return [(delivery, instances[delivery.instance_id]) for delivery in deliveries]

    def renew_deliveries(self, deliveries: Sequence[DeliveryRow], lease_s: float) -> None:
        """Keep the leases of deliveries that take long."""
        self._renew(DeliveryRow, deliveries, lease_s)

    def settle_deliveries(
        self, changes: Sequence[DeliveryChange], tell: Tell = untold
    ) -> tuple[list[Exception | None], set[str]]:
        """Make changes of claimed deliveries in one transaction; as `FlowStore.settle`.

        Returns
        -------
        tuple
            What `FlowStore.settle` returns; and the ids of the instances of which this was the last delivery, so that
            they are now delivered.
        """
        telling, delivered = Telling(tell), set[str]()
        failed = settle_apart(
            changes, lambda batch, counted: self._settle_deliveries(batch, telling, delivered, counted), self._apart
        )
        for change, error in zip(changes, failed, strict=True):
            if error is None and "next_attempt_at" in change.values:
                name = change.values.get("destination", change.delivery.destination)
                self.wakes.tell_later(to(name), change.values["next_attempt_at"] - time.time())
        self._over(failed, [(change.delivery.id, change.delivery.lease_token) for change in changes])
        return failed, delivered

    def _settle_deliveries(
        self, batch: dict[int, DeliveryChange], telling: Telling, delivered: set[str], counted: set[int]
    ) -> dict[int, Exception]:
        settled: dict[int, str] = {}
        if self._engine.dialect.name == "postgresql" and not any(change.lines for change in batch.values()):
            with at_once(self._engine) as connection:
                settled = settle_sent(connection, self.owner, list(batch.values()))
            delivered.update(settled.values())
            counted |= {at for at, change in batch.items() if change.delivery.id in settled}
        rest = {at: change for at, change in batch.items() if change.delivery.id not in settled}
        return self._settle_each_delivery(rest, telling, delivered) if rest else {}

    def _settle_each_delivery(
        self, batch: dict[int, DeliveryChange], telling: Telling, delivered: set[str]
    ) -> dict[int, Exception]:
        with transaction(self._engine) as session:
            instances = sorted({change.delivery.instance_id for change in batch.values()})
            # First the instances, in one order: of two workers that send the last two of one, the second counts last.
            session.execute(
                select(InstanceRow.id).where(InstanceRow.id.in_(instances)).order_by(InstanceRow.id).with_for_update()
            )
            claimed = (
                select(DeliveryRow.id, DeliveryRow.lease_token)
                .where(
                    DeliveryRow.id.in_([change.delivery.id for change in batch.values()]),
                    DeliveryRow.state == QUEUED,
                    DeliveryRow.lease_owner == self.owner,
                )
                .order_by(DeliveryRow.id)
                .with_for_update()
            )
            tokens = {row.id: row.lease_token for row in session.execute(claimed)}
            failed: dict[int, Exception] = {
                at: LeaseLost(str(change.delivery.id))
                for at, change in batch.items()
                if tokens.get(change.delivery.id) != change.delivery.lease_token
            }
            failed |= telling.tell({at: change for at, change in batch.items() if at not in failed})
            good = [change for at, change in batch.items() if at not in failed]
            rows = [{"id": one.delivery.id, **one.values, "lease_owner": None, "lease_until": 0.0} for one in good]
            update_each(session, DeliveryRow, rows, DeliveryRow.lease_owner == self.owner)
            done = _all_sent(session, {one.delivery.instance_id for one in good if one.values.get("state") == SENT})
            if done:
                session.execute(
                    update(InstanceRow)
                    .where(InstanceRow.id.in_(done), InstanceRow.state == MARKED)
                    .values(state=DELIVERED, delivered_at=time.time())
                    .execution_options(synchronize_session=False)
                )
            for one in good:
                if one.values.get("state") == HELD:
                    _hold_marked(session, one.delivery.instance_id, one.values["reason_code"], one.values["reason"])
        delivered |= done
        return failed

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


@dataclass(frozen=True)
class Wanted:
    """Destinations of an instance of this route; `keep_sent` leaves those that have these very bytes."""

    route: str
    destinations: Sequence[str]
    keep_sent: bool


def queue_deliveries(session: Session, row: InstanceRow, destinations: Sequence[str], *, keep_sent: bool) -> int:
    """Queue one delivery for each destination, as `queue_all`. Returns how many are still to be sent."""
    return queue_all(session, {row.id: Wanted(row.route, destinations, keep_sent)})[row.id]


def queue_all(session: Session, wanted: Mapping[str, Wanted]) -> dict[str, int]:
    """Queue the deliveries of many instances, by id; returns how many of each are still to be sent."""
    if not wanted:
        return {}
    known: dict[str, dict[str, DeliveryRow]] = {instance_id: {} for instance_id in wanted}
    for row in session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id.in_(list(wanted)))):
        known[row.instance_id][row.fallback_of or row.destination] = row
    left, new = dict.fromkeys(wanted, 0), []
    for instance_id, one in wanted.items():
        for name in one.destinations:
            found = known[instance_id].pop(name, None)
            if found is None:
                new.append({"instance_id": instance_id, "route": one.route, "destination": name, "state": QUEUED})
            elif found.state == SENT and one.keep_sent:
                continue
            else:
                _queue_again(found, name)
            left[instance_id] += 1
        for row in known[instance_id].values():
            session.delete(row)  # the route no longer names it
    if new:
        session.execute(insert(DeliveryRow), new)
    return left


def _queue_again(row: DeliveryRow, destination: str) -> None:
    row.destination, row.fallback_of = destination, None  # the first is tried anew
    row.state, row.attempts, row.next_attempt_at, row.lease_until = QUEUED, 0, 0.0, 0.0
    row.lease_owner = row.failing_since = row.reason_code = row.reason = row.commit_uid = None
    row.commit_state, row.commit_failures = "", 0
    row.deaths = min(row.deaths, 1)  # what killed a worker goes alone, whoever released it


def _all_sent(session: Session, instances: Set[str]) -> set[str]:
    """Those of the instances that have no delivery which is not sent."""
    if not instances:
        return set()
    unsent = select(DeliveryRow.instance_id).where(DeliveryRow.instance_id.in_(instances), DeliveryRow.state != SENT)
    return set(instances) - set(session.scalars(unsent))


def _hold_marked(session: Session, instance_id: str, code: str, reason: str) -> None:
    session.execute(
        update(InstanceRow)
        .where(InstanceRow.id == instance_id, InstanceRow.state == MARKED)
        .values(state=HELD, held_from=MARKED, reason_code=code, reason=reason)
    )
