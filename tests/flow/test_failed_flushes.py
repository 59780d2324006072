"""After a flush that failed, a second one may succeed and lie: the kernel drops what it could not write (EIO).

So what was not flushed is never called durable because it is there: it gets a file and an entry of its own, and flushes
of these. Segments are tested in `test_segments.py`, payloads in `tests/vault`, the audit in `tests/audit`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.database import InstanceRow, transaction
from gateway.errors import CapacityError
from gateway.flow.segments.reclaim import Reclaimer
from gateway.flow.segments.recovery import take_over
from tests.flow.test_segments import offer
from tests.support.flow import Flow, ct


class Flushes:
    """Watches `os.fsync` and `os.fdatasync`: those of one folder, or of the files in it, fail while `failing`."""

    def __init__(self, monkeypatch, folder: Path, of: str) -> None:
        self.failing = True
        self.done: list[Path] = []
        self._folder, self._of = folder, of
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def _watched(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def watched(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if self.failing and (path if self._of == "folder" else path.parent) == self._folder:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            call(descriptor)
            self.done.append(path)

        return watched


def again_now(flow: Flow) -> None:
    with transaction(flow.engine) as session:
        session.query(InstanceRow).update({"next_attempt_at": 0.0})


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_payload_waits_with_a_code_of_its_own_and_is_flushed_anew(flow, monkeypatch, of):
    one = flow.receive(ct())
    vault = flow.config.site.state / "vault"
    flushes = Flushes(monkeypatch, vault, of)
    for _ in range(7):
        flow.seal()
        assert (flow.row(one).state, flow.row(one).reason_code) == ("received", "disk-error")
        again_now(flow)
    flushes.failing = False
    before = {path.name: path.stat().st_ino for path in vault.iterdir()}
    kept = [path.open("rb") for path in vault.iterdir()]  # so that no inode's number is given anew
    flow.run()
    [payload] = vault.iterdir()
    assert flow.row(one).state == "delivered" and payload.stat().st_ino != before.get(payload.name)
    assert vault in flushes.done and any(path.parent == vault for path in flushes.done)
    for file in kept:
        file.close()


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_derived_file_whose_flush_failed_does_not_stay_under_its_name(flow, monkeypatch, of):
    one = flow.receive(ct())
    flow.seal()
    flushes = Flushes(monkeypatch, flow.context.derived.folder, of)
    for _ in range(2):
        flow.mark()
        assert (flow.row(one).state, flow.row(one).reason_code) == ("sealed", "disk-error")
        assert flow.derived() == []
        again_now(flow)
    flushes.failing = False
    flow.run()
    assert flow.row(one).state == "delivered" and len(flow.sender.byte_strings()) == 1
    assert flow.context.derived.folder in flushes.done


def test_a_derived_file_that_no_record_names_yet_is_written_anew(flow, monkeypatch):
    """Of a process that was killed between its name and the flush of the folder."""
    folder = flow.context.derived.folder
    one = flow.receive(ct())
    flow.seal()

    def killed(*_args: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(flow.context.protector, "fix_derived", killed)
        flow.mark()
    [name] = flow.derived()
    left = (folder / name).open("rb")  # so that its inode's number is not given anew
    flushes = Flushes(monkeypatch, folder, "folder")
    flushes.failing = False
    again = flow.again()
    again.run()
    assert again.derived() == [name] and folder in flushes.done
    assert (folder / name).stat().st_ino != os.fstat(left.fileno()).st_ino
    assert again.row(one).state == "delivered"
    left.close()


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_large_data_set_whose_flush_failed_is_refused_and_leaves_nothing(flow, monkeypatch, of):
    monkeypatch.setattr("gateway.flow.segments.body.LARGE", 0)
    receiver = flow.receiver()
    flushes = Flushes(monkeypatch, flow.context.spool.folder, of)
    with pytest.raises(CapacityError) as caught:
        offer(receiver, 1)
    assert caught.value.code == "spool-unwritable" and caught.value.hint
    assert list(flow.context.spool.names(0)) == []
    flushes.failing = False
    one = offer(receiver, 1)
    receiver.close()
    flow.run()
    assert flow.row(one).state == "delivered"


def test_a_segment_that_is_gone_is_forgotten_once_the_folder_was_flushed(flow, monkeypatch):
    """One that a power cut brings back would be replayed, if nothing were known of it any more."""
    flow.receive(ct())
    flow.run()
    flushes = Flushes(monkeypatch, flow.context.spool.folder, "folder")
    reclaimer = Reclaimer(flow.context.spool, flow.store)
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            reclaimer.once()
        assert len(flow.store.told_segments()) == 1 and flow.context.spool.segment_paths() == []
    flushes.failing = False
    reclaimer.once()
    assert flow.store.told_segments() == [] and flow.context.spool.folder in flushes.done


def test_a_start_whose_flush_failed_leaves_the_next_one_to_read_the_disk_itself(flow, monkeypatch):
    """A killed process had written the tail: rows come when it is flushed, and not from what the kernel only kept."""
    with monkeypatch.context() as patched:
        patched.setattr("gateway.flow.segments.rows.RowWriter.put", lambda *_: None)
        receiver = flow.receiver()
        one = offer(receiver, 1)
        receiver.close()
    forgotten: list[tuple[Path, int]] = []
    forget = os.posix_fadvise

    def watched(descriptor: int, offset: int, length: int, advice: int) -> None:
        forgotten.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")), advice))
        forget(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    flushes = Flushes(monkeypatch, flow.context.spool.folder, "file")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        take_over(flow.context.spool, flow.store)
    [segment] = flow.context.spool.segment_paths()
    assert forgotten == [(segment, os.POSIX_FADV_DONTNEED)] and flow.row(one) is None
    flushes.failing = False
    assert take_over(flow.context.spool, flow.store) == 1
    assert flow.row(one).state == "received"
