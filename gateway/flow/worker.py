"""The worker role: threads that claim work in batches and run the steps until told to stop.

One thread seals, one marks, one for each destination delivers, one purges. They share nothing but the database, so
any number of worker processes may run beside each other.

What a process died of, or beside, is done alone: no other loop of this process is at work meanwhile, so that the next
death has one cause (`gateway.flow.leases`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from gateway.config.models import Destination, Worker
from gateway.database import DeliveryRow, InstanceRow
from gateway.errors import CapacityError, fault
from gateway.flow.backoff import delay_s
from gateway.flow.faults import Repeated
from gateway.flow.gate import Gate
from gateway.flow.ports import Sender
from gateway.flow.retention import Retainer
from gateway.flow.steps import Steps
from gateway.flow.store import RECEIVED, SEALED, FlowStore

DELIVERY_BATCH = 16
RETENTION_S = 60.0

log = structlog.get_logger(__name__)


class FlowWorker:
    """Runs the steps on whatever the database says is due.

    Parameters
    ----------
    further
        More that is to be done again and again, each in a thread of its own: name, what to do (it returns how much
        there was), and seconds of pause when there was nothing.
    """

    def __init__(
        self,
        settings: Worker,
        destinations: Sequence[Destination],
        store: FlowStore,
        steps: Steps,
        sender: Sender,
        retainer: Retainer,
        further: Sequence[tuple[str, Callable[[], int], float]] = (),
    ) -> None:
        self._settings = settings
        self._destinations = destinations
        self._store = store
        self._steps = steps
        self._sender = sender
        self._retainer = retainer
        self._further = further
        self._gate = Gate()
        self._repeated = Repeated()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Free what a dead predecessor held, hold what nobody would deliver any more, then start all threads."""
        freed = self._store.free_dead_leases()
        if freed:
            log.info("work of a dead process taken over", rows=freed)
        self._steps.hold_stranded()
        loops: list[tuple[str, Callable[[], int], float]] = [
            ("seal", self.seal_once, self._settings.poll_s),
            ("mark", self.mark_once, self._settings.poll_s),
            ("retain", self._in_shared(self._retainer.once), RETENTION_S),
            *((name, self._in_shared(once), pause_s) for name, once, pause_s in self._further),
        ]
        for destination in self._destinations:
            loops.append(
                (f"deliver-{destination.name}", partial(self.deliver_once, destination), self._settings.poll_s)
            )
        for name, once, pause_s in loops:
            thread = threading.Thread(target=self._loop, args=(name, once, pause_s), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float = 30) -> None:
        """Finish the batches at hand and stop; what is not finished in time is given back and taken up later."""
        self._stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._store.end_leases()

    def seal_once(self) -> int:
        """Seal what is suspected, alone, then one batch; returns how many instances there were."""

        def seal(rows: Sequence[InstanceRow]) -> None:
            for row in rows:
                self._steps.seal(row)

        return self._step_once(RECEIVED, seal)

    def mark_once(self) -> int:
        """Mark what is suspected, alone, then one batch; returns how many instances there were."""
        return self._step_once(SEALED, self._steps.mark)

    def _step_once(self, state: str, step: Callable[[Sequence[InstanceRow]], None]) -> int:
        lease_s, done = self._settings.lease_s, 0
        with self._gate.shared():
            done += self._run(self._store.claim(state, self._settings.batch, lease_s), step)
        if self._store.has_suspect(state):
            with self._gate.alone():
                done += self._run(self._store.claim_suspect(state, lease_s), step)
        return done

    def _run(self, rows: Sequence[InstanceRow], step: Callable[[Sequence[InstanceRow]], None]) -> int:
        with self._kept([row.id for row in rows], self._store.renew):
            if rows:
                step(rows)
        return len(rows)

    def deliver_once(self, destination: Destination) -> int:
        """Deliver one batch to one destination, then what is suspected, alone; returns how many instances were tried
        with success or for good.
        """
        lease_s = self._settings.lease_s
        with self._gate.shared():
            done = self._deliver(destination, self._store.claim_deliveries(destination.name, DELIVERY_BATCH, lease_s))
        if self._store.has_suspect_delivery(destination.name):
            with self._gate.alone():
                done += self._deliver(destination, self._store.claim_suspect_delivery(destination.name, lease_s))
        return done

    def _deliver(self, destination: Destination, pairs: Sequence[tuple[DeliveryRow, InstanceRow]]) -> int:
        done = 0
        with self._kept([delivery.id for delivery, _ in pairs], self._store.renew_deliveries):
            for index, (delivery, row) in enumerate(pairs):
                reachable = self._steps.deliver(delivery, row, self._sender, lambda n: _retry(destination, n))
                if not reachable or self._stop.is_set():
                    rest = [later.id for later, _ in pairs[index + 1 :]]
                    self._store.give_back(rest, 0 if reachable else destination.retry_first_s)
                    break
                done += 1
        return done

    def _in_shared(self, once: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            with self._gate.shared():
                return once()

        return run

    def _loop(self, name: str, once: Callable[[], int], pause_s: float) -> None:
        while not self._stop.is_set():
            try:
                busy = once()
                self._repeated.over(name)
            except Exception as error:  # the database may be away or full for a while: go on when it is not
                code = error.code if isinstance(error, CapacityError) else fault(error)
                if count := self._repeated.again(name, code):
                    log.error("loop waits", loop=name, fault=code, failures=count)
                busy = 0
                self._stop.wait(1.0)
            if not busy:
                self._stop.wait(pause_s)

    @contextmanager
    def _kept(self, ids: Sequence, renew: Callable[[Sequence, float], None]) -> Iterator[None]:
        """Renew the leases of `ids` for as long as the block runs."""
        if not ids:
            yield
            return
        done = threading.Event()

        def keep() -> None:
            while not done.wait(self._settings.lease_s / 3):
                try:
                    renew(ids, self._settings.lease_s)
                except Exception as error:
                    log.error("lease not renewed", fault=fault(error))

        keeper = threading.Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()


def _retry(destination: Destination, attempt: int) -> float:
    if attempt >= destination.retry_attempts:
        return 0.0
    return delay_s(attempt, destination.retry_first_s, destination.retry_longest_s)
