"""Storage commitment as SCP: on our word archives delete their originals (PS3.4 annex J).

An instance is committed only when all of this holds, for the newest of its UID on *each* route that it came by:

- its original lies sealed in the vault, with no end of retention, and the restore role, which alone can open it, has
  opened it and compared its digest since the archive asked;
- it has been delivered everywhere, and every destination has committed to keep its copy.

An original that only marked copies carry, or whose retention ends, counts where the route says so in its own sentence;
a copy that its destination has only received, where the route says that in another.
One that left unmarked is in no vault, so it never counts. What is still on its way is waited for, up to a time. What
was promised is noted, and retention ends it no more, whatever it is set to later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine, delete, func, select, update

from gateway.audit import AuditLog, audited, events
from gateway.config.commitment import Commitment
from gateway.config.models import Destination, Retention, Route
from gateway.database import CommitmentRow, PayloadCheckRow, changed, reading, transaction
from gateway.errors import CapacityError, DeliveryError, DicomError
from gateway.flow.backoff import delay_s
from gateway.flow.faults import Repeated
from gateway.flow.judging import NOT_SAFE, Judge, Verdict, pieces
from gateway.flow.ports import CommitmentReport, Committer, Reference
from gateway.flow.states import ASKED

LONGEST_TOLD_S = 7 * 86_400.0  # so long an archive is tried to be told
AGAIN_TOLD_S = 10.0  # from the first time that an archive could not be told to the next
AGAIN_S, LONGEST_AGAIN_S = 2.0, 60.0  # between two looks at one request: the more, the longer it waits
CLAIM_S = 60.0
AT_ONCE = 20  # requests that are looked at in one go
KEPT_S = 30 * 86_400.0  # so long an answered request is remembered, so that its transaction is none of something else
LOOK_BACK_S = 10.0

log = structlog.get_logger(__name__)


class RequestBook:
    """`gateway.flow.ports.Requests`: what the ingress takes."""

    def __init__(self, engine: Engine, settings: Commitment) -> None:
        self._engine = engine
        self._settings = settings

    def asked(self, calling_ae: str, transaction_uid: str, references: Sequence[Reference]) -> None:
        """Keep a request. The same once more is the same request; where it was answered, it is answered again.

        Raises
        ------
        DicomError
            ``duplicate-transaction``: this archive has used the transaction for other instances.
        CapacityError
            ``too-many-requests``: so many of this archive wait for their answer; and those of the database.
        """
        named = [[one.sop_class_uid, one.sop_instance_uid] for one in references]
        with transaction(self._engine) as session:
            own = (CommitmentRow.calling_ae == calling_ae, CommitmentRow.transaction_uid == transaction_uid)
            known = session.scalar(select(CommitmentRow).where(*own))
            if known is not None and sorted(map(tuple, known.instances)) != sorted(map(tuple, named)):
                raise DicomError("duplicate-transaction", "the transaction UID was used for other instances before")
            if known is not None and known.state == ASKED:
                return
            of_it = (CommitmentRow.state == ASKED, CommitmentRow.calling_ae == calling_ae)
            waiting = session.scalar(select(func.count()).select_from(CommitmentRow).where(*of_it)) or 0
            if waiting >= self._settings.max_waiting:
                raise CapacityError("too-many-requests", f"{waiting} requests of this archive wait for their answer")
            if known is not None:  # the report was lost on its way, or the archive was put back to an older state
                known.asked_at = time.time()  # later than it was answered: `Promises` sees that
                return
            session.add(
                CommitmentRow(
                    id=secrets.token_hex(16),
                    calling_ae=calling_ae,
                    transaction_uid=transaction_uid,
                    asked_at=time.time(),
                    instances=named,
                    state=ASKED,
                    attempts=0,
                    next_attempt_at=0.0,
                )
            )


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
        self._judge = Judge(routes, destinations, retention)
        self._settings = settings
        self._engine = engine
        self._committer = committer
        self._audit = audit
        self._repeated = Repeated()
        self._look_back_at = 0.0

    def once(self, now: float | None = None) -> int:
        """Look at what is due, whatever has waited longest first; returns how many requests were answered."""
        now = time.time() if now is None else now
        self._look_back(now)
        with reading(self._engine) as session:
            due = (CommitmentRow.state == ASKED, CommitmentRow.next_attempt_at <= now)
            # Not by age: requests that wait for long would be looked at again and again before the others.
            in_turn = select(CommitmentRow).where(*due).order_by(CommitmentRow.next_attempt_at, CommitmentRow.asked_at)
            requests = list(session.scalars(in_turn.limit(AT_ONCE)))
        return sum(self._answer(one, now) for one in requests)

    def _answer(self, request: CommitmentRow, now: float) -> bool:
        if not self._claim(request, now):
            return False  # another worker answers it
        references = [Reference(*one) for one in request.instances]
        is_late = now - request.asked_at >= self._settings.request_within_s
        if self._waits(self._judged(request, references, promise=False)) and not is_late:
            self._later(request, self._next_look(request, now), request.attempts)
            return False
        # Judged anew, and promised in the transaction that judges: what a person discards meanwhile is not committed.
        verdicts = self._judged(request, references, promise=True)
        if self._waits(verdicts) and not is_late:
            self._later(request, self._next_look(request, now), request.attempts)
            return False
        committed = tuple(one for one, verdict in verdicts.items() if not verdict.reason and not verdict.waits)
        failed = {
            one: verdict.reason or NOT_SAFE for one, verdict in verdicts.items() if verdict.reason or verdict.waits
        }
        report = CommitmentReport(request.transaction_uid, committed, failed)
        self._write(request, report)
        try:
            self._committer.answer(request.calling_ae, report)
        except DeliveryError as error:
            self._not_told(request, error, now)
            return False
        self._repeated.over(request.calling_ae)
        self._end(request, "answered")
        return True

    def _judged(
        self, request: CommitmentRow, references: Sequence[Reference], *, promise: bool
    ) -> dict[Reference, Verdict]:
        """The verdicts, in pieces; `promise`: what holds is noted, and kept from then on whatever retention says."""
        verdicts: dict[Reference, Verdict] = {}
        for piece in pieces(references):
            with transaction(self._engine) as session:
                judged = self._judge.of_piece(session, request.calling_ae, request.asked_at, piece)
                locators = [known for one in judged.values() for known in one.locators]
                if promise and locators:
                    session.execute(
                        update(PayloadCheckRow)
                        .where(PayloadCheckRow.locator.in_(locators))
                        .values(promised_at=time.time())
                        .execution_options(synchronize_session=False)
                    )
            verdicts |= judged
        return verdicts

    @staticmethod
    def _waits(verdicts: dict[Reference, Verdict]) -> bool:
        return any(one.waits for one in verdicts.values())

    @staticmethod
    def _next_look(request: CommitmentRow, now: float) -> float:
        return now + min(max(AGAIN_S, (now - request.asked_at) / 20), LONGEST_AGAIN_S)

    def _claim(self, request: CommitmentRow, now: float) -> bool:
        """Of several workers one answers; when it is killed over that, it is answered after a minute."""
        with transaction(self._engine) as session:
            due = (CommitmentRow.id == request.id, CommitmentRow.state == ASKED, CommitmentRow.next_attempt_at <= now)
            return bool(changed(session, update(CommitmentRow).where(*due).values(next_attempt_at=now + CLAIM_S)))

    def _write(self, request: CommitmentRow, report: CommitmentReport) -> None:
        """Audit what is promised, before the archive hears of it: from then on it may delete."""
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

    def _look_back(self, now: float) -> None:
        """Ended requests: what was asked for once more is open again; the others are remembered, and not for ever."""
        if now < self._look_back_at:
            return
        self._look_back_at = now + LOOK_BACK_S
        ended = CommitmentRow.state != ASKED
        unsynchronized = {"synchronize_session": False}
        with transaction(self._engine) as session:
            session.execute(
                update(CommitmentRow)
                .where(ended, CommitmentRow.asked_at > CommitmentRow.answered_at)
                .values(state=ASKED, attempts=0, next_attempt_at=0.0, answered_at=None)
                .execution_options(**unsynchronized)
            )
            old = delete(CommitmentRow).where(ended, CommitmentRow.answered_at <= now - KEPT_S)
            session.execute(old.execution_options(**unsynchronized))

    def _not_told(self, request: CommitmentRow, error: DeliveryError, now: float) -> None:
        if count := self._repeated.again(request.calling_ae, error.code):
            log.warning("commitment not told", calling_ae=request.calling_ae, code=error.code, failures=count)
        if now - request.asked_at > self._settings.request_within_s + LONGEST_TOLD_S:
            self._end(request, "given-up")
            return
        self._later(request, now + delay_s(request.attempts + 1, AGAIN_TOLD_S, 3600.0), request.attempts + 1)
        with transaction(self._engine) as session:  # one that is away must not keep others waiting for each of its own
            of_it = (CommitmentRow.calling_ae == request.calling_ae, CommitmentRow.state == ASKED)
            session.execute(
                update(CommitmentRow)
                .where(*of_it, CommitmentRow.next_attempt_at <= now)
                .values(next_attempt_at=now + AGAIN_TOLD_S)
                .execution_options(synchronize_session=False)
            )

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
