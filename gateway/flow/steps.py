"""The three steps of an instance: seal, mark, deliver. Each may be killed at any instruction and run again.

    received --seal--> sealed --mark--> marked --deliver--> delivered
        any of them --(HoldError)--> held          any of them --(anything else)--> tried again later, then held

What makes repeating safe: the vault record of an original is found again by digest and policy; a payload and a derived
file appear whole or not at all, under a name that follows from their contents; and the digest of the derived bytes is
fixed in the record before the first delivery (`RecordStore.fix_derived`), so that one derived UID never names two byte
strings. If marking anew ever gives other bytes (another device or library; always when the copy carries its original,
sealed afresh), a new generation with a new UID is minted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from gateway.audit import audited, events
from gateway.database import DeliveryRow, InstanceRow
from gateway.errors import CapacityError, GatewayError, fault
from gateway.flow.backoff import MOST_DEATHS, STEP_ATTEMPTS, delay_s, killed_the_worker
from gateway.flow.context import StepContext
from gateway.flow.delivery import Deliverer
from gateway.flow.faults import as_waiting, unexpected
from gateway.flow.leases import LeaseLost
from gateway.flow.leaving import derived_name
from gateway.flow.ports import Sender
from gateway.flow.states import RECEIVED, SEALED
from gateway.protect import LargeMarked, Marked, MarkJob, Remapped
from gateway.vault import VaultRecord

__all__ = ["StepContext", "Steps"]

_TRANSIENT = {"vault-busy", "device-failed"}  # codes of errors that pass by themselves

log = structlog.get_logger(__name__)


class Steps:
    """Runs each step on claimed rows. No step raises: what goes wrong is written into the row."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._deliverer = Deliverer(context)

    # -- received -> sealed --------------------------------------------------------------------------------------------

    def seal(self, row: InstanceRow) -> None:
        """Decide, and put the original into the vault unless an explicit route passes it; then on, held or blocked."""
        with _Outcome(self._context, row, RECEIVED) as outcome:
            outcome.check_deaths()
            route = self._context.route(row)
            header = self._context.protector.read_header(self._context.received(row), row.transfer_syntax_uid)
            decision = self._context.passing.checked(self._context.protector.decide(header, route), route)
            if decision.action == "pass":
                how = "break-glass" if route.break_glass else "standing"
                outcome.audit(  # first: without this line nothing passes
                    events.INSTANCE_PASSED, route=route.name, policy=how, sop_instance_uid=row.sop_instance_uid
                )
                self._context.store.passed(row.id, route.destinations)
                return
            record = self._context.protector.seal(
                self._context.received(row),
                header,
                transfer_syntax_uid=row.transfer_syntax_uid,
                sha256=row.sha256,
                size=row.size,
                received_at=row.received_at,
                route=route,
                decision=decision,
            )
            if header.notes:
                outcome.audit(events.INSTANCE_NOTED, locator=record.locator, notes=header.notes)
            if refusal := self._context.protector.refusal(record, decision):
                self._context.store.recorded(row.id, record.locator)
                raise refusal
            self._context.store.sealed(row.id, record.locator, decision.action)

    # -- sealed -> marked ----------------------------------------------------------------------------------------------

    def mark(self, rows: Sequence[InstanceRow]) -> None:
        """Mark a batch; each instance has its own outcome."""
        jobs: list[tuple[InstanceRow, MarkJob]] = []
        for row in rows:
            with _Outcome(self._context, row, SEALED) as outcome:
                outcome.check_deaths()
                record = self._context.protector.record(row.record or "")
                if self._already_derived(row, record):
                    continue
                jobs.append((row, self._job(row, record)))
        if not jobs:
            return
        results: Sequence[Marked | LargeMarked | Remapped | Exception]
        try:
            results = self._context.protector.mark([job for _, job in jobs])
        except Exception as error:
            results = [error] * len(jobs)
        for (row, job), result in zip(jobs, results, strict=True):
            with _Outcome(self._context, row, SEALED):
                if isinstance(result, Exception):
                    raise result
                self._commit_derived(row, job.record, result)
                if isinstance(result, Remapped):
                    log.info("references mapped", instance=row.id)
                    continue
                log.info("marked", instance=row.id, psnr_db=round(result.figures.psnr, 1))

    def _job(self, row: InstanceRow, record: VaultRecord) -> MarkJob:
        return MarkJob(
            open=self._context.received(row),
            transfer_syntax_uid=row.transfer_syntax_uid,
            record=record,
            route=self._context.route(row),
        )

    def _already_derived(self, row: InstanceRow, record: VaultRecord) -> bool:
        """Another instance with the same original, or this one before a crash, has made the derived file."""
        if record.derived_sha256 is None:
            return False
        name = derived_name(record, record.derived_sha256)
        size = self._size_of_derived(name, record.derived_sha256)
        if size is None:
            return False
        self._marked(row, name, size, record)
        return True

    def _size_of_derived(self, name: str, sha256: str) -> int | None:
        """Bytes of a derived file with these contents; None when there is none. One with others is deleted."""
        found = self._context.derived.digest(name)
        if found is None:
            return None
        if found.sha256 != sha256:
            log.error("a derived file was changed since it was written; it is made anew")
            self._context.derived.delete(name)
            return None
        return found.size

    def _commit_derived(self, row: InstanceRow, record: VaultRecord, marked: Marked | LargeMarked | Remapped) -> None:
        """File first, then its digest into the record, then the row: a kill in between leaves nothing half true."""
        while True:
            data, sha256 = marked.derive(record)
            name = derived_name(record, sha256)
            size = self._size_of_derived(name, sha256)
            if size is None:
                size = self._write_derived(name, [data] if isinstance(data, bytes) else data)
            if not isinstance(marked, Remapped) and record.derived_sha256 is None:
                self._context.protector.note_figures(record, marked.figures)
            if self._context.protector.fix_derived(record, sha256):
                break
            fixed = self._context.protector.record(record.locator).derived_sha256 or ""
            of_fixed = self._size_of_derived(derived_name(record, fixed), fixed)
            if of_fixed is not None:
                self._context.derived.delete(name)
                name, size = derived_name(record, fixed), of_fixed
                break
            # The bytes that this UID names were purged, and marking anew gave others: they need a UID of their own.
            self._context.derived.delete(name)
            record = self._context.protector.new_generation(record, self._context.received(row))
        self._marked(row, name, size, record)

    def _marked(self, row: InstanceRow, name: str, size: int, record: VaultRecord) -> None:
        """Queue the deliveries of what lies in `derived`; without a line in the audit nothing is queued."""
        event = events.INSTANCE_REMAPPED if row.action == "remap" else events.INSTANCE_MARKED

        def tell() -> None:
            audited(self._context.audit, event, "success", instance_id=row.id, locator=record.locator)

        self._context.store.marked(row.id, name, size, record.locator, self._context.route(row).destinations, tell)

    def _write_derived(self, name: str, pieces: Iterable[bytes]) -> int:
        """Write a derived file; returns its bytes."""
        writer = self._context.derived.create(name)
        size = 0
        try:
            for piece in pieces:
                writer.write(piece)
                size += len(piece)
            writer.publish()
        except BaseException:
            writer.discard()
            raise
        return size

    # -- marked -> delivered -------------------------------------------------------------------------------------------

    def deliver(self, delivery: DeliveryRow, row: InstanceRow, sender: Sender, retry: Callable[[int], float]) -> bool:
        """Send one instance to one destination. Returns False when the destination is not reachable for now.

        Parameters
        ----------
        retry
            Attempt number -> seconds until the next attempt, or 0 to give up and hold.
        """
        try:
            return self._deliverer.deliver(delivery, row, sender, retry)
        except LeaseLost:  # whatever became of it: held by an operator, or with another worker
            log.info("delivery taken over", instance=row.id)
            return True

    def hold_stranded(self) -> int:
        """Hold what waits for destinations that its route does not name any more. Returns how many deliveries."""
        return self._deliverer.hold_stranded()


class _Outcome:
    """Turns whatever a step raises into the row's next state: held, or later."""

    def __init__(self, context: StepContext, row: InstanceRow, state: str) -> None:
        self._context = context
        self._row = row
        self._state = state

    def __enter__(self) -> _Outcome:
        return self

    def audit(self, event: str, **fields) -> None:
        """Write a success of this instance into the audit log."""
        self._context.audit.write(event, "success", instance_id=self._row.id, **fields)

    def __exit__(self, kind, error, trace) -> bool:
        if error is None:
            return False
        if not isinstance(error, Exception):
            return False  # KeyboardInterrupt and the like end the process; the lease runs out
        try:
            self._settle(error)
        except LeaseLost:
            log.info("step taken over by another worker", instance=self._row.id)
        return True

    def check_deaths(self) -> None:
        """HoldError when too many processes ended at this step of this instance."""
        if self._row.deaths >= MOST_DEATHS:
            raise killed_the_worker(f"after {self._state}", self._row.deaths)

    def _settle(self, error: Exception) -> None:
        if isinstance(error, LeaseLost):
            raise error
        attempt = self._row.attempts
        waits = as_waiting(error)
        if waits is None and isinstance(error, GatewayError) and error.code in _TRANSIENT:
            waits = CapacityError(error.code, error.message, error.hint)
        if waits is not None:
            self._wait(waits)
            return
        if not isinstance(error, GatewayError):
            log.error("step failed", instance=self._row.id, state=self._state, fault=fault(error))
            if attempt < STEP_ATTEMPTS:
                self._context.store.later(self._row.id, self._state, delay_s(attempt), "unexpected", fault(error))
                return
        told = unexpected(error)
        try:
            self._context.store.held(
                self._row.id, self._state, told.code, str(told), lambda: self._tell_held(told.code)
            )
        except CapacityError as full:  # nothing is held untold
            self._wait(full)
            return
        log.warning("held", instance=self._row.id, code=told.code)

    def _tell_held(self, code: str) -> None:
        audited(self._context.audit, events.INSTANCE_HELD, "failure", instance_id=self._row.id, reason=code)

    def _wait(self, reason: CapacityError) -> None:
        """A full disk or a busy vault is not the instance's fault: try for as long as it takes."""
        self._context.store.later(self._row.id, self._state, delay_s(self._row.attempts), reason.code, reason.message)
        log.error("step waits", instance=self._row.id, state=self._state, code=reason.code)
