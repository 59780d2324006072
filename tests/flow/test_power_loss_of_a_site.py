"""The power goes at any moment between receiving and delivery: spool, vault and derived files are as the disk has them.

What SQLite has committed is taken for durable, as its own tests show; all else keeps what was flushed.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.flow.segments.recovery import take_over
from tests.support.dicom.samples import encode
from tests.support.disk import Disk
from tests.support.flow import Flow, configuration, ct

FOLDERS = ("spool", "vault", "derived")
SENT = {number: ct(number) for number in range(1, 7)}


@dataclass
class Remains:
    """What is there after the power cut, and what others had been told or given before."""

    acknowledged: Mapping[int, str]  # number -> instance id
    delivered: Mapping[str, set[str]]  # SOP Instance UID -> digests
    database: Path
    files: Mapping[str, Mapping[str, bytes]]  # by folder


class History:
    """One site from the first instance received to the last delivered, and power cuts between any two calls."""

    def __init__(self, flow: Flow, folder: Path, rng: random.Random, cuts: int) -> None:
        self.flow, self.folder, self.rng = flow, folder, rng
        self.acknowledged: dict[int, str] = {}
        self.found: list[Remains] = []
        self._cuts = cuts
        lock = threading.RLock()
        state = flow.config.site.state
        self.disks = {name: Disk(state / name, self._moment, lock=lock) for name in FOLDERS}

    def _moment(self) -> None:
        if len(self.found) < self._cuts and self.rng.random() < 0.04:
            self.cut()

    def cut(self) -> None:
        acknowledged, delivered = dict(self.acknowledged), self.flow.sender.byte_strings()
        database = self.folder / f"{len(self.found)}.sqlite"
        source, copy = sqlite3.connect(self.flow.engine.url.database), sqlite3.connect(database)
        source.backup(copy)
        source.close()
        copy.close()
        files = {name: disk.remains(self.rng) for name, disk in self.disks.items()}
        self.found.append(Remains(acknowledged, delivered, database, files))

    def run(self) -> None:
        for number, one in SENT.items():
            self.acknowledged[number] = self.flow.receive(one)
            if number % 2 == 0:
                self.flow.run()
                self.flow.retainer.once()
        self.cut()


def check(remains: Remains, state: Path, keys: Path) -> int:
    """Start again on what remains, and go on to the end; how many instances had not been delivered before."""
    for name in FOLDERS:
        (state / name).mkdir(parents=True)
        for file, content in remains.files[name].items():
            (state / name / file).write_bytes(content)
    remains.database.rename(state / "gateway.sqlite")
    flow = Flow(configuration(state, keys))
    take_over(flow.context.spool, flow.store)
    flow.store.free_dead_leases()
    flow.run()
    rows = {number: flow.row(instance) for number, instance in remains.acknowledged.items()}
    assert {number: row.state for number, row in rows.items()} == dict.fromkeys(rows, "delivered")
    given = flow.sender.byte_strings()
    for uid, digests in remains.delivered.items():
        assert len(digests | given.get(uid, set())) == 1  # what goes out again is what went out
    for number, row in rows.items():
        original = flow.restored(SENT[number].SOPInstanceUID)
        assert hashlib.sha256(original).hexdigest() == row.sha256
        assert original == encode(SENT[number])
    flow.engine.dispose()
    return len(given)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 8))])
def test_what_was_acknowledged_is_delivered_and_restored_whenever_the_power_goes(
    flow, site_keys, tmp_path, monkeypatch, seed
):
    history = History(flow, tmp_path, random.Random(seed), cuts=8)
    with monkeypatch.context() as patched:
        for disk in history.disks.values():
            disk.watch(patched)
        history.run()
    for disk in history.disks.values():
        disk.close()
    again = [check(one, tmp_path / f"after{number}", site_keys) for number, one in enumerate(history.found)]
    assert len(again) == 9 and any(again)
