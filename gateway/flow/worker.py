"""The worker role: threads that claim work in batches and run the steps until told to stop.

One thread seals, one marks, one for each destination delivers, one purges. They share nothing but the database, so
any number of worker processes may run beside each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from gateway.config.models import Destination, Worker
from gateway.errors import fault
from gateway.flow.backoff import delay_s
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
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Free what a dead predecessor held, then start all threads."""
        freed = self._store.free_dead_leases()
        if freed:
            log.info("work of a dead process taken over", rows=freed)
        loops: list[tuple[str, Callable[[], int], float]] = [
            ("seal", self.seal_once, self._settings.poll_s),
            ("mark", self.mark_once, self._settings.poll_s),
            ("retain", self._retainer.once, RETENTION_S),
            *self._further,
        ]
        for destination in self._destinations:
            loops.append(
                (f"deliver-{destination.name}", lambda d=destination: self.deliver_once(d), self._settings.poll_s)
            )
        for name, once, pause_s in loops:
            thread = threading.Thread(target=self._loop, args=(name, once, pause_s), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float = 30) -> None:
        """Finish the batches at hand and stop; what is not finished in time stays leased and is taken up later."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def seal_once(self) -> int:
        """Seal one batch; returns how many instances it had."""
        rows = self._store.claim(RECEIVED, self._settings.batch, self._settings.lease_s)
        with self._kept([row.id for row in rows], self._store.renew):
            for row in rows:
                self._steps.seal(row)
        return len(rows)

    def mark_once(self) -> int:
        """Mark one batch; returns how many instances it had."""
        rows = self._store.claim(SEALED, self._settings.batch, self._settings.lease_s)
        with self._kept([row.id for row in rows], self._store.renew):
            if rows:
                self._steps.mark(rows)
        return len(rows)

    def deliver_once(self, destination: Destination) -> int:
        """Deliver one batch to one destination; returns how many instances were tried with success or for good."""
        pairs = self._store.claim_deliveries(destination.name, DELIVERY_BATCH, self._settings.lease_s)
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

    def _loop(self, name: str, once: Callable[[], int], pause_s: float) -> None:
        while not self._stop.is_set():
            try:
                busy = once()
            except Exception as error:  # the database may be away for a while: go on when it is back
                log.error("loop failed", loop=name, fault=fault(error))
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
