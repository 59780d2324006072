"""The worker role: threads that claim work in batches and run the steps until told to stop.

One thread seals, one marks, one for each destination delivers, one purges. They share nothing but the database, so
any number of worker processes may run beside each other. A thread without work sleeps until it is woken
(`gateway.database.wakes`), and looks now and then all the same.

What a process died of, or beside, is done alone: no other loop of this process is at work meanwhile, so that the next
death has one cause (`gateway.flow.leases`).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from gateway.config.models import Destination, Worker
from gateway.database import Bell, DeliveryRow, InstanceRow
from gateway.errors import CapacityError, fault
from gateway.flow.backoff import delay_s
from gateway.flow.faults import Repeated
from gateway.flow.gate import Gate
from gateway.flow.pace import Pace
from gateway.flow.ports import Sender
from gateway.flow.retention import Retainer
from gateway.flow.states import to
from gateway.flow.steps import Steps
from gateway.flow.store import RECEIVED, SEALED, FlowStore

MOST_CLAIMED = 512  # deliveries of a batch, however many may be under way
RETENTION_S = 60.0
STRANDED_S = 60.0  # between two looks for what a worker with an older configuration queued, or had claimed before

log = structlog.get_logger(__name__)


class FlowWorker:
    """Runs the steps on whatever the database says is due.

    Parameters
    ----------
    further
        More that is to be done again and again, each in a thread of its own: name, what to do (it returns how much
        there was), and seconds of pause when there was nothing.
    beside
        As `further`, also while something suspected is done alone: what kills no process, and may take long.
    gate
        Shared with the other workers of this process; None: there is none.
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
        gate: Gate | None = None,
        beside: Sequence[tuple[str, Callable[[], int], float]] = (),
    ) -> None:
        self._settings = settings
        self._destinations = destinations
        self._store = store
        self._steps = steps
        self._sender = sender
        self._retainer = retainer
        self._gate = gate or Gate()
        self._further = [*((name, self._in_shared(once), pause_s) for name, once, pause_s in further), *beside]
        self._repeated = Repeated()
        self._paces = defaultdict[str, Pace](Pace)
        self._stop = threading.Event()
        self._bells: list[Bell] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Free what a dead predecessor held, hold what nobody would deliver any more, then start all threads."""
        freed = self._store.free_dead_leases()
        if freed:
            log.info("work of a dead process taken over", rows=freed)
        self._steps.hold_stranded()
        wakes, poll_s = self._store.wakes, self._settings.poll_s
        loops: list[tuple[str, Callable[[], int], float, Bell]] = [
            ("seal", self.seal_once, poll_s, wakes.bell(RECEIVED)),
            ("mark", self.mark_once, poll_s, wakes.bell(SEALED)),
            ("retain", self._in_shared(self._retainer.once), RETENTION_S, Bell()),
            ("stranded", self._in_shared(self._steps.hold_stranded), STRANDED_S, Bell()),
            *((name, once, pause_s, Bell()) for name, once, pause_s in self._further),
        ]
        for one in self._destinations:
            deliver = partial(self.deliver_once, one)
            loops.append((f"deliver-{one.name}", deliver, poll_s, wakes.bell(to(one.name))))
        wakes.listen()
        for name, once, pause_s, bell in loops:
            thread = threading.Thread(target=self._loop, args=(name, once, pause_s, bell), name=name, daemon=True)
            self._bells.append(bell)
            thread.start()
            self._threads.append(thread)

    def pause(self) -> None:
        """Claim nothing more, and return; the batches at hand go on, of a delivery the instance at hand."""
        self._stop.set()
        for bell in self._bells:
            bell.ring()

    def stop(self, timeout_s: float | None = 30) -> None:
        """Finish the batches at hand and stop; what is not finished in time is given back and taken up later.

        timeout_s: None waits for as long as it takes.
        """
        self.pause()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._store.end_leases()
        self._store.wakes.close()

    def seal_once(self) -> int:
        """Seal what is suspected, alone, then one batch; returns how many instances there were."""
        return self._step_once(RECEIVED, partial(self._store.claim, RECEIVED), self._steps.seal)

    def mark_once(self) -> int:
        """Mark what is suspected, alone, then one batch of a kind; returns how many instances there were."""
        return self._step_once(SEALED, self._store.claim_batch, self._steps.mark)

    def _step_once(
        self,
        state: str,
        claim: Callable[[int, float], list[InstanceRow]],
        step: Callable[[Sequence[InstanceRow]], None],
    ) -> int:
        lease_s, done = self._settings.lease_s, 0
        with self._gate.shared():
            done += self._run(claim(self._settings.batch, lease_s), step)
        if self._store.has_suspect(state):
            with self._gate.alone():
                done += self._run(self._store.claim_suspect(state, lease_s), step)
        return done

    def _run(self, rows: Sequence[InstanceRow], step: Callable[[Sequence[InstanceRow]], None]) -> int:
        with self._kept(rows, self._store.renew):
            if rows:
                step(rows)
        return len(rows)

    def deliver_once(self, destination: Destination) -> int:
        """Deliver one batch to one destination, then what is suspected, alone; returns how many instances were tried
        with success or for good.
        """
        lease_s = self._settings.lease_s
        if destination.closed_until(time.time()) is not None:
            return 0  # outside its schedule nothing is claimed: it waits as it is
        with self._gate.shared():
            pace, began = self._paces[destination.name], time.monotonic()
            most = min(pace.size * destination.at_a_time, MOST_CLAIMED)
            done = self._deliver(destination, self._store.claim_deliveries(destination.name, most, lease_s))
            pace.took(done >= most, time.monotonic() - began)
        if self._store.has_suspect_delivery(destination.name):
            with self._gate.alone():
                done += self._deliver(destination, self._store.claim_suspect_delivery(destination.name, lease_s))
        return done

    def _deliver(self, destination: Destination, pairs: Sequence[tuple[DeliveryRow, InstanceRow]]) -> int:
        with self._kept([delivery for delivery, _ in pairs], self._store.renew_deliveries):

            def stopped() -> bool:
                return self._stop.is_set() or destination.closed_until(time.time()) is not None

            retry, pause_s = partial(_retry, destination), destination.retry_first_s
            return self._steps.deliver(pairs, self._sender, retry, pause_s, stopped, destination.at_a_time)

    def _in_shared(self, once: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            with self._gate.shared():
                return once()

        return run

    def _loop(self, name: str, once: Callable[[], int], pause_s: float, bell: Bell) -> None:
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
                bell.wait(pause_s)

    @contextmanager
    def _kept(self, rows: Sequence, renew: Callable[[Sequence, float], None]) -> Iterator[None]:
        """Renew the leases of claimed rows for as long as the block runs."""
        if not rows:
            yield
            return
        done = threading.Event()

        def keep() -> None:
            while not done.wait(self._settings.lease_s / 3):
                try:
                    renew(rows, self._settings.lease_s)
                except Exception as error:
                    log.error("lease not renewed", fault=fault(error))

        keeper = threading.Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()


def _retry(destination: Destination, kind: str, attempt: int) -> float:
    attempts, first_s, longest_s = destination.retry(kind)
    return 0.0 if attempt >= attempts else delay_s(attempt, first_s, longest_s)
