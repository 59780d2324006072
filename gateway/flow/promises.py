"""Storage commitment as SCP: on our word archives delete their originals (PS3.4 annex J).

An instance is committed only when all of this holds, for the newest of its UID on *each* route that it came by:

- its original lies sealed in the vault, with no end of retention, and the restore role, which alone can open it, has
  opened it and compared its digest since the archive asked;
- it has been delivered everywhere, and every destination that is asked for commitments has committed to its copy.

An original that only marked copies carry, or whose retention ends, counts where the route says so in its own sentence.
One that left unmarked is in no vault, so it never counts. What is still on its way is waited for, up to a time. What
was promised is noted, and retention ends it no more, whatever it is set to later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.orm import Session

from gateway.audit import AuditLog, audited, events
from gateway.config.commitment import COMMIT_STATEMENT, Commitment
from gateway.config.models import Destination, Retention, Route
from gateway.database import (
    CommitmentRow,
    DeliveryRow,
    InstanceRow,
    PayloadCheckRow,
    VaultRow,
    changed,
    reading,
    transaction,
)
from gateway.errors import CapacityError, DeliveryError
from gateway.flow.backoff import delay_s
from gateway.flow.faults import Repeated
from gateway.flow.ports import CommitmentReport, Committer, Reference
from gateway.flow.states import ASKED, COMMITTED, DELIVERED, DISCARDED, DUE, HELD, SENT
from gateway.vault.record import CARRIED

NOT_SAFE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119  # Failure Reason, PS3.3 C.14.1.1
GOOD = "good"  # of a payload that was opened and is its original
LONGEST_TOLD_S = 7 * 86_400.0  # so long an archive is tried to be told
AGAIN_S = 2.0  # between two looks at one request
CLAIM_S = 60.0
AT_ONCE = 20  # requests that are looked at in one go

log = structlog.get_logger(__name__)


class RequestBook:
    """`gateway.flow.ports.Requests`: what the ingress takes."""

    def __init__(self, engine: Engine, settings: Commitment) -> None:
        self._engine = engine
        self._settings = settings

    def asked(self, calling_ae: str, transaction_uid: str, references: Sequence[Reference]) -> None:
        """Keep a request. The same transaction of the same archive again is the same request.

        Raises
        ------
        CapacityError
            ``too-many-requests``: so many wait for their answer; and those of the database.
        """
        with transaction(self._engine) as session:
            waiting = select(func.count()).select_from(CommitmentRow).where(CommitmentRow.state == ASKED)
            if (session.scalar(waiting) or 0) >= self._settings.max_waiting:
                raise CapacityError("too-many-requests", f"{self._settings.max_waiting} requests wait for their answer")
            own = (CommitmentRow.calling_ae == calling_ae, CommitmentRow.transaction_uid == transaction_uid)
            if session.scalar(select(CommitmentRow.id).where(*own)) is None:
                session.add(
                    CommitmentRow(
                        id=secrets.token_hex(16),
                        calling_ae=calling_ae,
                        transaction_uid=transaction_uid,
                        asked_at=time.time(),
                        instances=[[one.sop_class_uid, one.sop_instance_uid] for one in references],
                        state=ASKED,
                        attempts=0,
                        next_attempt_at=0.0,
                    )
                )


@dataclass(frozen=True)
class _Verdict:
    """Of one reference: committed with these originals; not yet decided (`waits`); or not, for this reason."""

    reason: int = 0
    waits: bool = False
    locators: tuple[str, ...] = ()


class Promises:
    """Answers the requests of archives.

    Parameters
    ----------
    routes, destinations, retention, settings
        As they are configured now: a request is judged by what holds when it is answered.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        destinations: Sequence[Destination],
        retention: Retention,
        settings: Commitment,
        engine: Engine,
        committer: Committer,
        audit: AuditLog,
    ) -> None:
        self._routes: Mapping[str, Route] = {route.name: route for route in routes}
        self._asking = {one.name for one in destinations if one.commitment is not None}
        self._keeps_all = retention.vault_days == 0
        self._settings = settings
        self._engine = engine
        self._committer = committer
        self._audit = audit
        self._repeated = Repeated()

    def once(self, now: float | None = None) -> int:
        """Look at what is due; returns how many requests were answered."""
        now = time.time() if now is None else now
        with reading(self._engine) as session:
            due = (CommitmentRow.state == ASKED, CommitmentRow.next_attempt_at <= now)
            rows = session.scalars(select(CommitmentRow).where(*due).order_by(CommitmentRow.asked_at).limit(AT_ONCE))
            requests = list(rows)
        return sum(self._answer(one, now) for one in requests)

    def _answer(self, request: CommitmentRow, now: float) -> bool:
        references = [Reference(*one) for one in request.instances]
        with transaction(self._engine) as session:
            verdicts = {one: self._verdict(session, request, one) for one in references}
        if any(one.waits for one in verdicts.values()) and now - request.asked_at < self._settings.request_within_s:
            self._later(request, now + AGAIN_S, request.attempts)
            return False
        if not self._claim(request, now):
            return False  # another worker answers it
        committed = tuple(one for one, verdict in verdicts.items() if not verdict.reason and not verdict.waits)
        failed = {one: verdict.reason or NOT_SAFE for one, verdict in verdicts.items() if one not in set(committed)}
        report = CommitmentReport(request.transaction_uid, committed, failed)
        self._promise(request, report, [one for known in committed for one in verdicts[known].locators])
        try:
            self._committer.answer(request.calling_ae, report)
        except DeliveryError as error:
            self._not_told(request, error, now)
            return False
        self._repeated.over(request.calling_ae)
        self._end(request, "answered")
        return True

    def _claim(self, request: CommitmentRow, now: float) -> bool:
        """Of several workers one answers; when it is killed over that, it is answered after a minute."""
        with transaction(self._engine) as session:
            due = (CommitmentRow.id == request.id, CommitmentRow.state == ASKED, CommitmentRow.next_attempt_at <= now)
            return bool(changed(session, update(CommitmentRow).where(*due).values(next_attempt_at=now + CLAIM_S)))

    def _promise(self, request: CommitmentRow, report: CommitmentReport, locators: Sequence[str]) -> None:
        """Note and audit what is promised, before the archive hears of it: from then on it may delete."""
        with transaction(self._engine) as session:
            for start in range(0, len(locators), 500):
                session.execute(
                    update(PayloadCheckRow)
                    .where(PayloadCheckRow.locator.in_(locators[start : start + 500]))
                    .values(promised_at=time.time())
                    .execution_options(synchronize_session=False)
                )
            audited(
                self._audit,
                events.COMMITMENT_ANSWERED,
                "failure" if report.failed else "success",
                calling_ae=request.calling_ae,
                transaction_uid=request.transaction_uid,
                completed=len(report.committed),
                failed=len(report.failed),
                attempt=request.attempts + 1,
            )

    def _verdict(self, session: Session, request: CommitmentRow, reference: Reference) -> _Verdict:
        """Over all routes: the first that fails decides, then the first that waits."""
        own = (InstanceRow.sop_instance_uid == reference.sop_instance_uid, InstanceRow.calling_ae == request.calling_ae)
        newest: dict[str, InstanceRow] = {}
        for row in session.scalars(select(InstanceRow).where(*own).order_by(InstanceRow.received_at)):
            newest[row.route] = row
        if not newest:
            return _Verdict(NO_SUCH_INSTANCE)
        if any(row.sop_class_uid != reference.sop_class_uid for row in newest.values()):
            return _Verdict(CLASS_CONFLICT)
        verdicts = [self._of_route(session, request, row) for row in newest.values()]
        for verdict in sorted(verdicts, key=lambda one: (not one.reason, not one.waits)):
            if verdict.reason or verdict.waits:
                return verdict
        return _Verdict(locators=tuple(locator for one in verdicts for locator in one.locators))

    def _of_route(self, session: Session, request: CommitmentRow, row: InstanceRow) -> _Verdict:
        route = self._routes.get(row.route)
        if route is None or row.action == "pass" or row.state in (HELD, DISCARDED):
            return _Verdict(NOT_SAFE)
        is_told = route.commit_statement == COMMIT_STATEMENT
        if not self._keeps_all and not is_told:
            return _Verdict(NOT_SAFE)
        record = session.get(VaultRow, row.record) if row.record else None
        if record is not None and (record.payload_file is None or (record.payload_file == CARRIED and not is_told)):
            return _Verdict(NOT_SAFE)
        if row.state != DELIVERED:
            return _Verdict(waits=True)
        if record is None:
            return _Verdict(NOT_SAFE)
        downstream = self._downstream(session, row, route)
        if downstream.reason or downstream.waits or record.payload_file == CARRIED:
            return downstream
        found = self._payload(session, request, record.locator)
        # where retention is to end all the same, in so many words, it is not held back
        return found if self._keeps_all else replace(found, locators=())

    def _downstream(self, session: Session, row: InstanceRow, route: Route) -> _Verdict:
        """Whether the copies are where they are to be, and kept there."""
        deliveries = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == row.id)).all()
        reached = {one.fallback_of or one.destination for one in deliveries if one.state == SENT}
        if not reached.issuperset(route.destinations):
            return _Verdict(NOT_SAFE)
        waits = False
        for one in deliveries:
            if one.destination not in self._asking or one.commit_state == COMMITTED:
                continue
            if one.commit_state == "":  # sent before it was configured to be asked for
                one.commit_state, one.commit_at = DUE, time.time()
            if one.commit_state not in (DUE, ASKED):
                return _Verdict(NOT_SAFE)
            waits = True
        return _Verdict(waits=waits)

    def _payload(self, session: Session, request: CommitmentRow, locator: str) -> _Verdict:
        """Whether the restore role has opened it since the archive asked; it is asked to where it has not."""
        check = session.get(PayloadCheckRow, locator)
        if check is None:
            session.execute(insert(PayloadCheckRow).values(locator=locator, asked_at=time.time()))
        elif check.checked_at is not None and check.checked_at >= request.asked_at:
            return _Verdict(locators=(locator,)) if check.result == GOOD else _Verdict(NOT_SAFE)
        elif check.checked_at is not None and check.asked_at <= check.checked_at:
            check.asked_at = time.time()
        return _Verdict(waits=True)

    def _not_told(self, request: CommitmentRow, error: DeliveryError, now: float) -> None:
        if count := self._repeated.again(request.calling_ae, error.code):
            log.warning("commitment not told", calling_ae=request.calling_ae, code=error.code, failures=count)
        if now - request.asked_at > self._settings.request_within_s + LONGEST_TOLD_S:
            self._end(request, "given-up")
            return
        self._later(request, now + delay_s(request.attempts + 1, 10.0, 3600.0), request.attempts + 1)

    def _later(self, request: CommitmentRow, at: float, attempts: int) -> None:
        self._change(request, next_attempt_at=at, attempts=attempts)

    def _end(self, request: CommitmentRow, state: str) -> None:
        self._change(request, state=state, answered_at=time.time())

    def _change(self, request: CommitmentRow, **values: object) -> None:
        with transaction(self._engine) as session:
            session.execute(
                update(CommitmentRow)
                .where(CommitmentRow.id == request.id, CommitmentRow.state == ASKED)
                .values(**values)
                .execution_options(synchronize_session=False)
            )
