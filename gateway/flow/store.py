"""What happens to instances, as database transactions: claims with leases, and one method for each change of state.

Every change names the owner of the lease and does nothing when the lease has passed to someone else (`LeaseLost`), so
a step that was slow, or repeated after a crash, can never undo what its successor did.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.database import InstanceRow, ReportRow, changed, reading, transaction
from gateway.flow.deliveries import DeliveryTable, queue_deliveries, untold
from gateway.flow.keeping import KeptFiles
from gateway.flow.leases import LeaseLost, lease_owner
from gateway.flow.ports import ReceivedFacts
from gateway.flow.states import DELIVERED, HELD, MARKED, QUEUED, RECEIVED, REPORT, SEALED, SENT

__all__ = [
    "DELIVERED",
    "HELD",
    "MARKED",
    "QUEUED",
    "RECEIVED",
    "REPORT",
    "SEALED",
    "SENT",
    "FlowStore",
    "LeaseLost",
    "Stored",
    "lease_owner",
]


@dataclass(frozen=True)
class Stored:
    """What the spool knows about a received data set."""

    spool_file: str
    size: int
    sha256: str


SUSPECTED = InstanceRow.deaths > 0


class FlowStore(DeliveryTable, KeptFiles):
    """The instance table, with what belongs to it: deliveries and files.

    Parameters
    ----------
    engine
        From `gateway.database.open_database`.
    owner
        Of the leases that this takes: `lease_owner()`.
    """

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
            deaths=0,
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
            waiting = InstanceRow.state.in_([RECEIVED, SEALED, MARKED])
            return session.scalar(select(func.count()).select_from(InstanceRow).where(waiting)) or 0

    # -- instances ---------------------------------------------------------------------------------------------------

    def claim(self, state: str, limit: int, lease_s: float) -> list[InstanceRow]:
        """Take up to `limit` instances in `state`, oldest first, whose turn has come and that nobody works on.

        None of them is suspected to have killed a process: those come alone (`claim_suspect`).
        """
        return self._claim(state, limit, lease_s, InstanceRow.deaths == 0, InstanceRow.received_at)

    def claim_suspect(self, state: str, lease_s: float) -> list[InstanceRow]:
        """Take one instance that a process died of, or beside; the one with the fewest deaths first."""
        return self._claim(state, 1, lease_s, SUSPECTED, InstanceRow.deaths, InstanceRow.received_at)

    def has_suspect(self, state: str) -> bool:
        """Whether one waits for its turn to be done alone."""
        with reading(self._engine) as session:
            waiting = select(InstanceRow.id).where(
                InstanceRow.state == state,
                InstanceRow.next_attempt_at <= time.time(),
                InstanceRow.lease_owner.is_(None),
                SUSPECTED,
            )
            return session.scalar(waiting.limit(1)) is not None

    def _claim(
        self, state: str, limit: int, lease_s: float, of_kind: ColumnElement[bool], *order: Any
    ) -> list[InstanceRow]:
        now = time.time()
        with transaction(self._engine) as session:
            self._end_overdue(session, InstanceRow, now, InstanceRow.state == state)
            rows = session.scalars(
                select(InstanceRow)
                .where(
                    InstanceRow.state == state,
                    InstanceRow.next_attempt_at <= now,
                    InstanceRow.lease_until <= now,
                    of_kind,
                )
                .order_by(*order)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                self._lease(row, lease_s)
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

    def marked(
        self,
        instance_id: str,
        derived_file: str,
        size: int,
        record: str,
        destinations: Sequence[str],
        tell: Callable[[], None] = untold,
    ) -> None:
        """Sealed -> marked: the derived bytes are fixed; deliveries are queued in the same transaction.

        `tell` is called before the commit: when it raises, nothing has happened.
        """
        with transaction(self._engine) as session:
            before = session.scalar(select(InstanceRow.derived_file).where(InstanceRow.id == instance_id))
            now = time.time()
            changes = {"derived_file": derived_file, "derived_size": size, "record": record, "marked_at": now}
            left = queue_deliveries(session, instance_id, destinations, keep_sent=before == derived_file)
            changes |= {"state": MARKED} if left else {"state": DELIVERED, "delivered_at": now}
            self._advance_in(session, instance_id, SEALED, **changes)
            tell()

    def passed(self, instance_id: str, destinations: Sequence[str]) -> None:
        """Received -> marked, as it is: only for a route that says `pass` in so many words."""
        with transaction(self._engine) as session:
            self._advance_in(session, instance_id, RECEIVED, state=MARKED, action="pass", marked_at=time.time())
            queue_deliveries(session, instance_id, destinations, keep_sent=False)

    def add_report(self, row: InstanceRow, report: ReportRow, destinations: Sequence[str]) -> bool:
        """A protection report on its way, its file written already. False when there is one of this number."""
        try:
            with transaction(self._engine) as session:
                session.add_all((row, report))
                session.flush()
                queue_deliveries(session, row.id, destinations, keep_sent=False)
        except IntegrityError:
            return False
        return True

    def report_of(self, instance_id: str) -> ReportRow | None:
        """The report that this instance brings out; None when it brings none."""
        with reading(self._engine) as session:
            return session.scalars(select(ReportRow).where(ReportRow.instance_id == instance_id)).first()

    def held(self, instance_id: str, state: str, code: str, reason: str, tell: Callable[[], None] = untold) -> None:
        """Any state -> held, with the reason that an operator sees. `reason` holds no PHI; `tell` as for `marked`."""
        with transaction(self._engine) as session:
            self._advance_in(session, instance_id, state, state=HELD, held_from=state, reason_code=code, reason=reason)
            tell()

    def later(self, instance_id: str, state: str, delay_s: float, code: str, reason: str) -> None:
        """Give the instance back, to be tried again after `delay_s`."""
        self._advance(
            instance_id,
            state,
            next_attempt_at=time.time() + delay_s,
            reason_code=code,
            reason=reason,
        )

    def _advance(self, instance_id: str, state: str, /, **changes: Any) -> None:
        with transaction(self._engine) as session:
            self._advance_in(session, instance_id, state, **changes)

    def _advance_in(self, session: Session, instance_id: str, state: str, /, **changes: Any) -> None:
        if changes.get("state", HELD) != HELD:  # a step forward starts with a clean sheet
            changes = {
                "attempts": 0,
                "deaths": 0,
                "next_attempt_at": 0.0,
                "reason_code": None,
                "reason": None,
                **changes,
            }
        done = changed(
            session,
            update(InstanceRow)
            .where(InstanceRow.id == instance_id, InstanceRow.state == state, InstanceRow.lease_owner == self.owner)
            .values(lease_owner=None, lease_until=0.0, **changes),
        )
        if done != 1:
            raise LeaseLost(instance_id)
