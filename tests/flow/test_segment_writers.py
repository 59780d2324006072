"""Several associations bring records at once: one thread at a time writes the segment, whatever the disk does to it."""

from __future__ import annotations

import errno
import os
import random
import threading
import time

import pytest

from gateway.config.models import Ingress
from gateway.errors import CapacityError
from gateway.flow.receive import SpoolReceiver
from gateway.flow.segments.format import HEADER_SIZE, scan
from gateway.flow.segments.recovery import take_over
from tests.flow.test_segments import offer, offered, rows

CALLS = ("writev", "fdatasync", "ftruncate")
SENDERS, EACH = 4, 12


class Disk:
    """Slow now and then, with a fault of its own; notes whether two threads were ever in it at once."""

    def __init__(self, fault: str, seed: int) -> None:
        self.writers: set[str] = set()
        self.together = 0
        self.calls = 0
        self._fault = fault
        self._dice = random.Random(seed)
        self._fails_at = self._dice.randrange(5, 40)
        self._inside = threading.Semaphore(1)
        self._real = {name: getattr(os, name) for name in CALLS}

    def attach(self, monkeypatch) -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, lambda *args, name=name: self._call(name, *args))

    def _call(self, name: str, file: int, *args):
        thread = threading.current_thread().name
        if not thread.startswith(("flusher", "sender")):
            return self._real[name](file, *args)
        if not self._inside.acquire(blocking=False):
            self.together += 1
            return self._real[name](file, *args)
        try:
            self.calls += 1
            self.writers.add(thread)
            if self._dice.random() < 0.3:
                time.sleep(self._dice.random() * 0.005)
            return self._answer(name, file, *args)
        finally:
            self._inside.release()

    def _answer(self, name: str, file: int, *args):
        if self._fault == "unforeseen" and self.calls == self._fails_at:
            raise MemoryError
        if self._fault == "flush" and name == "fdatasync" and self.calls >= self._fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if name == "writev" and self._fault == "short":
            whole = b"".join(args[0])
            return self._real[name](file, [whole[: self._dice.randrange(1, len(whole) + 1)]])
        if name == "writev" and self._fault == "full" and self._dice.random() < 0.2:
            self._real[name](file, [args[0][0][:3]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real[name](file, *args)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", ["none", "short", "full", "flush", "unforeseen"])
def test_senders_race_for_the_segment(flow, monkeypatch, fault, seed):
    disk, failed = Disk(fault, seed), []
    acknowledged: list[tuple[str, int]] = []
    refused: list[str] = []
    with monkeypatch.context() as patched:
        disk.attach(patched)
        receiver = SpoolReceiver(
            Ingress(min_free_mib=0), flow.config.routes, flow.context.spool, flow.store, lambda: failed.append(True)
        )
        receiver._log._segment_bytes = 60_000

        def send(first: int) -> None:
            for number in range(first, first + EACH):
                try:
                    acknowledged.append((offer(receiver, number % 7 + 1), number % 7 + 1))
                except CapacityError as error:
                    refused.append(error.code)
                if number % 3 == 0:
                    receiver._log.roll()
                    time.sleep(0.003)  # that it comes alone now and then

        threads = [
            threading.Thread(target=send, args=(number,), name=f"sender {number}", daemon=True)
            for number in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
            assert not thread.is_alive(), "somebody waits without end"
        receiver.close()
    assert disk.together == 0
    assert len(acknowledged) + len(refused) == SENDERS * EACH
    ends = fault in ("flush", "unforeseen")
    assert failed == [True] * ends and receiver.failed == ends
    assert set(refused) == {"none": set(), "short": set(), "full": {"disk-full"}}.get(fault, {"flush-failed"})
    if not ends:  # nothing was refused that lies there all the same
        assert {"flusher"} < disk.writers and len(rows(flow)) == len(acknowledged)
    take_over(flow.context.spool, flow.store)
    found = rows(flow)
    assert {one for one, _ in acknowledged} <= set(found)
    for one, number in acknowledged:
        with flow.context.spool.open(found[one].spool_file) as file:
            assert file.read() == offered(number)[1]
    for path in flow.context.spool.segment_paths():
        with path.open("rb") as file:
            steps = [step.kind for step in scan(file, path.stem, HEADER_SIZE, path.stat().st_size)]
        assert steps[-1] == "end" and "torn" not in steps
