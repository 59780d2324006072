"""What was sent and acknowledged, and whether all of it came out: written as it happens, read by a later run."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import generate_uid
from pynetdicom import AE, _config
from sqlalchemy import func, select

from gateway.database import DeliveryRow, InstanceRow, reading
from gateway.errors import GatewayError
from gateway.service import build_restorer, database
from tests.benchmarks.soak.ground import SoakSite
from tests.benchmarks.soak.outside import EXPLICIT, Outside
from tests.crash.checks import data_set_of
from tests.iods.collection import Made

KINDS = (
    *("ct0", "mr", "cr", "dx-presentation", "xa", "rf", "us", "us-multi-frame", "sc", "sc-colour", "op-8"),
    *("dermoscopic", "photographic", "enhanced-ct", "enhanced-mr", "key-object", "sr-basic-text", "pr-grayscale"),
)
"""Made objects that the default policy marks, or remaps."""


class Ledger:
    """The archive's side: makes instances, sends them until each is acknowledged, and writes both down."""

    def __init__(self, folder: Path, made: dict[str, Made], seed: int) -> None:
        self._file = folder / "ledger.jsonl"
        self._files = folder / "unsent"
        self._files.mkdir(parents=True, exist_ok=True)
        self._made = {name: made[name].ds for name in KINDS}
        self._dice = random.Random(seed)
        self.sha256: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self.passes: Counter[str] = Counter()
        lines = self._file.read_text("utf-8").splitlines() if self._file.exists() else []
        for line in lines:
            self._know(json.loads(line))
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        _config.STORE_SEND_CHUNKED_DATASET = True  # the bytes of the file, as they are

    def _know(self, one: dict) -> None:
        if "acknowledged" in one:
            self.acknowledged |= set(one["acknowledged"])
        else:
            self.sha256[one["uid"]] = one["sha256"]
            self.kinds[one["kind"]] += 1

    def _write(self, one: dict) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")
        self._know(one)

    def make(self, count: int) -> None:
        """New instances of any kinds, each of a study of its own with its neighbours of the call."""
        study = generate_uid()
        for _ in range(count):
            kind = self._dice.choice(KINDS)
            ds: Dataset = copy.deepcopy(self._made[kind])
            ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), study, generate_uid()
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = EXPLICIT
            path = self._files / f"{ds.SOPInstanceUID}.dcm"
            dcmwrite(path, ds, enforce_file_format=True)
            digest = hashlib.sha256(data_set_of(path)).hexdigest()
            self._write({"uid": str(ds.SOPInstanceUID), "kind": kind, "sha256": digest})

    @property
    def pending(self) -> list[str]:
        """UIDs that were not acknowledged yet."""
        return [uid for uid in self.sha256 if uid not in self.acknowledged]

    def send(self, port: int, duplicates: bool = False) -> int:
        """One association with all that is pending; returns how many were acknowledged.

        duplicates: each goes out twice, as an archive does that lost the answer.
        """
        paths = [self._files / f"{uid}.dcm" for uid in self.pending]
        paths = [path for path in paths if path.exists()]
        done: list[str] = []
        try:
            done = self._associate(port, paths * 2 if duplicates else paths)
        finally:
            if done:
                self._write({"acknowledged": done})
            for uid in done:
                (self._files / f"{uid}.dcm").unlink(missing_ok=True)
        return len(done)

    def _associate(self, port: int, paths: list[Path]) -> list[str]:
        ae = AE("STORESCU")
        # A refusal that comes before the data set is out may get lost in pynetdicom's sender (its reactor thread takes
        # it): then it waits in vain, which is counted under "no answer", and sends again.
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout, ae.connection_timeout = 10, 20, 60, 5
        for ds in self._made.values():
            ae.add_requested_context(ds.SOPClassUID, EXPLICIT)
        association = ae.associate("127.0.0.1", port, ae_title="RELAY")
        if not association.is_established:
            self.passes["no association"] += 1
            return []
        done: list[str] = []
        for path in paths:
            try:
                status = association.send_c_store(path)
            except (RuntimeError, ValueError):
                break  # the association is gone
            code = status.Status if "Status" in status else None
            self.passes["no answer" if code is None else f"{code:04X}"] += 1
            if code is None:
                break
            if code == 0:
                done.append(path.stem)
        association.release()
        return list(dict.fromkeys(done))


def out_of_balance(ledger: Ledger, site: SoakSite, outside: dict[str, Outside]) -> list[str]:
    """Everything that does not add up; empty when the ledger is exact."""
    problems = [f"not acknowledged: {len(ledger.pending)}"] if ledger.pending else []
    engine = database(site.config)
    with reading(engine) as session:
        states = dict(session.execute(select(InstanceRow.state, func.count()).group_by(InstanceRow.state)).all())
        commits = select(DeliveryRow.commit_state, func.count()).where(DeliveryRow.destination == "first")
        committed = dict(session.execute(commits.group_by(DeliveryRow.commit_state)).all())
    engine.dispose()
    if set(states) != {"delivered"}:
        problems.append(f"states: {states}")
    if set(committed) != {"committed"}:
        problems.append(f"commitments: {committed}")
    restorer, copies = build_restorer(site.config), set()
    for uid in ledger.acknowledged:
        try:
            with restorer.by_uid(uid) as original:
                original.verify()
                digest = hashlib.sha256(b"".join(original.stream())).hexdigest()
                copies.add(original.derived_sop_uid)
        except GatewayError as error:
            problems.append(f"lost: {uid}: {error.code}")
            continue
        if digest != ledger.sha256[uid]:
            problems.append(f"lost: {uid} restores other bytes than were sent")
    for name, one in outside.items():
        digests: dict[str, set[str]] = defaultdict(set)
        for kept in one.kept:
            digests[kept.uid].add(kept.sha256)
            if not kept.marked or kept.uid in ledger.sha256:
                problems.append(f"unmarked: {kept.uid} at {name}")
        problems += [f"two byte strings: {uid} at {name}" for uid, several in digests.items() if len(several) > 1]
        if missing := copies - digests.keys():
            problems.append(f"lost: {len(missing)} copies are not at {name}")
        if more := digests.keys() - copies:
            problems.append(f"unknown: {len(more)} copies at {name}")
    return problems


def wait_for_all(ledger: Ledger, site: SoakSite, stalled_s: float) -> None:
    """Send what is pending and wait until all is delivered and committed; AssertionError when nothing moves."""
    moved_at, before = time.monotonic(), None
    engine = database(site.config)
    while True:
        if ledger.pending:
            ledger.send(site.port)
        with reading(engine) as session:
            rows = select(DeliveryRow.destination, DeliveryRow.state, DeliveryRow.commit_state, func.count())
            found = sorted(map(tuple, session.execute(rows.group_by(*rows.selected_columns[:3])).all()))
            instances = session.execute(select(InstanceRow.state, func.count()).group_by(InstanceRow.state)).all()
        now = (found, sorted(map(tuple, instances)), len(ledger.pending))
        over = all(state == "delivered" for state, _ in instances)
        if over and not ledger.pending and all(two == "committed" for one, _, two, _ in found if one == "first"):
            engine.dispose()
            return
        if now != before:
            before, moved_at = now, time.monotonic()
        assert time.monotonic() - moved_at < stalled_s, f"nothing moves any more: {now}"
        time.sleep(0.5)
