"""A database that is full, read-only, or gone is what a full disk is: refused for now, waited for, nothing lost."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from gateway.config.models import Worker
from gateway.database import InstanceRow, open_database, reading, sqlite_url, transaction
from gateway.errors import CapacityError
from gateway.flow.faults import Repeated, as_waiting
from gateway.flow.store import FlowStore, lease_owner
from gateway.flow.worker import FlowWorker
from tests.support.dicom.samples import encode
from tests.support.flow import add_row, ct, facts_of


@contextmanager
def full(engine) -> Iterator[None]:
    """SQLite itself says "database or disk is full" to every write that wants room."""

    def no_more_pages(connection, _record, _proxy) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # it never goes below what there is

    event.listen(engine, "checkout", no_more_pages)
    try:
        yield
    finally:
        event.remove(engine, "checkout", no_more_pages)
        event.listen(engine, "checkout", lambda c, *_: c.execute("PRAGMA max_page_count = 1073741823"))


def test_what_was_acknowledged_gets_its_rows_later_and_the_archive_is_told_to_come_again(flow):
    receiver = flow.receiver()

    def offer(number: int) -> None:
        receiver.admit("RELAY", "ARCHIVE", "1.2")
        incoming = receiver.begin(facts_of(ct(number)))
        incoming.write(encode(ct(number)))
        incoming.commit()

    taken = 0
    with full(flow.engine):
        with pytest.raises(CapacityError) as caught:
            for number in range(1, 500):
                offer(number)
                taken += 1
                time.sleep(0.01)
        assert caught.value.code == "database-full"
    assert taken  # the first were safe before the database was known to be full
    receiver.settle()
    offer(999)  # there is room again
    receiver.close()
    with reading(flow.engine) as session:
        assert session.query(InstanceRow).count() == taken + 1 == len(flow.spooled())


def test_the_worker_waits_and_goes_on_where_it_was(flow):
    instance_id = flow.receive(ct())
    worker = FlowWorker(
        Worker(device="cpu"), flow.config.destinations[:1], flow.store, flow.steps, flow.sender, flow.retainer
    )
    with full(flow.engine):
        with pytest.raises(CapacityError) as caught:
            for number in range(500):  # until the rows that sealing adds find no page
                add_row(flow.store, number)
        assert caught.value.code == "database-full"
        for _ in range(50):
            try:
                worker.seal_once()
            except CapacityError:
                break
    with transaction(flow.engine) as session:
        session.query(InstanceRow).filter(InstanceRow.id != instance_id).delete()
    flow.store.end_leases()
    while worker.seal_once() or worker.mark_once() or worker.deliver_once(flow.config.destinations[0]):
        with transaction(flow.engine) as session:
            session.query(InstanceRow).update({"next_attempt_at": 0.0})
    row = flow.row(instance_id)
    assert (row.state, row.deaths) == ("delivered", 0)
    with reading(flow.engine) as session:
        assert {state for (state,) in session.query(InstanceRow.state)} == {"delivered"}


def test_read_only_is_no_fault_of_the_instance(tmp_path):
    engine = open_database(sqlite_url(tmp_path / "a.sqlite"))
    event.listen(engine, "checkout", lambda connection, *_: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(CapacityError) as caught:
        add_row(FlowStore(engine, lease_owner()))
    assert caught.value.code == "database-read-only"
    engine.dispose()


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("53100", "database-full"),
        ("25006", "database-read-only"),
        ("57P01", "database-unreachable"),
        ("58030", "database-unreachable"),
        ("40001", "database-locked"),
        ("40P01", "database-locked"),
    ],
)
def test_what_postgresql_says(postgresql_url, sqlstate, code):
    engine = open_database(postgresql_url)
    with pytest.raises(CapacityError) as caught, transaction(engine) as session:
        session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'Doe^Jane' USING ERRCODE = '{sqlstate}'; END $$"))
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)
    engine.dispose()


def test_a_connection_that_is_cut_is_waited_for(postgresql_url):
    engine = open_database(postgresql_url)
    with pytest.raises(CapacityError) as caught, transaction(engine) as session:
        own = session.scalar(text("SELECT pg_backend_pid()"))
        with engine.begin() as other:
            other.execute(text(f"SELECT pg_terminate_backend({own})"))
        for _ in range(100):
            session.execute(text("SELECT pg_sleep(0.05)"))
    assert caught.value.code == "database-unreachable"
    engine.dispose()


def test_an_answer_that_was_lost_at_the_commit_makes_no_second_row(flow, monkeypatch):
    original, calls = FlowStore.add_received, []

    def lost(*args):
        original(*args)
        calls.append(args)
        if len(calls) == 1:
            raise CapacityError("database-unreachable", "the connection to the database is lost")

    monkeypatch.setattr(FlowStore, "add_received", lost)
    instance_id = flow.receive(ct())
    assert len(calls) == 2
    assert flow.spooled() == [flow.row(instance_id).spool_file]
    flow.run()
    assert len(flow.sender.received) == 1


def test_a_wrong_statement_is_still_a_fault(flow):
    with pytest.raises(Exception, match="no such table"), transaction(flow.engine) as session:
        session.execute(text("SELECT * FROM nowhere"))


# -- other full disks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EROFS, "disk-error"),
        (errno.EIO, "disk-error"),
    ],
)
def test_a_disk_that_takes_nothing_holds_nothing_however_long_it_lasts(flow, monkeypatch, number, code):
    instance_id = flow.receive(ct())
    flow.seal()
    with monkeypatch.context() as patched:

        def no_room(*_args, **_kwargs):
            raise OSError(number, "words")

        patched.setattr(flow.context.derived, "create", no_room)
        for _ in range(7):
            flow.mark()
            assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("sealed", code)
            with transaction(flow.engine) as session:
                session.query(InstanceRow).update({"next_attempt_at": 0.0})
    flow.run()
    assert flow.row(instance_id).state == "delivered"


def test_other_errors_are_not_waited_for():
    assert as_waiting(OSError(2, "no such file")) is None
    assert as_waiting(ValueError()) is None
    assert as_waiting(io.UnsupportedOperation()) is None


def test_a_flood_of_the_same_failure_is_told_at_first_and_now_and_then(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("gateway.flow.faults.time.monotonic", lambda: now[0])
    repeated = Repeated(again_s=300)
    told = []
    for _ in range(1000):
        told.append(repeated.again("outside", "unreachable"))
        now[0] += 1
    assert [count for count in told if count] == [1, 301, 601, 901]
    assert repeated.again("outside", "certificate-expired") == 1
    assert repeated.again("second", "unreachable") == 1
    repeated.over("outside")
    assert repeated.again("outside", "certificate-expired") == 1
