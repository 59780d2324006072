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

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from gateway.audit import AuditLog, events
from gateway.config.models import Route
from gateway.database import DeliveryRow, InstanceRow
from gateway.dicom.copy.references import references_syntax
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.compress import recode
from gateway.errors import CapacityError, GatewayError, HoldError, PermanentError, TransientError, fault
from gateway.flow.backoff import STEP_ATTEMPTS, delay_s
from gateway.flow.passing import Passing
from gateway.flow.ports import Outgoing, Sender
from gateway.flow.spool import Spool
from gateway.flow.store import RECEIVED, REPORT, SEALED, FlowStore, LeaseLost
from gateway.protect import LargeMarked, Marked, MarkJob, Protector, Remapped, decide_pass
from gateway.vault import VaultRecord

_TRANSIENT = {"vault-busy", "device-failed"}  # codes of errors that pass by themselves
PASS_ENDS = {"pass-expired", "pass-too-long", "destination-not-trusted"}  # codes that say why originals pass no more

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StepContext:
    """What the steps work with: where files lie, where rows lie, and who protects."""

    store: FlowStore
    spool: Spool
    derived: Spool
    protector: Protector
    routes: dict[str, Route]
    passing: Passing
    audit: AuditLog


class Steps:
    """Runs each step on claimed rows. No step raises: what goes wrong is written into the row."""

    def __init__(self, context: StepContext) -> None:
        self._context = context

    # -- received -> sealed --------------------------------------------------------------------------------------------

    def seal(self, row: InstanceRow) -> None:
        """Decide, and put the original into the vault unless an explicit route passes it; then on, held or blocked."""
        with _Outcome(self._context, row, RECEIVED) as outcome:
            route = self._route(row)
            header = self._context.protector.read_header(self._opener(row), row.transfer_syntax_uid)
            decision = self._context.passing.checked(self._context.protector.decide(header, route), route)
            if decision.action == "pass":
                how = "break-glass" if route.break_glass else "standing"
                outcome.audit(  # first: without this line nothing passes
                    events.INSTANCE_PASSED, route=route.name, policy=how, sop_instance_uid=row.sop_instance_uid
                )
                self._context.store.passed(row.id, route.destinations)
                return
            record = self._context.protector.seal(
                self._opener(row),
                header,
                transfer_syntax_uid=row.transfer_syntax_uid,
                sha256=row.sha256,
                size=row.size,
                received_at=row.received_at,
                route=route,
                decision=decision,
            )
            if decision.action in ("hold", "block"):
                self._context.store.recorded(row.id, record.locator)
                raise decision.as_error()
            self._context.store.sealed(row.id, record.locator, decision.action)

    # -- sealed -> marked ----------------------------------------------------------------------------------------------

    def mark(self, rows: Sequence[InstanceRow]) -> None:
        """Mark a batch; each instance has its own outcome."""
        jobs: list[tuple[InstanceRow, MarkJob]] = []
        for row in rows:
            with _Outcome(self._context, row, SEALED):
                record = self._context.protector.record(row.record)
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
            with _Outcome(self._context, row, SEALED) as outcome:
                if isinstance(result, Exception):
                    raise result
                self._commit_derived(row, job.record, result)
                if isinstance(result, Remapped):
                    outcome.audit(events.INSTANCE_REMAPPED, locator=row.record)
                    log.info("references mapped", instance=row.id)
                    continue
                outcome.audit(events.INSTANCE_MARKED, locator=row.record)
                log.info("marked", instance=row.id, psnr_db=round(result.figures.psnr, 1))

    def _job(self, row: InstanceRow, record: VaultRecord) -> MarkJob:
        return MarkJob(
            open=self._opener(row),
            transfer_syntax_uid=row.transfer_syntax_uid,
            record=record,
            route=self._route(row),
        )

    def _already_derived(self, row: InstanceRow, record: VaultRecord) -> bool:
        """Another instance with the same original, or this one before a crash, has made the derived file."""
        if record.derived_sha256 is None:
            return False
        name = derived_name(record, record.derived_sha256)
        if not self._context.derived.exists(name):
            return False
        self._context.store.marked(
            row.id, name, self._context.derived.size(name), record.locator, self._route(row).destinations
        )
        return True

    def _commit_derived(self, row: InstanceRow, record: VaultRecord, marked: Marked | LargeMarked | Remapped) -> None:
        """File first, then its digest into the record, then the row: a kill in between leaves nothing half true."""
        while True:
            data, sha256 = marked.derive(record)
            name = derived_name(record, sha256)
            if not self._context.derived.exists(name):
                writer = self._context.derived.create(name)
                try:
                    for piece in [data] if isinstance(data, bytes) else data:
                        writer.write(piece)
                    writer.publish()
                except BaseException:
                    writer.discard()
                    raise
            if not isinstance(marked, Remapped) and record.derived_sha256 is None:
                self._context.protector.note_figures(record, marked.figures)
            if self._context.protector.fix_derived(record, sha256):
                break
            fixed = self._context.protector.record(record.locator).derived_sha256
            if fixed and self._context.derived.exists(derived_name(record, fixed)):
                self._context.derived.delete(name)
                name = derived_name(record, fixed)
                break
            # The bytes that this UID names were purged, and marking anew gave others: they need a UID of their own.
            self._context.derived.delete(name)
            record = self._context.protector.new_generation(record, self._opener(row))
        self._context.store.marked(
            row.id, name, self._context.derived.size(name), record.locator, self._route(row).destinations
        )

    # -- marked -> delivered -------------------------------------------------------------------------------------------

    def deliver(self, delivery: DeliveryRow, row: InstanceRow, sender: Sender, retry: Callable[[int], float]) -> bool:
        """Send one instance to one destination. Returns False when the destination is not reachable for now.

        Parameters
        ----------
        retry
            Attempt number -> seconds until the next attempt, or 0 to give up and hold.
        """
        try:
            return self._deliver(delivery, row, sender, retry)
        except LeaseLost:  # whatever became of it: held by an operator, or with another worker
            log.info("delivery taken over", instance=row.id)
            return True

    def _deliver(self, delivery: DeliveryRow, row: InstanceRow, sender: Sender, retry: Callable[[int], float]) -> bool:
        try:
            status = sender.send(delivery.destination, self._outgoing(row))
            if self._context.store.sent(delivery, status) and row.spool_file:
                self._context.spool.delete(row.spool_file)
                self._context.store.forget_spool_file([row.id])
        except LeaseLost:
            raise
        except TransientError as error:
            wait = retry(delivery.attempts + 1)
            if wait:
                self._context.store.delivery_later(delivery, wait, error.code, error.message)
                log.warning("delivery later", instance=row.id, destination=delivery.destination, code=error.code)
                return False
            self._hold_delivery(delivery, error)
        except (PermanentError, HoldError) as error:
            self._hold_delivery(delivery, error)
        except Exception as error:
            log.error("delivery failed", instance=row.id, fault=fault(error))
            wait = delay_s(delivery.attempts + 1) if delivery.attempts + 1 < STEP_ATTEMPTS else 0
            if wait:
                self._context.store.delivery_later(delivery, wait, "unexpected", fault(error))
            else:
                self._hold_delivery(delivery, _unexpected(error))
        return True

    def _hold_delivery(self, delivery: DeliveryRow, error: GatewayError) -> None:
        self._context.store.delivery_held(delivery, error.code, error.message)
        self._context.audit.write(
            events.INSTANCE_HELD,
            "failure",
            instance_id=delivery.instance_id,
            destination=delivery.destination,
            reason=error.code,
        )

    def _outgoing(self, row: InstanceRow) -> Outgoing:
        if row.action == "pass":
            return self._outgoing_original(row)
        if row.action == REPORT:
            return self._outgoing_report(row)
        record = self._context.protector.record(row.record)
        if row.derived_file != derived_name(record, record.derived_sha256 or ""):
            raise HoldError("derived-not-fixed", "the derived file is not the one that the vault record names")
        open_file = lambda: self._context.derived.open(row.derived_file)  # noqa: E731
        syntax = references_syntax(record.transfer_syntax_uid) if row.action == "remap" else EXPLICIT_LITTLE
        return Outgoing(
            sop_class_uid=record.sop_class_uid,
            sop_instance_uid=record.derived_sop_uid,
            transfer_syntax_uid=syntax,
            size=row.derived_size,
            open=open_file,
            in_syntax=lambda wanted: _recoded(open_file, syntax, wanted),
            marked=row.action != "remap",
            instance_id=row.id,
        )

    def _outgoing_original(self, row: InstanceRow) -> Outgoing:
        self._check_passes(row)
        return Outgoing(
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            size=row.size,
            open=self._opener(row),
            instance_id=row.id,
        )

    def _outgoing_report(self, row: InstanceRow) -> Outgoing:
        open_file = lambda: self._context.derived.open(row.derived_file)  # noqa: E731
        return Outgoing(
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            size=row.derived_size,
            open=open_file,
            in_syntax=lambda wanted: _recoded(open_file, row.transfer_syntax_uid, wanted),
            instance_id=row.id,
        )

    def _check_passes(self, row: InstanceRow) -> None:
        """Whether it may still leave unmarked: between receipt and delivery a pass may end, or be taken back."""
        route = self._route(row)
        if route.rules or route.action != "pass":
            header = self._context.protector.read_header(self._opener(row), row.transfer_syntax_uid)
            decision = self._context.protector.decide(header, route)
        else:
            decision = decide_pass(route)
        decision = self._context.passing.checked(decision, route)
        if decision.code in PASS_ENDS:
            raise decision.as_error()
        if decision.action != "pass":
            raise HoldError("not-a-pass-route", f"route {row.route} no longer passes this original", "release it anew")

    def _opener(self, row: InstanceRow) -> Callable[[], BinaryIO]:
        """What opens the received bytes of an instance anew."""
        return lambda: self._context.spool.open(row.spool_file)

    def _route(self, row: InstanceRow) -> Route:
        try:
            return self._context.routes[row.route]
        except KeyError:
            raise HoldError("route-gone", f"route {row.route} is not configured any more", "configure it") from None


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

    def _settle(self, error: Exception) -> None:
        if isinstance(error, LeaseLost):
            raise error
        attempt = self._row.attempts + 1
        if isinstance(error, CapacityError) or getattr(error, "code", "") in _TRANSIENT:
            # A full disk or a busy vault is not the instance's fault: try for as long as it takes.
            self._context.store.later(self._row.id, self._state, delay_s(attempt), error.code, error.message)
            log.error("step waits", instance=self._row.id, state=self._state, code=error.code)
            return
        if not isinstance(error, GatewayError):
            log.error("step failed", instance=self._row.id, state=self._state, fault=fault(error))
            if attempt < STEP_ATTEMPTS:
                self._context.store.later(self._row.id, self._state, delay_s(attempt), "unexpected", fault(error))
                return
            error = _unexpected(error)
        self._context.store.held(self._row.id, self._state, error.code, error.message)
        self._context.audit.write(events.INSTANCE_HELD, "failure", instance_id=self._row.id, reason=error.code)
        log.warning("held", instance=self._row.id, code=error.code)


def derived_name(record: VaultRecord, sha256: str) -> str:
    """File name of derived bytes: the record's locator and the digest, nothing from the object."""
    return f"{record.locator}-{sha256[:16]}"


def _recoded(open_file: Callable[[], BinaryIO], transfer_syntax_uid: str, wanted: str) -> BinaryIO:
    """The same instance for a destination that is sent another lossless syntax, or takes only the default one."""
    if transfer_syntax_uid != EXPLICIT_LITTLE:
        raise PermanentError("context-refused", f"a compressed segmentation is sent as it came, not in {wanted}")
    with open_file() as file:
        return io.BytesIO(recode(file.read(), wanted))


def _unexpected(error: Exception) -> GatewayError:
    return error if isinstance(error, GatewayError) else HoldError("unexpected", fault(error), "see the log")
