"""The three steps of an instance: seal, mark, deliver. Each may be killed at any instruction and run again.

    received --seal--> sealed --mark--> marked --deliver--> delivered
        any of them --(HoldError)--> held          any of them --(anything else)--> tried again later, then held

What makes repeating safe: the vault record of an original is found again by digest and policy; a payload and a derived
file appear whole or not at all, under a name that follows from their contents; and the digest of the derived bytes is
fixed in the record before the first delivery (`RecordStore.fix_derived`), so that one derived UID never names two byte
strings. If marking anew ever gives other bytes (another device or library; always when the copy carries its original,
sealed afresh), a new generation with a new UID is minted.

What a step did with a batch is settled together (`gateway.flow.outcomes`): one transaction, one flush of the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from gateway import tracing
from gateway.audit import Line, events
from gateway.database import DeliveryRow, InstanceRow
from gateway.flow import changes
from gateway.flow.changes import Change
from gateway.flow.context import StepContext, arrival_of
from gateway.flow.delivery import Deliverer, Retry
from gateway.flow.leaving import derived_name
from gateway.flow.outcomes import Outcomes
from gateway.flow.ports import Sender
from gateway.flow.states import RECEIVED, SEALED
from gateway.protect import LargeMarked, Marked, MarkJob, Remapped
from gateway.vault import VaultRecord

__all__ = ["StepContext", "Steps"]

log = structlog.get_logger(__name__)


class Steps:
    """Runs each step on claimed rows. No step raises: what goes wrong is written into the row."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._deliverer = Deliverer(context)

    # -- received -> sealed --------------------------------------------------------------------------------------------

    def seal(self, rows: Sequence[InstanceRow]) -> None:
        """Decide, and put the originals into the vault unless an explicit route passes them; then on, held or blocked.

        Each instance has its own outcome.
        """
        with Outcomes(self._context, RECEIVED) as outcomes:
            for row in rows:
                with outcomes.of(row):
                    outcomes.check_deaths(row)
                    with tracing.span("seal", row.id, route=row.route):
                        outcomes.add(self._sealed(row, outcomes))

    def _sealed(self, row: InstanceRow, outcomes: Outcomes) -> Change:
        context = self._context
        route = context.route(row)
        header = context.protector.read_header(context.received(row), row.transfer_syntax_uid)
        decision = context.passing.checked(context.protector.decide(header, route, arrival_of(row)), route)
        if decision.action == "pass":
            how = "break-glass" if route.break_glass else "standing"
            told = {"route": route.name, "policy": how, "sop_instance_uid": row.sop_instance_uid}
            line = _success(events.INSTANCE_PASSED, row, **told)  # without this line nothing passes
            return changes.passed(row, route.destinations, [line])
        record = context.protector.seal(
            context.received(row),
            header,
            transfer_syntax_uid=row.transfer_syntax_uid,
            sha256=row.sha256,
            size=row.size,
            received_at=row.received_at,
            route=route,
            decision=decision,
        )
        noted = []
        if header.notes:
            noted.append(_success(events.INSTANCE_NOTED, row, locator=record.locator, notes=header.notes))
        if refusal := context.protector.refusal(record, decision):
            refused = outcomes.failed(row, refusal, record.locator)
            return replace(refused, lines=(*noted, *refused.lines))
        key = context.protector.batch_key(header, decision, route)
        return changes.sealed(row, record.locator, decision.action, key, noted)

    # -- sealed -> marked ----------------------------------------------------------------------------------------------

    def mark(self, rows: Sequence[InstanceRow]) -> None:
        """Mark a batch; each instance has its own outcome."""
        with Outcomes(self._context, SEALED) as outcomes:
            jobs: list[tuple[InstanceRow, MarkJob]] = []
            for row in rows:
                with outcomes.of(row):
                    outcomes.check_deaths(row)
                    record = self._context.protector.record(row.record or "")
                    derived = self._already_derived(row, record)
                    if derived is None:
                        jobs.append((row, self._job(row, record)))
                    else:
                        outcomes.add(derived)
            if not jobs:
                return
            outcomes.settle()  # marking may take long
            begun = tracing.now()
            results: Sequence[Marked | LargeMarked | Remapped | Exception]
            try:
                results = self._context.protector.mark([job for _, job in jobs])
            except Exception as error:
                results = [error] * len(jobs)
            for (row, job), result in zip(jobs, results, strict=True):
                with outcomes.of(row):
                    if isinstance(result, Exception):
                        failed = getattr(result, "code", type(result).__name__)
                        tracing.add("mark", row.id, begun, {"route": row.route, "batch": len(jobs)}, failed)
                        raise result
                    outcomes.add(self._commit_derived(row, job.record, result))
                    tracing.add("mark", row.id, begun, {"route": row.route, "batch": len(jobs)})

    def _job(self, row: InstanceRow, record: VaultRecord) -> MarkJob:
        return MarkJob(
            open=self._context.received(row),
            transfer_syntax_uid=row.transfer_syntax_uid,
            record=record,
            route=self._context.route(row),
            arrival=arrival_of(row),
        )

    def _already_derived(self, row: InstanceRow, record: VaultRecord) -> Change | None:
        """Another instance with the same original, or this one before a crash, has made the derived file."""
        if record.derived_sha256 is None:
            return None
        name = derived_name(record, record.derived_sha256)
        size = self._size_of_derived(name, record.derived_sha256)
        return None if size is None else self._marked(row, name, size, record)

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

    def _commit_derived(self, row: InstanceRow, record: VaultRecord, marked: Marked | LargeMarked | Remapped) -> Change:
        """File first, then its digest into the record, then the row, by the change that this returns: a kill in between
        leaves nothing half true.
        """
        while True:
            data, sha256 = marked.derive(record)
            name = derived_name(record, sha256)
            # before its digest is fixed nobody knows whether a file of this name was flushed: it is written anew
            size = self._size_of_derived(name, sha256) if record.derived_sha256 == sha256 else None
            if size is None:
                size = self._write_derived(name, [data] if isinstance(data, bytes) else data)
            if not isinstance(marked, Remapped) and record.derived_sha256 is None:
                self._context.protector.note_figures(record, marked.figures)
            if self._context.protector.fix_derived(record, sha256, marked):
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
        done = partial(log.info, "references mapped", instance=row.id)
        if not isinstance(marked, Remapped):
            done = partial(log.info, "marked", instance=row.id, psnr_db=round(marked.figures.psnr, 1))
        return self._marked(row, name, size, record, done)

    def _marked(
        self, row: InstanceRow, name: str, size: int, record: VaultRecord, done: Callable[[], None] = changes.nothing
    ) -> Change:
        """Queue the deliveries of what lies in `derived`; without a line in the audit nothing is queued."""
        event = events.INSTANCE_REMAPPED if row.action == "remap" else events.INSTANCE_MARKED
        line = _success(event, row, locator=record.locator)
        destinations = self._context.route(row).destinations
        return changes.marked(row, name, size, record.locator, destinations, [line], done)

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

    def deliver(
        self,
        pairs: Sequence[tuple[DeliveryRow, InstanceRow]],
        sender: Sender,
        retry: Retry,
        pause_s: float = 0.0,
        stopped: Callable[[], bool] = lambda: False,
        at_a_time: int = 1,
    ) -> int:
        """Send instances to one destination, in order; each has its own outcome.

        Parameters
        ----------
        retry
            See `Retry`.
        pause_s
            How long what is left waits when the destination turns out not to be reachable.
        stopped
            Whether to end after those at hand.
        at_a_time
            So many go side by side at most, begun in order; fewer where the sender has fewer places.

        Returns
        -------
        int
            How many were tried with success or for good. The rest is given back.
        """
        return self._deliverer.deliver(pairs, sender, retry, pause_s, stopped, at_a_time)

    def hold_stranded(self) -> int:
        """Hold what waits for destinations that its route does not name any more. Returns how many deliveries."""
        return self._deliverer.hold_stranded()


def _success(event: str, row: InstanceRow, **fields: object) -> Line:
    """An audit line of a success of this instance."""
    return Line(event, "success", {"instance_id": row.id, **fields})
