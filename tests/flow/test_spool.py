"""The spool: whole files or none, bound to their names, unreadable without the key, swept after a crash."""

from __future__ import annotations

import hashlib
import os
import stat
import time

import pytest

from gateway.errors import SealError
from gateway.flow.spool import PARTIAL, Contents, Spool
from gateway.keys.spoolfile import SpoolCipher

PLAIN = b"PatientName Doe^Jane " * 10_000


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool", SpoolCipher(b"k" * 32))


def put(spool: Spool, data: bytes = PLAIN, name: str | None = None) -> str:
    writer = spool.create(name)
    writer.write(data)
    return writer.publish()


def names(tmp_path) -> list[str]:
    return sorted(os.listdir(tmp_path / "spool"))


def test_what_was_written_is_read(spool):
    name = put(spool)
    with spool.open(name) as file:
        assert file.read() == PLAIN
    assert spool.digest(name) == Contents(hashlib.sha256(PLAIN).hexdigest(), len(PLAIN))
    assert spool.exists(name)


def test_nothing_plain_lies_on_the_disk_and_nobody_else_may_read_it(spool, tmp_path):
    path = tmp_path / "spool" / put(spool)
    assert b"Doe^Jane" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0  # the group reads it where roles have users of their own
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_moved_to_another_name_does_not_open(spool, tmp_path):
    name = put(spool)
    (tmp_path / "spool" / name).rename(tmp_path / "spool" / "another")
    with pytest.raises(SealError), spool.open("another") as file:
        file.read()


def test_another_key_does_not_open_it(spool, tmp_path):
    name = put(spool)
    with pytest.raises(SealError), Spool(tmp_path / "spool", SpoolCipher(b"x" * 32)).open(name) as file:
        file.read()


def test_a_changed_or_shortened_file_is_noticed(spool, tmp_path):
    for change in (lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])):
        path = tmp_path / "spool" / put(spool)
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(SealError), spool.open(path.name) as file:
            file.read()


def test_a_file_is_not_there_before_it_is_published(spool, tmp_path):
    writer = spool.create("name")
    writer.write(PLAIN)
    assert not spool.exists("name")
    with pytest.raises(FileNotFoundError):
        spool.open("name")
    assert [name.endswith(PARTIAL) for name in names(tmp_path)] == [True]
    writer.publish()
    assert names(tmp_path) == ["name"]


def test_publishing_syncs_the_file_before_its_name_and_the_folder_after(spool, monkeypatch):
    """What a power cut would undo is synced in this order; an fsync that is left out is a success that may be lost."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(*paths) -> None:
        done.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    put(spool)
    assert done == ["file", "rename", "folder"]


def test_a_discarded_file_leaves_nothing(spool, tmp_path):
    writer = spool.create()
    writer.write(PLAIN)
    writer.discard()
    writer.discard()
    assert names(tmp_path) == []


def test_two_writers_of_one_name_both_succeed(spool):
    first, second = spool.create("same"), spool.create("same")
    first.write(PLAIN)
    second.write(PLAIN)
    first.publish()
    second.publish()
    with spool.open("same") as file:
        assert file.read() == PLAIN


def test_names_of_old_files_published_and_partial(spool, tmp_path):
    put(spool, name="old")
    spool.create("begun").write(b"x")
    then = time.time() - 100
    for name in names(tmp_path):
        os.utime(tmp_path / "spool" / name, (then, then))
    put(spool, name="new")
    assert sorted(name.split(".")[0] for name in spool.names(older_than_s=50)) == ["begun", "old"]


def test_deleting_twice_is_no_error(spool):
    name = put(spool)
    spool.delete(name)
    spool.delete(name)
    assert not spool.exists(name)


@pytest.mark.parametrize("to", ["../vault/{0}", "{1}/vault/{0}", ".", "..", "", "a/../../vault/{0}"])
def test_a_name_out_of_a_row_leads_nowhere_else(spool, tmp_path, to):
    """Ingress writes rows and has no right in the vault; the worker, which has, deletes what delivered rows name."""
    (tmp_path / "vault").mkdir()
    sealed = tmp_path / "vault" / "0123"
    sealed.write_bytes(b"sealed")
    (tmp_path / "spool" / "a").mkdir()
    name = to.format("0123", tmp_path)
    spool.delete(name)
    assert sealed.read_bytes() == b"sealed"
    assert not spool.exists(name)
    assert spool.digest(name) is None
    with pytest.raises(FileNotFoundError):
        spool.open(name)
