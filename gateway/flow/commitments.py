"""Storage commitment as SCU: destinations are asked to keep what was sent to them, until each says so (PS3.4 annex J).

    sent, due --asked--> asked --reported--> committed
                 ^          |        `-----> delivered again, or held        (a failed reference)
                 `----------'  no report in time, or the request failed: asked again, under a new transaction UID

The transaction is in the rows before it is asked for: a kill in between leaves rows that nobody reports on, and they
are asked for again when the time for the report is over. A report counts for the rows that name its transaction and for
no others, so that one which comes late, twice, or from somebody else changes nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from gateway.audit import AuditLog, audited, events
from gateway.config.commitment import AskedCommitment
from gateway.config.destination import Destination
from gateway.database import DeliveryRow, InstanceRow, VaultRow, Wakes, transaction
from gateway.errors import DeliveryError
from gateway.flow.backoff import delay_s
from gateway.flow.faults import Repeated
from gateway.flow.ports import CommitmentReport, Committer, Reference
from gateway.flow.states import (
    ASKED,
    COMMITTED,
    DELIVERED,
    DUE,
    HELD,
    MARKED,
    NEVER_COMMITTED,
    NOT_COMMITTED,
    QUEUED,
    SENT,
    to,
)

DUPLICATE_TRANSACTION, CLASS_NOT_SUPPORTED = 0x0131, 0x0122  # Failure Reason, PS3.3 C.14.1.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Asked:
    destination: str
    transaction_uid: str
    references: tuple[Reference, ...]


class Commitments:
    """Asks, and takes reports. Any number of processes may do so beside each other.

    Parameters
    ----------
    destinations
        Those with a ``commitment`` table are asked.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        engine: Engine,
        committer: Committer,
        audit: AuditLog,
        wakes: Wakes | None = None,
    ) -> None:
        self._settings: Mapping[str, AskedCommitment] = {
            one.name: one.commitment for one in destinations if one.commitment is not None
        }
        self._engine = engine
        self._committer = committer
        self._audit = audit
        self._wakes = wakes or Wakes()
        self._repeated = Repeated()

    def once(self, now: float | None = None) -> int:
        """Ask each destination for what is due there, one request each; returns how many instances were asked for."""
        now = time.time() if now is None else now
        count = 0
        for name, settings in self._settings.items():
            self._expire(name, settings, now)
            asked = self._take(name, settings, now)
            if asked is not None:
                count += len(asked.references)
                self._ask(asked, settings)
        return count

    def reported(self, destinations: Collection[str], report: CommitmentReport) -> int:
        """Take a report of one of these destinations; returns of how many deliveries it counts.

        Raises
        ------
        CapacityError
            It cannot be written down now: the destination may report again.
        """
        with transaction(self._engine) as session:
            rows = session.execute(
                select(DeliveryRow, InstanceRow, VaultRow.derived_sop_uid)
                .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                .outerjoin(VaultRow, VaultRow.locator == InstanceRow.record)
                .where(
                    DeliveryRow.commit_uid == report.transaction_uid,
                    DeliveryRow.destination.in_(list(destinations)),
                    DeliveryRow.commit_state == ASKED,
                )
                .order_by(InstanceRow.id)
                .with_for_update(of=(DeliveryRow, InstanceRow))
            ).all()
            committed = {one.sop_instance_uid for one in report.committed}
            failed = {one.sop_instance_uid: reason for one, reason in report.failed.items()}
            done, again = 0, []
            for delivery, row, derived_uid in rows:
                uid = _uid_of(row, derived_uid)
                if uid in failed:  # also where it is in both: what is not certain is not kept for certain
                    again.append(self._failed(session, delivery, row, failed[uid]))
                elif uid in committed:
                    delivery.commit_state, delivery.commit_at = COMMITTED, time.time()
                    done += 1
            name = rows[0][0].destination if rows else next(iter(destinations), "")
            audited(
                self._audit,
                events.COMMITMENT_REPORTED,
                "success" if rows and not again else "failure",
                destination=name,
                transaction_uid=report.transaction_uid,
                completed=done,
                failed=len(again),
                sop_instance_uid=sorted(failed)[:100] or None,
                reason=None if rows else "unknown-transaction",
            )
        if again:
            log.warning("not committed", destination=name, instances=len(again), delivered_again=sum(again))
            self._wakes.tell([to(name)])
        return done + len(again)

    def _failed(self, session: Session, delivery: DeliveryRow, row: InstanceRow, reason: int) -> bool:
        """What the destination does not keep is sent again, up to a number of times, and then held for a person."""
        if reason == DUPLICATE_TRANSACTION:
            delivery.commit_state, delivery.commit_at = DUE, time.time()
            return False
        if reason == CLASS_NOT_SUPPORTED:  # it keeps objects of this kind without ever committing to it
            delivery.commit_state, delivery.commit_at = NEVER_COMMITTED, time.time()
            return False
        delivery.commit_state, delivery.commit_uid = "", None
        delivery.commit_failures += 1
        delivery.attempts, delivery.next_attempt_at, delivery.lease_owner = 0, 0.0, None
        bytes_are_here = (row.spool_file if row.action == "pass" else row.derived_file) is not None
        if delivery.commit_failures <= self._settings[delivery.destination].deliver_again and bytes_are_here:
            delivery.state = QUEUED
            if row.state == DELIVERED:
                row.state, row.delivered_at = MARKED, None
            return True
        text = f"destination {delivery.destination} does not commit to keep it (0x{reason:04X})"
        delivery.state, delivery.reason_code, delivery.reason = HELD, NOT_COMMITTED, text
        if row.state in (DELIVERED, MARKED):
            row.state, row.held_from, row.delivered_at = HELD, MARKED, None
            row.reason_code, row.reason = NOT_COMMITTED, text
        told = {"instance_id": row.id, "destination": delivery.destination, "reason": NOT_COMMITTED}
        audited(self._audit, events.INSTANCE_HELD, "failure", **told)
        return False

    def _expire(self, name: str, settings: AskedCommitment, now: float) -> None:
        """What nobody reported on in time is due again."""
        with transaction(self._engine) as session:
            session.execute(
                update(DeliveryRow)
                .where(
                    DeliveryRow.destination == name,
                    DeliveryRow.commit_state == ASKED,
                    DeliveryRow.commit_at <= now - settings.report_within_s,
                )
                .values(commit_state=DUE, commit_at=now)
                .execution_options(synchronize_session=False)
            )

    def _take(self, name: str, settings: AskedCommitment, now: float) -> _Asked | None:
        """Note a new transaction in the rows that are due; None: there are none."""
        with transaction(self._engine) as session:
            rows = session.execute(
                select(DeliveryRow, InstanceRow, VaultRow.derived_sop_uid)
                .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
                .outerjoin(VaultRow, VaultRow.locator == InstanceRow.record)
                .where(
                    DeliveryRow.destination == name,
                    DeliveryRow.commit_state == DUE,
                    DeliveryRow.commit_at <= now,
                    DeliveryRow.state == SENT,
                )
                .order_by(DeliveryRow.commit_at, DeliveryRow.id)
                .limit(settings.most)
                .with_for_update(skip_locked=True, of=DeliveryRow)
            ).all()
            if not rows:
                return None
            uid = f"2.25.{uuid.uuid4().int}"  # PS3.5 B.2
            references = tuple(Reference(row.sop_class_uid, _uid_of(row, derived)) for _, row, derived in rows)
            for delivery, _, _ in rows:
                delivery.commit_state, delivery.commit_uid, delivery.commit_at = ASKED, uid, now
                delivery.commit_tries = min(delivery.commit_tries + 1, 1_000_000)
            told = {"destination": name, "transaction_uid": uid, "count": len(rows)}
            audited(self._audit, events.COMMITMENT_ASKED, "success", **told)
        return _Asked(name, uid, references)

    def _ask(self, asked: _Asked, settings: AskedCommitment) -> None:
        try:
            report = self._committer.ask(asked.destination, asked.transaction_uid, asked.references)
        except DeliveryError as error:
            if count := self._repeated.again(asked.destination, error.code):
                log.warning("commitment later", destination=asked.destination, code=error.code, failures=count)
            self._not_taken(asked, settings)
            return
        self._repeated.over(asked.destination)
        if report is not None:
            self.reported([asked.destination], report)

    def _not_taken(self, asked: _Asked, settings: AskedCommitment) -> None:
        """The request failed: what it named is due again after a pause, under another UID."""
        with transaction(self._engine) as session:
            own = (DeliveryRow.commit_uid == asked.transaction_uid, DeliveryRow.commit_state == ASKED)
            tries = session.scalar(select(func.max(DeliveryRow.commit_tries)).where(*own)) or 1
            due_at = time.time() + delay_s(tries, settings.retry_first_s, settings.retry_longest_s)
            session.execute(
                update(DeliveryRow)
                .where(*own)
                .values(commit_state=DUE, commit_at=due_at)
                .execution_options(synchronize_session=False)
            )


def _uid_of(row: InstanceRow, derived_uid: str | None) -> str:
    """The SOP Instance UID under which it was sent."""
    return derived_uid if derived_uid and row.action in ("mark", "remap") else row.sop_instance_uid
