"""Every call that receiving makes may fail: nobody waits without end, nothing acknowledged is lost, nothing is left."""

from __future__ import annotations

import errno
import io
import os
import threading
from functools import partial

import pytest

from gateway.config.models import Ingress
from gateway.database import InstanceRow, reading
from gateway.errors import CapacityError
from gateway.flow import receive
from gateway.flow.receive import SpoolReceiver
from gateway.flow.segments.file import SegmentFile
from gateway.flow.segments.log import Group, SegmentLog
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.rows import RowWriter
from gateway.flow.spool import NewFile
from tests.flow.test_segments import offer, offered, rows
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, ct, facts_of

CALLS = ("open", "writev", "ftruncate", "fdatasync", "fsync", "fstat", "rename", "close")


class Faulty:
    """Lets the n-th of this process's calls fail, and all after it of the same name if the fault lasts."""

    def __init__(self, at: int, number: int, lasts: bool) -> None:
        self.calls = 0
        self._at, self._number, self._lasts = at, number, lasts
        self._failing = ""

    def watch(self, monkeypatch) -> None:
        for name in CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, call):
        def watched(*args, **kwargs):
            if threading.current_thread().name not in ("flusher", "sender"):
                return call(*args, **kwargs)
            self.calls += 1
            if self.calls == self._at:
                self._failing = name
            if self._failing == name:
                if not self._lasts:
                    self._failing = ""
                if name == "close":
                    call(*args)
                raise OSError(self._number, os.strerror(self._number))
            return call(*args, **kwargs)

        return watched


def sent(receiver: SpoolReceiver, numbers) -> list[str]:
    """Instances that were acknowledged; what is refused is offered once more, as archives do."""
    acknowledged: list[str] = []

    def send() -> None:
        for number in numbers:
            for _ in range(2):
                try:
                    acknowledged.append(offer(receiver, number))
                    break
                except CapacityError:
                    continue

    thread = threading.Thread(target=send, name="sender", daemon=True)
    thread.start()
    thread.join(50)
    assert not thread.is_alive(), "somebody waits without end"
    return acknowledged


def attack(flow: Flow, monkeypatch, at: int, number: int, lasts: bool) -> int:
    faulty = Faulty(at, number, lasts)
    failed = threading.Event()
    settings = Ingress(min_free_mib=0)
    with monkeypatch.context() as patched:
        faulty.watch(patched)
        receiver = SpoolReceiver(settings, flow.config.routes, flow.context.spool, flow.store, failed=failed.set)
        receiver._log._segment_bytes = 20_000
        acknowledged = sent(receiver, range(1, 7))
        receiver.close()
    assert receiver.failed == failed.is_set()
    if not lasts and not receiver.failed:
        assert len(acknowledged) == 6  # the second time at the latest
    assert receiver.memory.take(receive.IN_MEMORY)  # all was given back
    take_over(flow.context.spool, flow.store)
    found = rows(flow)
    assert set(acknowledged) <= set(found)
    for row in found.values():
        if row.spool_file:
            with flow.context.spool.open(row.spool_file) as file:
                assert file.read() == offered(int(row.sop_instance_uid.rpartition(".")[2]))[1]
    with reading(flow.engine) as session:
        session.query(InstanceRow).delete()
        session.connection().exec_driver_sql("DELETE FROM spool_segment")
        session.commit()
    for path in flow.context.spool.folder.iterdir():
        path.unlink()
    return faulty.calls


@pytest.mark.full
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EROFS])
@pytest.mark.parametrize("lasts", [False, True])
def test_each_call_fails_in_its_turn(flow, monkeypatch, number, lasts, large):
    if large:
        monkeypatch.setattr("gateway.flow.segments.body.LARGE", 0)
    calls = attack(flow, monkeypatch, 0, number, lasts)
    assert calls > 20
    for at in range(1, calls + 1):
        attack(flow, monkeypatch, at, number, lasts)


@pytest.mark.parametrize("at", [2, 5, 7])
def test_a_call_fails(flow, monkeypatch, at):
    attack(flow, monkeypatch, at, errno.EIO, lasts=True)


@pytest.mark.parametrize("what", ["writev", "fdatasync"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
def test_what_nobody_thought_of_ends_the_role_and_leaves_nobody_waiting(flow, monkeypatch, what):
    failed = threading.Event()

    def tell() -> None:
        failed.set()
        raise RuntimeError

    receiver = SpoolReceiver(Ingress(min_free_mib=0), flow.config.routes, flow.context.spool, flow.store, failed=tell)

    def breaks(*_):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(os, what, breaks)
        assert sent(receiver, [1, 2]) == []
    assert failed.wait(50) and receiver.failed
    receiver.roll()
    receiver.close()
    receiver.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
def test_who_waits_for_a_segment_to_close_is_told_when_the_flusher_dies(tmp_path, monkeypatch):
    """Found in CI: `roll` between a failed flush and the end of its thread waited for ever."""
    told, rolling = threading.Event(), threading.Event()

    def tell() -> None:  # the flusher is alive until someone waits for it, then it dies
        told.set()
        assert rolling.wait(50)
        raise RuntimeError

    def breaks(*_):
        raise MemoryError

    segments = SegmentLog(partial(SegmentFile, tmp_path), 1 << 20, lambda group: None, tell)
    monkeypatch.setattr(os, "fdatasync", breaks)

    def append() -> None:
        with pytest.raises(CapacityError):
            segments.append([b"record"], {})

    appending = threading.Thread(target=append)
    appending.start()
    assert told.wait(50)
    wait = segments._changed.wait_for

    def waits(*arguments, **keywords):
        rolling.set()
        return wait(*arguments, **keywords)

    monkeypatch.setattr(segments._changed, "wait_for", waits)
    roll = threading.Thread(target=segments.roll, daemon=True)
    roll.start()
    roll.join(50)
    assert not roll.is_alive() and segments.failed
    appending.join(50)
    assert not appending.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
def test_a_role_is_told_to_begin_anew_though_nothing_else_goes_well(tmp_path, monkeypatch):
    """What is done on the way, the log's line and the closing, may fail as well: the role would refuse for ever."""
    told = threading.Event()
    segments = SegmentLog(tmp_path, 1 << 20, lambda group: None, told.set)

    def breaks(*_):
        raise MemoryError

    monkeypatch.setattr(os, "fdatasync", breaks)
    monkeypatch.setattr("gateway.flow.segments.file.SegmentFile.close", breaks)
    with pytest.raises(CapacityError) as caught:
        segments.append([b"record"], {})
    assert caught.value.code == "flush-failed"
    assert told.wait(50)
    segments.roll()
    segments.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it dies on purpose
def test_who_waits_for_rows_is_told_when_nobody_writes_them_any_more(monkeypatch):
    """The thread dies of what is no error of the database: nobody waits for it, and nothing more is taken."""

    def breaks(*_, **__):
        raise MemoryError

    rows_written = RowWriter(breaks)
    monkeypatch.setattr("gateway.flow.segments.rows.log.error", breaks)
    rows_written.put(Group("ab" * 16, 100, []))
    assert not rows_written.settle()
    with pytest.raises(CapacityError) as caught:
        rows_written.check()
    assert caught.value.code == "rows-behind" and "restart" in caught.value.hint
    rows_written.stop()


def test_a_flusher_that_is_gone_is_told_of(flow, monkeypatch):
    receiver = flow.receiver()
    monkeypatch.setattr(receiver._log, "_take", lambda: 1 / 0)
    receiver._log.roll()
    assert sent(receiver, [1]) == []
    assert receiver.failed
    receiver.close()


def test_a_part_of_a_file_goes_though_the_disk_is_full(tmp_path):
    """Closing writes what is left in the buffer, and cannot."""
    file = NewFile(tmp_path, "ab")
    file.write(b"x" * 100)
    full = open("/dev/full", "wb")  # noqa: SIM115 - NewFile closes it
    full.write(b"x" * 100)
    file._file.close()
    file._file = full
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_rows_is_told_when_the_database_is_full(flow, monkeypatch):
    """`protect` on a full disk: it used to wait for ever."""
    is_full, write = threading.Event(), flow.store.add_received
    is_full.set()

    def add_received(groups):
        if is_full.is_set():
            raise CapacityError("database-full", "no room")
        return write(groups)

    monkeypatch.setattr(receive, "LONGEST_WAIT_S", 0.5)
    monkeypatch.setattr(flow.store, "add_received", add_received)
    receiver = flow.receiver()
    incoming = receiver.begin(facts_of(ct()))
    incoming.write(io.BytesIO(encode(ct())).read())
    incoming.commit()
    caught: list[Exception] = []

    def roll() -> None:
        try:
            receiver.roll()
        except CapacityError as error:
            caught.append(error)

    thread = threading.Thread(target=roll, daemon=True)
    thread.start()
    thread.join(50)
    assert [error.code for error in caught] == ["database-full"]
    is_full.clear()  # closing waits until the rows are written, and no thread of this test lives longer than it
    receiver.close()
