"""What the steps did with a batch, gathered and settled together: held, later, or a step further."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from gateway.audit import Line, audited_all, events
from gateway.database import InstanceRow
from gateway.errors import CapacityError, GatewayError, fault
from gateway.flow.backoff import MOST_DEATHS, STEP_ATTEMPTS, delay_s, killed_the_worker
from gateway.flow.changes import Change, held, later
from gateway.flow.context import StepContext
from gateway.flow.faults import as_waiting, unexpected
from gateway.flow.leases import LeaseLost

SETTLE_S = 0.25  # how long what is done waits at most for its neighbours, when these take long
_TRANSIENT = {"vault-busy", "device-failed"}  # codes of errors that pass by themselves

log = structlog.get_logger(__name__)


class Outcomes:
    """Of a batch of instances that were claimed in `state`; the end of its block settles what is left.

    Whatever a step raises within `of` becomes that row's next state: held, or later.

    Raises
    ------
    CapacityError
        The database cannot be written to: what is not settled is done again when its leases have run out.
    """

    def __init__(self, context: StepContext, state: str) -> None:
        self._context = context
        self._state = state
        self._waiting: list[Change] = []
        self._since = 0.0

    def __enter__(self) -> Outcomes:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.settle()

    @contextmanager
    def of(self, row: InstanceRow) -> Iterator[None]:
        """The work on one row."""
        try:
            yield
        except Exception as error:  # KeyboardInterrupt and the like end the process; the lease runs out
            self.add(self.failed(row, error))
        if self._waiting and time.monotonic() - self._since >= SETTLE_S:
            self.settle()

    def check_deaths(self, row: InstanceRow) -> None:
        """HoldError when too many processes ended at this step of this instance."""
        if row.deaths >= MOST_DEATHS:
            raise killed_the_worker(f"after {self._state}", row.deaths)

    def add(self, change: Change) -> None:
        """Keep what becomes of a row, to be settled with its neighbours."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(change)

    def settle(self) -> None:
        """Settle what is kept; what its audit line or its values hinder is tried again later, or held."""
        changes, self._waiting = self._waiting, []
        if not changes:
            return
        again = self._settled(changes)
        if again:
            self._settled(again)

    def _settled(self, changes: list[Change]) -> list[Change]:
        tell = partial(audited_all, self._context.audit)
        again = []
        for change, error in zip(changes, self._context.store.settle(changes, tell), strict=True):
            if isinstance(error, LeaseLost):
                log.info("step taken over by another worker", instance=change.row.id)
            elif error is not None:
                again.append(self.failed(change.row, error))
        return again

    def failed(self, row: InstanceRow, error: Exception, record: str | None = None) -> Change:
        """What an error makes of a row; `record`: the vault record of an original that is to be held."""
        waits = as_waiting(error)
        if waits is None and isinstance(error, GatewayError) and error.code in _TRANSIENT:
            waits = CapacityError(error.code, error.message, error.hint)
        if waits is not None:  # a full disk or a busy vault is not the instance's fault: for as long as it takes
            log.error("step waits", instance=row.id, state=self._state, code=waits.code)
            return later(row, self._state, delay_s(row.attempts), waits.code, waits.message)
        if not isinstance(error, GatewayError):
            log.error("step failed", instance=row.id, state=self._state, fault=fault(error))
            if row.attempts < STEP_ATTEMPTS:
                return later(row, self._state, delay_s(row.attempts), "unexpected", fault(error))
        told = unexpected(error)
        line = Line(events.INSTANCE_HELD, "failure", {"instance_id": row.id, "reason": told.code})
        sender = {"calling_ae": row.calling_ae, "peer_address": row.peer_address}
        done = partial(log.warning, "held", instance=row.id, code=told.code, reason=told.message, **sender)
        return held(row, self._state, told.code, str(told), [line], record, done)
