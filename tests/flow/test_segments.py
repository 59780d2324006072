"""Segments: what was acknowledged is found again after every end, what was not is cut, and damage is told, not cut."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import delete

from gateway.config.models import Ingress
from gateway.database import InstanceRow, SegmentRow, reading, transaction
from gateway.errors import CapacityError, ConfigError, SealError
from gateway.flow.ports import ReceivedFacts
from gateway.flow.receive import SpoolReceiver
from gateway.flow.segments import log as segment_log
from gateway.flow.segments.file import FlushFailed, SegmentFile
from gateway.flow.segments.format import (
    FORWARDED,
    HEADER_SIZE,
    MARK_SIZE,
    Place,
    flushed_mark,
    read_record_head,
    read_segment_header,
    record,
    scan,
    segment_header,
)
from gateway.flow.segments.log import Group, SegmentLog
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.rows import RowWriter
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, ct, facts_of
from tests.support.until import until


def rows(flow: Flow) -> dict[str, InstanceRow]:
    with reading(flow.engine) as session:
        return {row.id: row for row in session.query(InstanceRow)}


@cache
def offered(number: int) -> tuple[ReceivedFacts, bytes]:
    return facts_of(ct(number)), encode(ct(number))


def offer(receiver: SpoolReceiver, number: int) -> str:
    facts, data = offered(number)
    incoming = receiver.begin(facts)
    incoming.write(data)
    return incoming.commit()


def only_segment(flow: Flow) -> Path:
    [path] = flow.context.spool.segment_paths()
    return path


@contextmanager
def held_until(receiver: SpoolReceiver, number: int, monkeypatch) -> Iterator[None]:
    """Let the flusher's first group wait until so many records have come."""
    came = threading.Semaphore(0)
    write, held = SegmentLog._write, []
    append = SegmentLog.append

    def counted(log: SegmentLog, pieces, facts) -> Place:
        came.release()
        return append(log, pieces, facts)

    def waits(log: SegmentLog, group, turn: int) -> None:
        if not held:
            held.append(True)
            for _ in range(number):
                assert came.acquire(timeout=30)
            until("the others wait", lambda: len(group) + len(log._waiting) == number)
        write(log, group, turn)

    monkeypatch.setattr(SegmentLog, "append", counted)
    monkeypatch.setattr(SegmentLog, "_write", waits)
    yield


def without_rows(flow: Flow, monkeypatch, numbers=(1, 2, 3), *, together: bool = False) -> list[str]:
    """Receive, and die before a row is written: what is acknowledged lies in one segment only."""
    with monkeypatch.context() as patched:
        patched.setattr(RowWriter, "put", lambda *_: None)
        receiver = flow.receiver()
        if together:
            found: list[str] = []
            threads = [threading.Thread(target=lambda n=n: found.append(offer(receiver, n))) for n in numbers]
            with held_until(receiver, len(numbers), patched):
                for thread in threads:
                    thread.start()
            for thread in threads:
                thread.join()
        else:
            found = [offer(receiver, number) for number in numbers]
        receiver._log.stop()
    assert rows(flow) == {}
    return found


# -- format ------------------------------------------------------------------------------------------------------------


def test_what_a_segment_is_made_of_is_read_back():
    data = segment_header("ab" * 16, FORWARDED)
    assert read_segment_header(data) == ("ab" * 16, FORWARDED)
    assert read_segment_header(data[:-1]) is None
    assert read_segment_header(b"\0" + data[1:]) is None
    pieces = record("cd" * 16, b"facts", [b"bo", memoryview(b"dy")])
    head = read_record_head(b"".join(pieces))
    assert (head.id, head.facts, head.body, head.size) == ("cd" * 16, 5, 4, len(b"".join(pieces)))
    mark = flushed_mark("ab" * 16)
    assert len(mark) == MARK_SIZE == read_record_head(mark).size


def test_a_later_version_is_not_guessed_at():
    import zlib

    data = bytearray(segment_header("ab" * 16, 0))
    data[4] = 2
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    with pytest.raises(SealError, match="version"):
        read_segment_header(bytes(data))


@pytest.mark.parametrize("name", ["", "@", "ab@1", "g" * 32 + "@1", "a" * 32, "a" * 32 + "@", "../" + "a" * 29 + "@1"])
def test_only_places_are_places(name):
    assert Place.parse(name) is None
    assert Place.parse(Place("a" * 32, 17).name) == Place("a" * 32, 17)


# -- the log -----------------------------------------------------------------------------------------------------------


def test_nobody_is_told_before_the_flush_and_the_folder_s_comes_first(flow, monkeypatch):
    done: list[str] = []
    for name in ("fsync", "fdatasync"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, name=name, call=call: (done.append(name), call(fd))[1])
    receiver = flow.receiver()
    offer(receiver, 1)
    assert done == ["fsync", "fdatasync"]  # the folder's entry of the new segment, then the record
    offer(receiver, 2)
    assert done == ["fsync", "fdatasync", "fdatasync"]
    receiver.close()


def test_one_flush_serves_all_that_wait(flow, monkeypatch):
    flushes = []
    call = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (flushes.append(fd), call(fd))[1])
    receiver = flow.receiver()
    threads = [threading.Thread(target=offer, args=(receiver, number)) for number in range(1, 21)]
    with held_until(receiver, 20, monkeypatch):
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    receiver.close()
    assert len(rows(flow)) == 20
    assert len(flushes) <= 2  # of those that the flusher took first, and of all others


def test_a_lone_record_is_written_where_it_comes_but_never_where_a_signal_may_cut_it_off(flow, monkeypatch):
    writers = []
    call = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (writers.append(threading.current_thread().name), call(fd))[1])
    receiver = flow.receiver()
    thread = threading.Thread(target=offer, args=(receiver, 1), name="association")
    thread.start()
    thread.join()
    offer(receiver, 2)  # in the main thread, as `protect` does
    receiver.close()
    assert writers == ["association", "flusher"]
    assert len(rows(flow)) == 2


def test_a_long_segment_is_closed_and_the_next_begun(flow):
    receiver = flow.receiver(segment_mib=1)
    noisy = [offer(receiver, number) for number in range(1, 300)]
    assert len(flow.context.spool.segment_paths()) > 1
    receiver.close()
    assert set(rows(flow)) == set(noisy)
    assert not any(segment.is_open for segment in flow.context.spool.segments())


def test_an_old_segment_is_closed_though_nothing_comes(flow, monkeypatch):
    monkeypatch.setattr(segment_log, "OLDEST_S", 0.2)
    receiver = flow.receiver()
    offer(receiver, 1)
    until("it is closed", lambda: not any(segment.is_open for segment in flow.context.spool.segments()))
    offer(receiver, 2)
    receiver.close()
    assert len(rows(flow)) == 2


def test_a_full_disk_refuses_what_it_has_no_room_for_and_leaves_no_part(flow, monkeypatch):
    """Simulated: the kernel takes a part and then says ENOSPC."""
    receiver = flow.receiver()
    offer(receiver, 1)
    writev, before = os.writev, only_segment(flow).stat().st_size
    calls: list[int] = []

    def full(fd, pieces):
        calls.append(fd)
        if len(calls) == 1:
            return writev(fd, [bytes(pieces[0])[:100]])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        with pytest.raises(CapacityError) as caught:
            offer(receiver, 2)
    assert caught.value.code == "disk-full"
    assert only_segment(flow).stat().st_size == before
    offer(receiver, 3)
    receiver.close()
    assert len(rows(flow)) == 2
    assert take_over(flow.context.spool, flow.store) == 0


def test_a_flush_that_fails_is_final(flow, monkeypatch):
    """A second one might succeed and lie, so nothing more is taken, and the process is told to begin anew."""
    failed = threading.Event()
    receiver = SpoolReceiver(
        Ingress(min_free_mib=0), flow.config.routes, flow.context.spool, flow.store, failed=failed.set
    )
    kept = offer(receiver, 1)

    def fails(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(CapacityError) as caught:
            offer(receiver, 2)
    assert caught.value.code == "flush-failed"
    assert failed.wait(50) and receiver.failed
    for again in (lambda: offer(receiver, 3), lambda: receiver.admit("RELAY", "ARCHIVE", "1.2")):
        with pytest.raises(CapacityError) as caught:
            again()
        assert caught.value.code == "flush-failed"
    receiver.close()
    assert take_over(flow.context.spool, flow.store) == 0
    assert set(rows(flow)) == {kept}


def test_after_the_end_nothing_is_taken(flow):
    receiver = flow.receiver()
    receiver.close()
    with pytest.raises(CapacityError) as caught:
        offer(receiver, 1)
    assert caught.value.code == "stopping"


def test_rows_that_cannot_be_written_wait_and_come_in_order(flow, monkeypatch):
    original, calls = flow.store.add_received, []

    def away(groups):
        calls.append(groups)
        if len(calls) < 4:
            raise RuntimeError("database away")
        original(groups)

    monkeypatch.setattr(flow.store, "add_received", away)
    receiver = flow.receiver()
    first = offer(receiver, 1)
    until("the database was away", lambda: receiver._rows._error)
    with pytest.raises(CapacityError) as caught:
        receiver.admit("RELAY", "ARCHIVE", "1.2")
    assert caught.value.code == "rows-behind"
    second = offer(receiver, 2)  # of an association that had been told to go on
    receiver.settle()
    receiver.admit("RELAY", "ARCHIVE", "1.2")
    receiver.close()
    assert set(rows(flow)) == {first, second}


# -- after the end of a process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
def test_what_was_acknowledged_before_its_row_was_written_gets_it_at_the_next_start(flow, monkeypatch, together):
    ids = without_rows(flow, monkeypatch, together=together)
    assert take_over(flow.context.spool, flow.store) == 3
    found = rows(flow)
    assert set(found) == set(ids)
    assert {row.sop_instance_uid for row in found.values()} == {str(ct(n).SOPInstanceUID) for n in (1, 2, 3)}
    assert take_over(flow.context.spool, flow.store) == 0
    flow.run()
    assert {row.state for row in rows(flow).values()} == {"delivered"}


def test_rows_that_were_written_are_not_written_again_though_their_instances_are_gone(flow):
    """Purged rows do not rise again: the segment's own row says how far it is told of."""
    flow.receive(ct(1))
    with reading(flow.engine) as session:
        session.query(InstanceRow).delete()
        session.commit()
    assert take_over(flow.context.spool, flow.store) == 0
    assert rows(flow) == {}


def test_segments_are_told_of_in_the_order_they_were_written(flow, monkeypatch):
    """A database of yesterday: of two versions of one object the newer must not become the older."""
    for number in (1, 2, 3):
        offer(receiver := flow.receiver(), number)
        receiver.close()
    with transaction(flow.engine) as session:
        session.execute(delete(InstanceRow))
        session.execute(delete(SegmentRow))
    paths = flow.context.spool.segment_paths()
    wanted = [paths[1], paths[2], paths[0]]
    for age, path in enumerate(reversed(wanted)):
        os.utime(path, (1e9 - age, 1e9 - age))
    told, add = [], flow.store.add_received
    monkeypatch.setattr(flow.store, "add_received", lambda groups: (told.extend(groups), add(groups)))
    assert take_over(flow.context.spool, flow.store) == 3
    assert [group.segment for group in told] == [path.stem for path in wanted]


def test_a_segment_of_a_living_process_is_left_alone(flow, monkeypatch):
    without_rows(flow, monkeypatch)
    with only_segment(flow).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert take_over(flow.context.spool, flow.store) == 0
    assert take_over(flow.context.spool, flow.store) == 3


def test_a_torn_end_is_cut_at_the_last_whole_record(flow, monkeypatch):
    ids = without_rows(flow, monkeypatch, numbers=(1, 2))
    path = only_segment(flow)
    whole = path.read_bytes()
    torn = b"".join(record("ef" * 16, b"facts", [b"body" * 1000]))
    rng = random.Random(5)
    for cut in (1, 3, 39, 40, 50, 1000, len(torn) - 1):
        for tail in (torn[:cut], bytes(cut), rng.randbytes(cut), torn[:-1] + b"\0" if torn[-1] else torn[:-1] + b"\1"):
            path.write_bytes(whole + tail)
            take_over(flow.context.spool, flow.store)
            assert path.read_bytes() == whole
    assert set(rows(flow)) == set(ids)


def test_whatever_of_an_unflushed_group_reached_the_disk_all_that_was_told_is_found(flow, monkeypatch):
    """Power loss: of the last group, which nobody was told of, any pages may be there in any order."""
    ids = without_rows(flow, monkeypatch, numbers=(1, 2))
    path = only_segment(flow)
    whole = path.read_bytes()
    group = b"".join(b"".join(record(f"{n:032x}", b"f" * 100, [bytes([n]) * 9000])) for n in range(4))
    rng = random.Random(7)
    for _ in range(60):
        pages = [group[at : at + 4096] if rng.random() < 0.5 else bytes(4096) for at in range(0, len(group), 4096)]
        path.write_bytes(whole + b"".join(pages)[: rng.randrange(len(group) + 1)])
        with monkeypatch.context() as patched:
            patched.setattr(flow.context.spool, "open_facts", _real_or_made(flow.context.spool.open_facts))
            take_over(flow.context.spool, flow.store)
        found = rows(flow)
        assert set(ids) <= set(found)
        with reading(flow.engine) as session:
            session.query(InstanceRow).delete()
            session.connection().exec_driver_sql("DELETE FROM spool_segment")
            session.commit()


def _real_or_made(open_facts):
    """What was received here is opened; the group that was made up above says what `_facts` says."""

    def opened(sealed: bytes, name: str) -> dict:
        return _facts(name) if sealed == b"f" * 100 else open_facts(sealed, name)

    return opened


def _facts(name: str) -> dict:
    return {"id": name, "route": "relay", "received_at": 0.0, "size": 1, "sha256": "", "file": None} | asdict(
        facts_of(ct())
    )


def test_a_mark_of_another_segment_behind_a_torn_end_is_no_damage(flow, monkeypatch):
    """After a power cut a disk may show there what a deleted segment had."""
    ids = without_rows(flow, monkeypatch, numbers=(1, 2))
    path = only_segment(flow)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(500) + flushed_mark("ab" * 16) + bytes(10))
    assert take_over(flow.context.spool, flow.store) == 2
    assert path.read_bytes() == whole and set(rows(flow)) == set(ids)


@pytest.mark.parametrize("where", ["head", "facts", "body", "checksum"])
@pytest.mark.parametrize("together", [False, True])
def test_damage_before_what_was_flushed_stops_the_role_and_nothing_is_cut(flow, monkeypatch, where, together):
    without_rows(flow, monkeypatch, together=together)
    path = only_segment(flow)
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        steps = [step for step in scan(file, path.stem, HEADER_SIZE, len(data)) if step.kind == "instance"]
    second = steps[1]
    at = {"head": 0, "facts": 45, "body": second.head.size - 100, "checksum": second.head.size - 1}[where]
    data[second.offset + at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        take_over(flow.context.spool, flow.store)
    assert caught.value.code == "segment-damaged" and path.stem in caught.value.message
    assert path.read_bytes() == data
    assert rows(flow) == {}


def test_a_segment_that_ends_before_what_its_rows_name_stops_the_role(flow):
    flow.receive(ct(1))
    path = only_segment(flow)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(ConfigError) as caught:
        take_over(flow.context.spool, flow.store)
    assert caught.value.code == "segment-damaged"


def test_a_header_that_never_reached_the_disk_is_no_damage_and_one_that_changed_is(flow, monkeypatch):
    empty = flow.context.spool.folder / ("aa" * 16 + ".segment")
    for content in (b"", bytes(20), bytes(9000)):
        empty.write_bytes(content)
        assert take_over(flow.context.spool, flow.store) == 0
        assert empty.read_bytes() == b"" or len(content) <= HEADER_SIZE
    without_rows(flow, monkeypatch)
    [path] = [path for path in flow.context.spool.segment_paths() if path != empty]
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(ConfigError):
        take_over(flow.context.spool, flow.store)


def test_the_wrong_key_stops_the_role_and_nothing_is_cut(flow, monkeypatch):
    without_rows(flow, monkeypatch)
    before = only_segment(flow).read_bytes()

    def wrong(sealed, name):
        raise SealError("tampered", "another key")

    monkeypatch.setattr(flow.context.spool, "open_facts", wrong)
    with pytest.raises(ConfigError):
        take_over(flow.context.spool, flow.store)
    assert only_segment(flow).read_bytes() == before


def test_records_of_one_group_are_told_of_in_one_transaction_each(flow):
    places = [Place("ab" * 16, offset) for offset in (32, 500)]
    known = [_facts("1" * 32), _facts("2" * 32)]
    group = Group("ab" * 16, 900, list(zip(places, known, strict=True)))
    flow.store.add_received([group])
    flow.store.add_received([group])
    assert len(rows(flow)) == 2
    assert flow.store.rows_until("ab" * 16) == 900
    assert flow.store.places_in("ab" * 16) == places


# -- one file ----------------------------------------------------------------------------------------------------------


def test_nothing_plain_lies_in_a_segment_and_no_other_user_reads_it(flow):
    flow.receive(ct(1, PatientName="Doe^Jane"))
    path = only_segment(flow)
    data = path.read_bytes()
    for word in (b"Doe^Jane", b"ARCHIVE", b"127.0.0.1", str(ct().SOPInstanceUID).encode()):
        assert word not in data
    assert path.stat().st_mode & 0o137 == 0


def test_a_segment_is_locked_while_it_is_written(tmp_path):
    segment = SegmentFile(tmp_path)
    with (tmp_path / f"{segment.id}.segment").open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segment.close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_cut_after_a_failed_write_ends_the_segment(tmp_path, monkeypatch):
    segment = SegmentFile(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", full)
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(FlushFailed):
        segment.append([[b"x"]])


def test_rows_of_a_stream_share_transactions_and_a_lone_one_waits_for_none(monkeypatch):
    monkeypatch.setattr("gateway.flow.segments.rows.GATHER_S", 3.0)  # longer than ten calls take on any machine
    monkeypatch.setattr("gateway.flow.segments.rows.LONGEST_GATHER_S", 60.0)
    taken: list[list[str]] = []
    writer = RowWriter(lambda groups: taken.append([group.segment for group in groups]))
    writer.put(Group("alone", 1, []))
    assert writer.settle(30)
    for number in range(10):
        writer.put(Group(str(number), 1, []))
    assert writer.settle(30)
    writer.stop()
    assert taken == [["alone"], [str(number) for number in range(10)]]


def test_a_stream_that_does_not_end_has_its_rows_all_the_same(monkeypatch):
    monkeypatch.setattr("gateway.flow.segments.rows.GATHER_S", 60.0)
    monkeypatch.setattr("gateway.flow.segments.rows.LONGEST_GATHER_S", 0.2)
    writer = RowWriter(lambda groups: None)
    for number in range(2):
        writer.put(Group(str(number), 1, []))
        assert writer.settle(30)
    writer.stop()
