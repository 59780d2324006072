"""The power goes at any moment: all that was acknowledged is found, and nothing else stops the role."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from gateway.database import InstanceRow, reading, sqlite_url
from gateway.errors import CapacityError
from gateway.flow.segments.reclaim import REST_S, Reclaimer
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.store import FlowStore, lease_owner
from tests.support.dicom.samples import encode
from tests.support.disk import Disk
from tests.support.flow import Flow, ct, facts_of

SENT = {number: encode(ct(number, ImageComments="x" * (number * 997 % 9000))) for number in range(1, 41)}
BY_DIGEST = {hashlib.sha256(data).hexdigest(): data for data in SENT.values()}


@dataclass
class Remains:
    """What is there after the power cut, and what peers had been told before."""

    acknowledged: list[str]
    done: set[str]  # instances whose bytes nobody needs any more
    database: Path
    files: dict[str, bytes]


class History:
    """Senders, a worker that finishes instances and reclaims, and power cuts between any two calls."""

    def __init__(self, flow: Flow, folder: Path, rng: random.Random, cuts: int) -> None:
        self.flow, self.folder, self.rng = flow, folder, rng
        self.acknowledged: list[str] = []
        self.done: set[str] = set()
        self.found: list[Remains] = []
        self._cuts = cuts
        self._moments = 0
        self.disk = Disk(flow.context.spool.folder, self._moment)

    def _moment(self) -> None:
        self._moments += 1
        if len(self.found) < self._cuts and self.rng.random() < 0.15:
            self.cut()

    def cut(self) -> None:
        with self.disk.lock:
            acknowledged = list(self.acknowledged)  # before its rows are looked at
            database = self.folder / f"{len(self.found)}.sqlite"
            source, copy = sqlite3.connect(self.flow.engine.url.database), sqlite3.connect(database)
            source.backup(copy)
            source.close()
            copy.close()
            done = set(self.done)  # after it: of what was forgotten meanwhile the copy may know already
            self.found.append(Remains(acknowledged, done, database, self.disk.remains(self.rng)))

    def run(self) -> None:
        receiver = self.flow.receiver()
        receiver._log._segment_bytes = self.rng.choice((10_000, 60_000, 1 << 20))
        numbers = list(SENT)
        self.rng.shuffle(numbers)
        threads = [threading.Thread(target=self._send, args=(receiver, numbers[n::3])) for n in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self._work()
        for thread in threads:
            thread.join()
        receiver.settle()
        self.cut()
        receiver.close()
        for _ in range(3):
            self._work()
            self.cut()

    def _send(self, receiver, numbers) -> None:
        for number in numbers:
            incoming = receiver.begin(facts_of(ct(number)))
            incoming.write(SENT[number])
            try:
                self.acknowledged.append(incoming.commit())
            except CapacityError as error:  # the worker's clock, an hour ahead here, made an empty segment look old
                assert error.code == "spool-unwritable"
                numbers.append(number)

    def _work(self) -> None:
        with reading(self.flow.engine) as session:
            waiting = [row.id for row in session.query(InstanceRow) if row.spool_file and "@" in row.spool_file]
        finished = [name for name in waiting if int(name, 16) % 4]
        self.done |= set(finished)  # before: at a cut in between either is right
        self.flow.store.forget_spool_file(finished)
        Reclaimer(self.flow.context.spool, self.flow.store).once(time.time() + REST_S + 100)
        time.sleep(0.02)


def check(remains: Remains, flow: Flow, folder: Path) -> int:
    """Start again on what remains; returns how many instances got their rows only now."""
    folder.mkdir()
    for name, content in remains.files.items():
        (folder / name).write_bytes(content)
    engine = create_engine(sqlite_url(remains.database))
    store, spool = FlowStore(engine, lease_owner()), ReceivedSpool(folder, flow.context.spool._cipher)
    replayed = take_over(spool, store)
    assert take_over(spool, store) == 0
    for _ in range(3):
        with reading(engine) as session:
            rows = {row.id: row for row in session.query(InstanceRow)}
        assert set(remains.acknowledged) <= set(rows)
        assert all(rows[name].spool_file for name in set(remains.acknowledged) - remains.done)
        for row in rows.values():
            if row.spool_file:
                with spool.open(row.spool_file) as file:
                    assert file.read() == BY_DIGEST[row.sha256]
        Reclaimer(spool, store).once(time.time() + REST_S + 100)
    assert not any(segment.is_open for segment in spool.segments())
    store.forget_spool_file(list(rows))
    Reclaimer(spool, store).once()
    assert list(spool.segments()) == [] and store.told_segments() == []
    engine.dispose()
    shutil.rmtree(folder)
    return replayed


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 8))])
def test_the_power_goes_between_any_two_calls(flow, tmp_path, monkeypatch, seed):
    monkeypatch.setattr("gateway.flow.segments.body.LARGE", 15_000)
    history = History(flow, tmp_path, random.Random(seed), cuts=15)
    with monkeypatch.context() as patched:
        history.disk.watch(patched)
        history.run()
    history.disk.close()
    assert len(history.acknowledged) == len(SENT)
    replayed = [check(remains, flow, tmp_path / "after") for remains in history.found]
    assert len(replayed) >= 15 and any(replayed)
