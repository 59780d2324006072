"""What happens to instances, as database transactions: claims with leases, and one method for each change of state.

Every change names the owner of the lease and does nothing when the lease has passed to someone else (`LeaseLost`), so
a step that was slow, or repeated after a crash, can never undo what its successor did.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.database import DeliveryRow, InstanceRow, ReportRow, reading, transaction
from gateway.flow.ports import ReceivedFacts

RECEIVED, SEALED, MARKED, DELIVERED, HELD = "received", "sealed", "marked", "delivered", "held"
QUEUED, SENT = "queued", "sent"
REPORT = "report"  # action of a protection report, which was made here and not received


class LeaseLost(Exception):
    """Another worker has taken this work over; whoever sees this drops what it did."""


@dataclass(frozen=True)
class Stored:
    """What the spool knows about a received data set."""

    spool_file: str
    size: int
    sha256: str


def lease_owner() -> str:
    """A name for this process that another process on this host can check for life."""
    return f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"


class FlowStore:
    """The instance and delivery tables."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self.owner = owner

    # -- receiving ---------------------------------------------------------------------------------------------------

    def add_received(self, facts: ReceivedFacts, stored: Stored, route: str) -> str:
        """Commit a received instance and return its id. Once this returns, success may be sent to the archive."""
        row = InstanceRow(
            id=secrets.token_hex(16),
            state=RECEIVED,
            route=route,
            calling_ae=facts.calling_ae,
            called_ae=facts.called_ae,
            peer_address=facts.peer_address,
            association_id=facts.association_id,
            sop_class_uid=facts.sop_class_uid,
            sop_instance_uid=facts.sop_instance_uid,
            transfer_syntax_uid=facts.transfer_syntax_uid,
            size=stored.size,
            sha256=stored.sha256,
            spool_file=stored.spool_file,
            attempts=0,
            next_attempt_at=0.0,
            lease_until=0.0,
            received_at=time.time(),
        )
        with transaction(self._engine) as session:
            session.add(row)
        return row.id

    def waiting(self) -> int:
        """Number of instances on their way: neither delivered nor held."""
        with reading(self._engine) as session:
            return session.scalar(
                select(func.count()).select_from(InstanceRow).where(InstanceRow.state.in_([RECEIVED, SEALED, MARKED]))
            )

    # -- instances ---------------------------------------------------------------------------------------------------

    def claim(self, state: str, limit: int, lease_s: float) -> list[InstanceRow]:
        """Take up to `limit` instances in `state`, oldest first, whose turn has come and that nobody works on."""
        now = time.time()
        with transaction(self._engine) as session:
            rows = session.scalars(
                select(InstanceRow)
                .where(InstanceRow.state == state, InstanceRow.next_attempt_at <= now, InstanceRow.lease_until <= now)
                .order_by(InstanceRow.received_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                row.lease_owner, row.lease_until = self.owner, now + lease_s
        return list(rows)

    def renew(self, ids: Sequence[str], lease_s: float) -> None:
        """Keep the leases of work that takes long."""
        with transaction(self._engine) as session:
            session.execute(
                update(InstanceRow)
                .where(InstanceRow.id.in_(ids), InstanceRow.lease_owner == self.owner)
                .values(lease_until=time.time() + lease_s)
            )

    def recorded(self, instance_id: str, record: str) -> None:
        """Note the vault record of an original that stays where it is: it will be held, and can be restored."""
        with transaction(self._engine) as session:
            session.execute(
                update(InstanceRow)
                .where(InstanceRow.id == instance_id, InstanceRow.lease_owner == self.owner)
                .values(record=record)
            )

    def sealed(self, instance_id: str, record: str, action: str = "mark") -> None:
        """Received -> sealed: the original lies in the vault. `action`: what the policy decided, "mark" or "remap"."""
        self._advance(instance_id, RECEIVED, state=SEALED, record=record, action=action, sealed_at=time.time())

    def marked(self, instance_id: str, derived_file: str, size: int, record: str, destinations: Sequence[str]) -> None:
        """Sealed -> marked: the derived bytes are fixed; deliveries are queued in the same transaction."""
        with transaction(self._engine) as session:
            before = session.scalar(select(InstanceRow.derived_file).where(InstanceRow.id == instance_id))
            now = time.time()
            changes = {"derived_file": derived_file, "derived_size": size, "record": record, "marked_at": now}
            left = _queue(session, instance_id, destinations, keep_sent=before == derived_file)
            changes |= {"state": MARKED} if left else {"state": DELIVERED, "delivered_at": now}
            self._advance_in(session, instance_id, SEALED, **changes)

    def passed(self, instance_id: str, destinations: Sequence[str]) -> None:
        """Received -> marked, as it is: only for a route that says `pass` in so many words."""
        with transaction(self._engine) as session:
            self._advance_in(session, instance_id, RECEIVED, state=MARKED, action="pass", marked_at=time.time())
            _queue(session, instance_id, destinations, keep_sent=False)

    def add_report(self, row: InstanceRow, report: ReportRow, destinations: Sequence[str]) -> bool:
        """A protection report on its way, its file written already. False when there is one of this number."""
        try:
            with transaction(self._engine) as session:
                session.add_all((row, report))
                session.flush()
                _queue(session, row.id, destinations, keep_sent=False)
        except IntegrityError:
            return False
        return True

    def held(self, instance_id: str, state: str, code: str, reason: str) -> None:
        """Any state -> held, with the reason that an operator sees. `reason` holds no PHI."""
        self._advance(instance_id, state, state=HELD, held_from=state, reason_code=code, reason=reason)

    def later(self, instance_id: str, state: str, delay_s: float, code: str, reason: str) -> None:
        """Give the instance back, to be tried again after `delay_s`."""
        self._advance(
            instance_id,
            state,
            attempts=InstanceRow.attempts + 1,
            next_attempt_at=time.time() + delay_s,
            reason_code=code,
            reason=reason,
        )

    def _advance(self, instance_id: str, state: str, /, **changes) -> None:
        with transaction(self._engine) as session:
            self._advance_in(session, instance_id, state, **changes)

    def _advance_in(self, session: Session, instance_id: str, state: str, /, **changes) -> None:
        if changes.get("state", HELD) != HELD:  # a step forward starts with a clean sheet
            changes = {"attempts": 0, "next_attempt_at": 0.0, "reason_code": None, "reason": None, **changes}
        done = session.execute(
            update(InstanceRow)
            .where(InstanceRow.id == instance_id, InstanceRow.state == state, InstanceRow.lease_owner == self.owner)
            .values(lease_owner=None, lease_until=0.0, **changes)
        )
        if done.rowcount != 1:
            raise LeaseLost(instance_id)

    # -- deliveries --------------------------------------------------------------------------------------------------

    def claim_deliveries(self, destination: str, limit: int, lease_s: float) -> list[tuple[DeliveryRow, InstanceRow]]:
        """Take up to `limit` deliveries to one destination, oldest first, each with its instance."""
        now = time.time()
        with transaction(self._engine) as session:
            pairs = session.execute(
                select(DeliveryRow, InstanceRow)
                .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                .where(
                    DeliveryRow.destination == destination,
                    DeliveryRow.state == QUEUED,
                    DeliveryRow.next_attempt_at <= now,
                    DeliveryRow.lease_until <= now,
                    InstanceRow.state.in_([MARKED, HELD]),  # held: for another destination's sake
                )
                .order_by(DeliveryRow.id)
                .limit(limit)
                .with_for_update(skip_locked=True, of=DeliveryRow)
            ).all()
            for delivery, _ in pairs:
                delivery.lease_owner, delivery.lease_until = self.owner, now + lease_s
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
                .values(lease_owner=None, lease_until=0.0, next_attempt_at=time.time() + delay_s)
            )

    def sent(self, delivery: DeliveryRow, dimse_status: int) -> bool:
        """Queued -> sent. Returns True when this was the instance's last delivery, so that it is now delivered."""
        now = time.time()
        with transaction(self._engine) as session:
            self._settle(session, delivery, state=SENT, sent_at=now, dimse_status=dimse_status)
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

    def delivery_later(self, delivery: DeliveryRow, delay_s: float, code: str, reason: str) -> None:
        """The destination did not take it now: try again after `delay_s`."""
        with transaction(self._engine) as session:
            self._settle(
                session,
                delivery,
                attempts=DeliveryRow.attempts + 1,
                next_attempt_at=time.time() + delay_s,
                reason_code=code,
                reason=reason,
            )

    def delivery_held(self, delivery: DeliveryRow, code: str, reason: str) -> None:
        """The destination will not take it: the delivery and its instance are held for a person."""
        with transaction(self._engine) as session:
            self._settle(session, delivery, state=HELD, reason_code=code, reason=reason)
            session.execute(
                update(InstanceRow)
                .where(InstanceRow.id == delivery.instance_id, InstanceRow.state == MARKED)
                .values(state=HELD, held_from=MARKED, reason_code=code, reason=reason)
            )

    def _settle(self, session: Session, delivery: DeliveryRow, **changes) -> None:
        done = session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.id == delivery.id, DeliveryRow.state == QUEUED, DeliveryRow.lease_owner == self.owner)
            .values(lease_owner=None, lease_until=0.0, **changes)
        )
        if done.rowcount != 1:
            raise LeaseLost(str(delivery.id))

    # -- recovery ----------------------------------------------------------------------------------------------------

    def free_dead_leases(self) -> int:
        """Free the leases of processes of this host that are gone, so that work resumes at once after a crash."""
        freed = 0
        with transaction(self._engine) as session:
            for table in (InstanceRow, DeliveryRow):
                owners = session.scalars(select(table.lease_owner).where(table.lease_owner.is_not(None)).distinct())
                dead = [owner for owner in owners if owner != self.owner and _is_dead(owner)]
                if dead:
                    freed += session.execute(
                        update(table).where(table.lease_owner.in_(dead)).values(lease_owner=None, lease_until=0.0)
                    ).rowcount
        return freed

    # -- retention ---------------------------------------------------------------------------------------------------

    def spool_to_purge(self, limit: int = 500) -> list[InstanceRow]:
        """Delivered instances whose received bytes still lie in the spool."""
        with reading(self._engine) as session:
            return list(
                session.scalars(
                    select(InstanceRow)
                    .where(InstanceRow.state == DELIVERED, InstanceRow.spool_file.is_not(None))
                    .limit(limit)
                )
            )

    def forget_spool_file(self, ids: Sequence[str]) -> None:
        """Note that the spool files of these instances are gone."""
        with transaction(self._engine) as session:
            session.execute(update(InstanceRow).where(InstanceRow.id.in_(ids)).values(spool_file=None))

    def derived_to_purge(self, delivered_before: float, limit: int = 500) -> list[str]:
        """Derived files that only instances delivered before that time still name."""
        with reading(self._engine) as session:
            recent = select(InstanceRow.derived_file).where(
                InstanceRow.derived_file.is_not(None),
                or_(InstanceRow.state != DELIVERED, InstanceRow.delivered_at >= delivered_before),
            )
            return list(
                session.scalars(
                    select(InstanceRow.derived_file)
                    .where(InstanceRow.derived_file.is_not(None), InstanceRow.derived_file.not_in(recent))
                    .distinct()
                    .limit(limit)
                )
            )

    def forget_derived_file(self, names: Sequence[str]) -> None:
        """Note that these derived files are gone."""
        with transaction(self._engine) as session:
            session.execute(update(InstanceRow).where(InstanceRow.derived_file.in_(names)).values(derived_file=None))

    def records_in_use(self, delivered_since: float) -> set[str]:
        """Locators of vault records whose instances are on their way, held, or were delivered after that time."""
        with reading(self._engine) as session:
            return set(
                session.scalars(
                    select(InstanceRow.record).where(
                        InstanceRow.record.is_not(None),
                        or_(InstanceRow.state != DELIVERED, InstanceRow.delivered_at >= delivered_since),
                    )
                )
            )

    def unknown_files(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that no row names as its spool or derived file."""
        unknown = set(names)
        with reading(self._engine) as session:
            for column in (InstanceRow.spool_file, InstanceRow.derived_file):
                for start in range(0, len(names), 500):
                    unknown -= set(session.scalars(select(column).where(column.in_(names[start : start + 500]))))
        return unknown


def _queue(session: Session, instance_id: str, destinations: Sequence[str], *, keep_sent: bool) -> int:
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
            row.lease_owner = None
        left += 1
    for name, row in known.items():
        if name not in destinations:
            session.delete(row)  # the route no longer names it
    return left


def _is_dead(owner: str) -> bool:
    host, pid, _ = owner.rsplit(":", 2)
    if host != platform.node():
        return False  # another machine's: its lease runs out by itself
    if int(pid) == os.getpid():
        return True  # a predecessor that had our number
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
