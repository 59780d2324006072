"""Durability `cluster` without processes: groups are objects, rows come first, every replica reads and cleans up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, select

from gateway.bucket import Bucket
from gateway.config.models import Config
from gateway.database import InstanceRow, SegmentRow, open_database, reading, sqlite_url, transaction
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import CapacityError, ConfigError
from gateway.flow import receive
from gateway.flow.durability import durability_of
from gateway.flow.receive import SpoolReceiver
from gateway.flow.segments import body, shared
from gateway.flow.segments.log import Group
from gateway.flow.segments.shared import Orphans
from gateway.flow.store import DELIVERED
from gateway.keys.keyring import load_spool_cipher
from gateway.network.incoming import sentence_of
from gateway.service.spools import received_spool
from gateway.service.wiring import build_restorer
from tests.conftest import needed
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, configuration, ct, facts_of
from tests.support.objects import SeaweedFs
from tests.support.until import until

pytestmark = pytest.mark.peers
needed("obstore")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFs]:
    server = SeaweedFs(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def config(server: SeaweedFs, tmp_path: Path, site_keys: Path) -> Config:
    found = configuration(tmp_path / "state", site_keys)
    store = server.settings(url=f"s3://vault/{tmp_path.name}")
    return found.model_copy(update={"store": store, "durability": "cluster"})


def replica(config: Config, folder: Path) -> Flow:
    """A machine of the site, with a state folder of its own. Rows lie in SQLite: what a standby adds is tested in
    `tests/database/test_standby.py`, both together in `tests/crash/test_cluster.py`.
    """
    config = config.model_copy(update={"site": config.site.model_copy(update={"state": folder})})
    return Flow(config, open_database(sqlite_url(folder.parent / "rows.sqlite")))


def objects(config: Config, under: str) -> list[str]:
    return sorted(one.name for one in Bucket(config.store).list(under))


def restored(flow: Flow, uid: str) -> bytes:
    with build_restorer(flow.config, flow.engine).by_uid(uid) as original:
        original.verify()
        return b"".join(original.stream())


def files(folder: Path) -> list[Path]:
    return [path for name in ("spool", "derived", "vault") for path in (folder / name).rglob("*") if path.is_file()]


def test_what_one_machine_received_another_works_off(config: Config, tmp_path: Path) -> None:
    first, second = replica(config, tmp_path / "a"), replica(config, tmp_path / "b")
    datasets = [ct(number) for number in range(1, 4)]
    for ds in datasets:
        first.receive(ds)
    assert len(objects(config, "received")) == 3 and files(tmp_path / "a") == []
    second.seal()
    third = replica(config, tmp_path / "c")
    third.mark()
    second.deliver()
    assert len(second.sender.received) == 3 and len(objects(config, "derived")) == 3
    assert files(tmp_path / "b") == files(tmp_path / "c") == []
    second.deliver("second")
    stored = b"".join(b"".join(Bucket(config.store).stream(name)) for name in objects(config, "received"))
    assert bytes(datasets[0].PixelData)[:64] not in stored and b"1.2.826.0.1.99.1" not in stored
    third.retainer.once()
    assert objects(config, "received") == [] and third.store.told_segments() == []
    for ds in datasets:
        assert restored(third, ds.SOPInstanceUID) == encode(ds, EXPLICIT_LITTLE)
    third.retainer.once(now=4e9)
    assert objects(config, "derived") == []


class Gates:
    """A receiver whose objects go into the store one by one as they are let through; `rows`: groups as committed."""

    def __init__(self, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flow, self.failed = flow, threading.Event()
        self.begun, self.rows, self.answers = 0, [], {}
        self._go = [threading.Event() for _ in range(3)]
        self._errors: dict[int, BaseException] = {}
        self._senders: list[threading.Thread] = []
        create, add = Bucket.create, flow.store.add_received

        def slow(bucket: Bucket, name: str, data: bytes) -> bool:
            number = self.begun
            self.begun += 1  # one begins at a time here
            assert number >= len(self._go) or self._go[number].wait(60)
            if number in self._errors:
                raise self._errors[number]
            return create(bucket, name, data)

        def noted(groups: Sequence[Group]) -> None:
            self.rows.append([facts["sop_instance_uid"] for group in groups for _, facts in group.records])
            add(groups)

        monkeypatch.setattr(Bucket, "create", slow)
        monkeypatch.setattr(flow.store, "add_received", noted)
        ingress, routes = flow.config.ingress, flow.config.routes
        self.receiver = SpoolReceiver(ingress, routes, flow.context.spool, flow.store, self.failed.set)

    def send(self, number: int) -> None:
        """Begin to send an instance."""

        def run() -> None:
            incoming = self.receiver.begin(facts_of(ct(number)))
            incoming.write(encode(ct(number), EXPLICIT_LITTLE))
            try:
                incoming.commit()
            except CapacityError as error:
                self.answers[number] = error.code
            else:
                self.answers[number] = ""

        self._senders.append(threading.Thread(target=run, daemon=True))
        self._senders[-1].start()

    def let(self, number: int, error: BaseException | None = None) -> None:
        """Let the object go on that was begun as number so many; or fail."""
        if error:
            self._errors[number] = error
        self._go[number].set()

    def two_and_four_that_wait(self) -> None:
        """Instances 1 and 2 are under way, each by itself; 3 to 6 wait."""
        for number in (1, 2):
            self.send(number)
            until("it is on its way", lambda number=number: self.begun == number)
        for number in range(3, 7):
            self.send(number)
        until("the others wait", lambda: len(self.receiver._log._waiting) == 4)

    def end(self) -> None:
        """Until all are answered."""
        for gate in self._go:
            gate.set()
        for sender in self._senders:
            sender.join(60)
            assert not sender.is_alive(), "somebody waits without end"
        self.receiver.close()


def test_two_objects_are_on_their_way_and_what_waits_meanwhile_is_one(
    config: Config, tmp_path: Path, monkeypatch
) -> None:
    gates = Gates(replica(config, tmp_path / "a"), monkeypatch)
    gates.two_and_four_that_wait()
    assert gates.begun == 2
    gates.let(1)
    until("the second is in the store", lambda: len(objects(config, "received")) == 1)
    time.sleep(0.1)  # were it not for the first, it would be told of by now
    assert gates.rows == [] and gates.answers == {} and gates.begun == 2
    gates.let(0)
    gates.end()
    assert gates.answers == dict.fromkeys(range(1, 7), "")
    first, second, rest = gates.rows
    assert [first, second] == [[ct(1).SOPInstanceUID], [ct(2).SOPInstanceUID]] and len(rest) == 4
    assert len(objects(config, "received")) == 3
    gates.flow.run()
    assert len(gates.flow.sender.byte_strings()) == 6


def test_an_object_that_fails_fails_those_who_wait_for_it_and_no_others(
    config: Config, tmp_path: Path, monkeypatch
) -> None:
    gates = Gates(replica(config, tmp_path / "a"), monkeypatch)
    gates.two_and_four_that_wait()
    gates.let(1)
    gates.let(0, CapacityError("store-unreachable", "no answer"))
    gates.end()
    assert gates.answers == {1: "store-unreachable", **dict.fromkeys(range(2, 7), "")}
    assert [ct(2).SOPInstanceUID] == gates.rows[0] and len(gates.rows) == 2 and not gates.failed.is_set()


@pytest.mark.parametrize("error", [RuntimeError, BaseException])
def test_the_role_is_told_once_and_everybody_is_answered_when_both_fail(
    config: Config, tmp_path: Path, monkeypatch, error: type[BaseException]
) -> None:
    """A panic of a library in Rust, as the store's is one, is no Exception."""
    gates = Gates(replica(config, tmp_path / "a"), monkeypatch)
    told: list[bool] = []
    monkeypatch.setattr(gates.receiver._log, "_on_failure", lambda: told.append(True))
    gates.two_and_four_that_wait()
    gates.let(0, error())
    gates.let(1, error())
    gates.end()
    assert told == [True] and gates.answers == dict.fromkeys(range(1, 7), "flush-failed")
    assert gates.rows == []


def test_a_panic_in_a_group_of_many_leaves_nobody_waiting(config: Config, tmp_path: Path, monkeypatch) -> None:
    gates = Gates(replica(config, tmp_path / "a"), monkeypatch)
    gates.two_and_four_that_wait()
    gates.let(2, BaseException())
    gates.let(1)
    gates.let(0)
    assert gates.failed.wait(60)
    gates.end()
    assert gates.answers == {1: "", 2: "", **dict.fromkeys(range(3, 7), "flush-failed")}


def test_what_nobody_thought_of_ends_the_role_and_what_is_safe_is_acknowledged(
    config: Config, tmp_path: Path, monkeypatch
) -> None:
    gates = Gates(replica(config, tmp_path / "a"), monkeypatch)
    gates.two_and_four_that_wait()
    gates.let(0, RuntimeError())
    assert gates.failed.wait(60)
    gates.end()
    assert gates.answers == {2: "", **dict.fromkeys((1, 3, 4, 5, 6), "flush-failed")}
    assert gates.rows == [[ct(2).SOPInstanceUID]] and len(objects(config, "received")) == 1


def test_rows_that_did_not_come_are_no_success_and_any_replica_finds_the_object(
    config: Config, tmp_path: Path, monkeypatch
) -> None:
    first, second = replica(config, tmp_path / "a"), replica(config, tmp_path / "b")

    def refuse(groups: object) -> None:
        raise CapacityError("database-unconfirmed", "the database's standby has not confirmed a commit")

    monkeypatch.setattr(first.store, "add_received", refuse)
    with pytest.raises(CapacityError) as caught:
        first.receive(ct(1))
    assert caught.value.code == "database-unconfirmed"
    assert len(objects(config, "received")) == 1
    assert durability_of(second.context.spool, second.store).take_over() == 0  # it may be on its way
    monkeypatch.setattr(shared, "LATE_S", 0.0)
    orphans = Orphans(second.context.spool, second.context.spool.files, second.store)
    assert not second.retainer._reclaimer.is_all_told()
    assert orphans.adopt(0) == 1 and orphans.adopt(0) == 0
    assert second.retainer._reclaimer.is_all_told()
    second.run()
    assert len(second.sender.received) == 1
    assert restored(second, ct(1).SOPInstanceUID) == encode(ct(1), EXPLICIT_LITTLE)


def test_objects_without_rows_get_them_in_the_order_they_were_stored(
    config: Config, tmp_path: Path, monkeypatch
) -> None:
    flow = replica(config, tmp_path / "a")
    ids = [digit * 32 for digit in "b10"]
    names = iter(ids)
    with monkeypatch.context() as patched:
        patched.setattr(shared, "secrets", SimpleNamespace(token_hex=lambda _: next(names)))
        patched.setattr(flow.store, "add_received", lambda _: None)
        for number in range(1, 4):
            flow.receive(ct(number))
            time.sleep(1.1)  # the store tells whole seconds
    told, add = [], flow.store.add_received
    monkeypatch.setattr(flow.store, "add_received", lambda groups: (told.extend(groups), add(groups)))
    assert Orphans(flow.context.spool, flow.context.spool.files, flow.store).adopt(0) == 3
    assert [group.segment for group in told] == ids


def test_a_database_of_yesterday_gets_back_what_waits_and_nothing_twice(config: Config, tmp_path: Path) -> None:
    flow = replica(config, tmp_path / "a")
    known, lost = flow.receive(ct(1)), flow.receive(ct(2))
    with transaction(flow.engine) as session:
        session.execute(delete(InstanceRow).where(InstanceRow.id == lost))
        session.execute(delete(SegmentRow))
    orphans = Orphans(flow.context.spool, flow.context.spool.files, flow.store)
    assert orphans.adopt(0) == 2
    with reading(flow.engine) as session:
        assert sorted(session.scalars(select(InstanceRow.id))) == sorted([known, lost])


def test_a_copy_of_the_site_takes_and_deletes_nothing_of_it(config: Config, tmp_path: Path, monkeypatch) -> None:
    """The same keys and the same bucket, another database."""
    monkeypatch.setattr(body, "LARGE", 4096)
    first = replica(config, tmp_path / "a")
    first.receive(ct(1))
    first.seal()
    first.mark()
    first.retainer.once()  # the segment is told of and goes, the large file does not
    (tmp_path / "copy").mkdir()
    copy = replica(config, tmp_path / "copy" / "a")
    monkeypatch.setattr("gateway.flow.retention.ORPHAN_AGE_S", -1.0)
    before = objects(config, "received"), objects(config, "derived")
    assert len(before[0]) == 1 and len(before[1]) == 1
    orphans = Orphans(copy.context.spool, copy.context.spool.files, copy.store)
    assert orphans.adopt(0) == 0 and not copy.retainer._reclaimer.is_ours()
    copy.retainer.once()
    assert (objects(config, "received"), objects(config, "derived")) == before
    first.retainer.once()
    assert (objects(config, "received"), objects(config, "derived")) == before


def test_an_orphan_that_was_changed_is_told_of_and_stays(config: Config, tmp_path: Path, monkeypatch) -> None:
    flow = replica(config, tmp_path / "a")
    flow.receive(ct(1))
    with transaction(flow.engine) as session:
        session.execute(delete(InstanceRow))
        session.execute(delete(SegmentRow))
    [name], bucket = objects(config, "received"), Bucket(config.store)
    data = bytearray(b"".join(bucket.stream(name)))
    data[len(data) // 2] ^= 1
    bucket.delete(name)
    bucket.create(name, bytes(data))
    orphans = Orphans(flow.context.spool, flow.context.spool.files, flow.store)
    assert orphans.adopt(0) == 0 and objects(config, "received") == [name]


def test_a_store_that_is_away_is_no_success_and_the_next_one_is(server: SeaweedFs, config: Config, tmp_path) -> None:
    away = config.model_copy(update={"store": config.store.model_copy(update={"endpoint": "http://127.0.0.1:1"})})
    with pytest.raises(CapacityError) as caught:
        replica(away, tmp_path / "a").receive(ct(1))
    assert sentence_of(caught.value) == "store-unreachable: the object store has not confirmed it"
    flow = replica(away, tmp_path / "b")
    assert durability_of(flow.context.spool, flow.store).take_over() == 0  # it starts, and refuses
    flow = replica(config, tmp_path / "c")
    flow.receive(ct(1))
    flow.run()
    assert len(flow.sender.received) == 1


def test_a_large_data_set_is_an_object_of_its_own_and_read_in_pieces(config: Config, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(body, "LARGE", 4096)
    monkeypatch.setattr("gateway.flow.shared.FIRST_PIECE", 1000)
    monkeypatch.setattr("gateway.flow.shared.LARGEST_PIECE", 3000)
    monkeypatch.setattr(receive, "PREFIX", 300)  # so that the header is read from the file on its way
    flow = replica(config, tmp_path / "a")
    instance = flow.receive(ct(1))
    assert len(objects(config, "received")) == 2 and files(tmp_path / "a") == []
    pieces = []
    asked = Bucket.range

    def noted(self: Bucket, name: str, start: int, length: int, version: str | None = None):
        pieces.append(length)
        return asked(self, name, start, length, version)

    monkeypatch.setattr(Bucket, "range", noted)
    other = replica(config, tmp_path / "b")
    other.run()
    assert other.row(instance).state == DELIVERED and max(pieces) == 3000
    monkeypatch.undo()
    assert restored(other, ct(1).SOPInstanceUID) == encode(ct(1), EXPLICIT_LITTLE)
    other.retainer.once()
    assert objects(config, "received") == []


def test_what_still_waits_on_the_disk_is_not_left_behind(config: Config, tmp_path: Path) -> None:
    on_disk = replica(config.model_copy(update={"durability": "disk"}), tmp_path / "a")
    on_disk.receive(ct(1))
    here = config.model_copy(update={"site": config.site.model_copy(update={"state": tmp_path / "a"})})
    cipher = load_spool_cipher(config.keys)
    with pytest.raises(ConfigError) as caught:
        received_spool(here, cipher)
    assert caught.value.code == "not-drained" and "1 files" in caught.value.message
    on_disk.run()
    on_disk.retainer.once()
    received_spool(here, cipher)
    moved = replica(config, tmp_path / "a")
    moved.receive(ct(2))
    moved.run()
    assert len(moved.sender.received) == 1
    assert restored(moved, ct(2).SOPInstanceUID) == encode(ct(2), EXPLICIT_LITTLE)
