"""Receiving: what is acknowledged is durable, what is refused leaves nothing, and every refusal has its code."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import replace

import pytest

from gateway.config.models import Ingress
from gateway.database import InstanceRow, reading
from gateway.dicom.encoding.private import write_block
from gateway.errors import CapacityError, DicomError
from gateway.flow.receive import IN_MEMORY, PREFIX, SpoolReceiver
from gateway.flow.segments.body import LARGE
from gateway.flow.segments.spool import ReceivedSpool
from gateway.keys.keyring import load_spool_cipher
from gateway.service import places
from tests.conftest import missing
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, ct, facts_of

IMPLICIT = "1.2.840.10008.1.2"
LONG = 0x00091001  # a private element, so that its length is ours to choose


def offer(flow: Flow, data: bytes, facts, piece: int = 10_000) -> str:
    """Write in pieces and commit; abort when that fails, as the ingress does."""
    receiver = flow.receiver()
    incoming = receiver.begin(facts)
    try:
        for start in range(0, len(data), piece):
            incoming.write(data[start : start + piece])
        return incoming.commit()
    except BaseException:
        incoming.abort()
        raise
    finally:
        receiver.close()


def rows(flow: Flow) -> int:
    with reading(flow.engine) as session:
        return session.query(InstanceRow).count()


def refused(flow: Flow, data: bytes, facts, error: type, *codes: str) -> None:
    with pytest.raises(error) as caught:
        offer(flow, data, facts)
    assert caught.value.code in codes
    assert flow.spooled() == []
    assert rows(flow) == 0


def with_private(size: int):
    """A CT whose header has a private element of `size` bytes in front of our block."""
    ds = ct()
    ds.add_new(0x00090010, "LO", "A SITE")
    ds.add_new(LONG, "OB", b"\1" * size)
    return ds


def test_success_means_a_flushed_record_and_the_row_follows(flow):
    ds = ct()
    instance_id = flow.receive(ds)
    row = flow.row(instance_id)
    assert (row.state, row.route, row.calling_ae) == ("received", "relay", "ARCHIVE")
    assert flow.spooled() == [row.spool_file]
    with flow.context.spool.open(row.spool_file) as file:
        assert file.read() == encode(ds)


def test_what_is_larger_than_memory_allows_lies_in_a_file_of_its_own(flow, monkeypatch):
    monkeypatch.setattr("gateway.flow.segments.body.LARGE", 3 << 20)
    small, large = with_private(1 << 20), with_private(7 << 20)
    for ds, in_segment in ((small, True), (large, False)):
        name = flow.row(offer(flow, encode(ds), facts_of(ds))).spool_file
        assert ("@" in name) is in_segment
        with flow.context.spool.open(name) as file:
            assert file.read() == encode(ds)
    assert len(flow.spooled()) == 2  # the record that told of the large one is not needed once it has its row


def test_when_the_memory_of_all_is_used_up_the_next_goes_to_a_file(flow):
    receiver = flow.receiver()
    receiver.memory.take(IN_MEMORY - 1000)
    incoming = receiver.begin(facts_of(ct()))
    incoming.write(encode(ct()))
    instance_id = incoming.commit()
    receiver.close()
    assert "@" not in flow.row(instance_id).spool_file
    receiver.memory.give(IN_MEMORY - 1000)
    assert receiver.memory.take(IN_MEMORY)  # all was given back


def test_all_memory_is_given_back_whatever_becomes_of_an_object(flow):
    receiver = flow.receiver()
    for data, end in ((encode(ct()), "commit"), (b"no DICOM" * 1000, "commit"), (encode(ct()), "abort")):
        incoming = receiver.begin(facts_of(ct()))
        incoming.write(data)
        with suppress(DicomError):
            getattr(incoming, end)()
        incoming.abort()
    assert receiver.memory.take(IN_MEMORY)
    receiver.close()


def test_uid_mismatch(flow):
    refused(flow, encode(ct(1)), facts_of(ct(2)), DicomError, "uid-mismatch")


def test_sop_class_mismatch(flow):
    facts = replace(facts_of(ct()), sop_class_uid="1.2.840.10008.5.1.4.1.1.4")
    refused(flow, encode(ct()), facts, DicomError, "sop-class-mismatch")


def test_truncated_in_the_header(flow):
    refused(flow, encode(ct())[:200], facts_of(ct()), DicomError, "truncated", "missing-uid")


def test_truncated_in_a_header_longer_than_the_prefix(flow):
    ds = with_private(2 * PREFIX)
    refused(flow, encode(ds)[: 2 * PREFIX], facts_of(ds), DicomError, "truncated")


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n" * 20, b"\0" * 500])
def test_not_dicom(flow, data):
    refused(flow, data, facts_of(ct()), DicomError, "not-dicom", "missing-uid", "truncated")


def test_implicit_bytes_announced_as_explicit_are_taken_as_they_are(flow):
    """Some senders do it. What counts is that the bytes stay, and that they can be read."""
    instance_id = offer(flow, encode(ct(), IMPLICIT), facts_of(ct()))
    with flow.context.spool.open(flow.row(instance_id).spool_file) as file:
        assert file.read() == encode(ct(), IMPLICIT)


def test_a_marked_object_is_refused(flow):
    ds = ct()
    write_block(ds, b"token", "")
    refused(flow, encode(ds), facts_of(ds), DicomError, "already-marked")


@pytest.mark.parametrize("size", [2 * PREFIX, PREFIX])
def test_a_marked_object_with_a_header_longer_than_the_prefix_is_refused(flow, size):
    ds = with_private(size)
    write_block(ds, b"token", "")
    refused(flow, encode(ds), facts_of(ds), DicomError, "already-marked")


def test_a_marked_object_whose_elements_end_where_the_prefix_ends_is_refused(flow):
    """The prefix is then a well-formed data set without our block; the block is in the rest."""
    ds = with_private(2)
    behind = len(encode(ds)) - encode(ds).index(b"\xe0\x7f\x10\x00")  # pixel data
    short = len(encode(ds)) - behind
    ds[LONG].value = b"\1" * (2 + PREFIX - short)
    assert encode(ds).index(b"\xe0\x7f\x10\x00") == PREFIX
    write_block(ds, b"token", "")
    refused(flow, encode(ds), facts_of(ds), DicomError, "already-marked")


def test_a_header_longer_than_the_prefix_is_taken(flow):
    ds = with_private(3 * PREFIX)
    assert offer(flow, encode(ds), facts_of(ds))


def test_an_instance_larger_than_allowed_is_refused(flow):
    incoming = flow.receiver(max_instance_mib=1).begin(facts_of(ct()))
    incoming.write(b"\0" * (1 << 20))
    with pytest.raises(CapacityError) as caught:
        incoming.write(b"\0")
    incoming.abort()
    assert caught.value.code == "instance-too-large"
    assert flow.spooled() == []


def test_abort_leaves_nothing_and_may_come_twice(flow):
    incoming = flow.receiver().begin(facts_of(ct()))
    incoming.write(encode(ct())[:100])
    incoming.abort()
    incoming.abort()
    assert flow.spooled() == []


def test_a_full_queue_refuses_before_the_first_byte(flow):
    receiver = flow.receiver(max_waiting=1)
    receiver.admit("RELAY", "ARCHIVE", "1.2")
    flow.receive(ct())
    fresh = flow.receiver(max_waiting=1)  # the figure is looked at once a second
    with pytest.raises(CapacityError) as caught:
        fresh.admit("RELAY", "ARCHIVE", "1.2")
    assert caught.value.code == "queue-full"


def test_low_disk_refuses_before_the_first_byte(flow):
    with pytest.raises(CapacityError) as caught:
        flow.receiver(min_free_mib=1 << 40).admit("RELAY", "ARCHIVE", "1.2")
    assert caught.value.code == "disk-low"


def test_a_really_full_disk(flow, tmp_path):
    """A tmpfs of 64 KiB, where this user may mount one: memory takes what the disk does not."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        missing("the right to mount a tmpfs (test_segments.py has the same, said by a patched kernel call)")
    try:
        spool = ReceivedSpool(folder / "spool", load_spool_cipher(flow.config.keys))
        receiver = SpoolReceiver(Ingress(min_free_mib=0), flow.config.routes, spool, flow.store)
        for size in (3 << 20, LARGE + 1):
            ds = with_private(size)
            incoming = receiver.begin(facts_of(ds))
            with pytest.raises(CapacityError) as caught:
                incoming.write(encode(ds))
                incoming.commit()
            incoming.abort()
            assert caught.value.code == "disk-full"
            assert [name for name in os.listdir(folder / "spool") if not name.endswith(".segment")] == []
        small = ct()
        incoming = receiver.begin(facts_of(small))
        incoming.write(encode(small))
        assert incoming.commit()  # what there is room for is taken all the same
        receiver.close()
        assert rows(flow) == 1
    finally:
        subprocess.run(["umount", folder], check=True)


def test_what_a_kill_left_is_swept_after_an_hour_and_what_has_a_row_is_not(flow):
    """Between publishing and committing, and in the middle of writing: nobody was told that these are safe."""
    kept = flow.row(flow.receive(ct())).spool_file
    begun = flow.context.spool.create()
    begun.write(b"x" * 100)
    orphan = flow.context.spool.create()
    orphan.write(b"y")
    orphan.publish()
    folder = places(flow.config).spool
    flow.retainer.once()
    assert len(flow.spooled()) == 3  # all are young: a commit may be under way
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    flow.retainer.once()
    assert flow.spooled() == [kept]
