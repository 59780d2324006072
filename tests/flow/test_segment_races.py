"""Others are at work on the folder at the same moment, or have left odd things in it: nothing acknowledged goes."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time

import pytest

from gateway.errors import CapacityError, ConfigError
from gateway.flow.segments.file import FlushFailed, SegmentFile
from gateway.flow.segments.reclaim import Reclaimer
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.rows import RowWriter
from tests.flow.test_reclaim import LATER, deliver_all_but, received, segments
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, ct


def unwritten_rows(flow: Flow, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(RowWriter, "put", lambda *_: None)
        received(flow, 2)


def test_two_workers_reclaim_and_one_copies_forward_meanwhile(flow, monkeypatch):
    """Before its rows name it, a copy looks as if nobody needed it."""
    received(flow, 6)
    deliver_all_but(flow, 4)
    moved = flow.store.moved

    def slow(names):
        Reclaimer(flow.context.spool, flow.store).once()
        moved(names)

    monkeypatch.setattr(flow.store, "moved", slow)
    Reclaimer(flow.context.spool, flow.store).once(time.time() + LATER)
    [place] = [place for name in segments(flow) for place in flow.store.places_in(name)]
    with flow.context.spool.open(place.name) as file:
        assert file.read() == encode(ct(4))


def test_who_only_looks_at_a_segment_does_not_keep_it_from_being_replayed(flow, monkeypatch):
    """The worker asks whether a segment is locked by locking it for a moment."""
    unwritten_rows(flow, monkeypatch)
    [path] = flow.context.spool.segment_paths()
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        assert take_over(flow.context.spool, flow.store) == 2


def test_who_only_looks_at_a_new_segment_refuses_nobody(tmp_path, monkeypatch):
    opened = os.open
    looking = []

    def watched(path, *args, **kwargs):
        descriptor = opened(path, *args, **kwargs)
        if str(path).endswith(".segment") and not looking:
            looking.append(opened(path, os.O_RDONLY))
            fcntl.flock(looking[0], fcntl.LOCK_SH)
            threading.Timer(0.2, os.close, looking).start()
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    SegmentFile(tmp_path).close()
    assert looking


def test_files_of_a_segment_whose_header_was_damaged_are_not_swept(flow, monkeypatch):
    """The role does not start until a person has looked; till then the worker must not take its large objects."""
    monkeypatch.setattr("gateway.flow.segments.body.LARGE", 0)
    unwritten_rows(flow, monkeypatch)
    [path] = flow.context.spool.segment_paths()
    whole = path.read_bytes()
    path.write_bytes(b"\1" + whole[1:])
    with pytest.raises(ConfigError):
        take_over(flow.context.spool, flow.store)
    for file in flow.context.spool.folder.iterdir():
        os.utime(file, (1, 1))
    flow.retainer.once()
    path.write_bytes(whole)
    assert take_over(flow.context.spool, flow.store) == 2
    flow.run()
    assert len(flow.sender.received) == 2


def test_a_clock_that_jumped_does_not_take_a_segment_that_is_begun(flow, monkeypatch):
    """Between its name and its header it is empty: it must not pass for what a kill left an hour ago."""
    begun = flow.context.spool.folder / ("ab" * 16 + ".segment")
    with begun.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Reclaimer(flow.context.spool, flow.store).once(time.time() + LATER)
        assert begun.exists()
    Reclaimer(flow.context.spool, flow.store).once(time.time() + LATER)
    assert not begun.exists()


def test_nothing_is_acknowledged_into_a_segment_that_was_deleted(flow):
    """`rm -r` on the spool of a running role: the kernel would still take every byte and every flush."""
    receiver = flow.receiver()
    shutil.rmtree(flow.context.spool.folder)
    flow.context.spool.folder.mkdir()
    from tests.flow.test_segments import offer

    offer(receiver, 1)
    for path in flow.context.spool.segment_paths():
        path.unlink()
    with pytest.raises(CapacityError) as caught:
        offer(receiver, 2)
    assert caught.value.code == "flush-failed" and receiver.failed
    receiver.close()


def test_a_deleted_segment_s_flush_fails(tmp_path):
    segment = SegmentFile(tmp_path)
    segment.append([[b"x"]])
    (tmp_path / f"{segment.id}.segment").unlink()
    with pytest.raises(FlushFailed):
        segment.append([[b"x"]])
    segment.close()


def test_what_is_no_segment_is_left_alone(flow, monkeypatch):
    """A FIFO would be waited for without end, a folder would stop every pass of retention."""
    unwritten_rows(flow, monkeypatch)
    folder = flow.context.spool.folder
    os.mkfifo(folder / ("ab" * 16 + ".segment"))
    (folder / ("cd" * 16 + ".segment")).mkdir()
    (folder / ("ef" * 16 + ".segment")).symlink_to("/dev/zero")
    (folder / "notes.segment").write_bytes(bytes(100))
    assert take_over(flow.context.spool, flow.store) == 2
    flow.run()
    assert Reclaimer(flow.context.spool, flow.store).once(time.time() + LATER) == 1
    assert len(list(folder.glob("*.segment"))) == 4


def test_a_copy_of_a_segment_beside_it_stops_the_role(flow, monkeypatch):
    """All in it would be delivered again."""
    received(flow, 2)
    [path] = flow.context.spool.segment_paths()
    shutil.copy(path, path.with_name("ab" * 16 + ".segment"))
    with pytest.raises(ConfigError) as caught:
        take_over(flow.context.spool, flow.store)
    assert caught.value.code == "segment-damaged"
    flow.run()
    Reclaimer(flow.context.spool, flow.store).once()
    assert len(flow.sender.received) == 2 and path.with_name("ab" * 16 + ".segment").exists()


def test_rows_that_are_there_though_their_segment_is_not_told_of_are_not_written_twice(flow):
    received(flow, 2)
    for name in segments(flow):
        flow.store.forget_segment(name)
    take_over(flow.context.spool, flow.store)
    flow.run()
    assert len(flow.sender.received) == 2
