"""Segments go when all in them is done; what few still need is copied forward; nothing that is needed goes."""

from __future__ import annotations

import os
import time

from gateway.errors import PermanentError
from gateway.flow.segments.format import FORWARDED
from gateway.flow.segments.reclaim import REST_S, Reclaimer
from gateway.flow.segments.recovery import take_over
from gateway.flow.segments.rows import RowWriter
from gateway.flow.spool import Spool
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, ct, facts_of

LATER = REST_S + 100


def received(flow: Flow, count: int, **settings: object) -> list[str]:
    """Instances in one segment."""
    receiver = flow.receiver(**settings)
    ids = []
    for number in range(1, count + 1):
        incoming = receiver.begin(facts_of(ct(number)))
        incoming.write(encode(ct(number)))
        ids.append(incoming.commit())
    receiver.close()
    return ids


def reclaim(flow: Flow, after_s: float = 0.0) -> int:
    return Reclaimer(flow.context.spool, flow.store).once(time.time() + after_s)


def segments(flow: Flow) -> list[str]:
    return [path.stem for path in flow.context.spool.segment_paths()]


def deliver_all_but(flow: Flow, number: int) -> None:
    uid = str(ct(number).SOPInstanceUID)
    held = {row.id for row in flow.store.claim("received", 100, 600) if row.sop_instance_uid == uid}
    flow.store.end_leases()
    flow.operator.hold(list(held))
    flow.run()


def test_a_segment_goes_when_the_last_of_its_instances_is_delivered(flow):
    received(flow, 3)
    assert reclaim(flow, LATER) == 0
    flow.run()
    [name] = segments(flow)
    assert reclaim(flow) == 1
    assert segments(flow) == [] and flow.store.told_segments() == []
    assert name not in flow.store.told_segments()


def test_what_is_held_keeps_its_bytes_for_ever(flow):
    flow.sender.fail = lambda *_: PermanentError("context-refused", "")
    [held] = received(flow, 1)
    flow.run()
    assert reclaim(flow, 1000 * LATER) == 0
    flow.sender.fail = lambda *_: None
    flow.operator.release([held])
    flow.run()
    assert flow.row(held).state == "delivered"


def test_an_open_segment_stays(flow):
    receiver = flow.receiver()
    incoming = receiver.begin(facts_of(ct()))
    incoming.write(encode(ct()))
    incoming.commit()
    receiver.settle()
    flow.run()
    assert reclaim(flow, LATER) == 0
    receiver.close()
    assert reclaim(flow) == 1


def test_a_segment_whose_rows_are_not_written_stays_and_so_do_files_without_a_row(flow, monkeypatch):
    """Its receiver died before the rows were written: until one takes over, nothing says what is needed."""
    monkeypatch.setattr("gateway.flow.segments.body.LARGE", 0)
    with monkeypatch.context() as patched:
        patched.setattr(RowWriter, "put", lambda *_: None)
        receiver = flow.receiver()
        incoming = receiver.begin(facts_of(ct()))
        incoming.write(encode(ct()))
        instance_id = incoming.commit()
        receiver._log.stop()
    for path in flow.context.spool.folder.iterdir():
        os.utime(path, (1, 1))
    flow.retainer.once()
    assert reclaim(flow, LATER) == 0
    assert len(list(flow.context.spool.names(0))) == len(segments(flow)) == 1
    assert take_over(flow.context.spool, flow.store) == 1
    flow.run()
    assert flow.row(instance_id).state == "delivered"
    flow.retainer.once()
    assert list(flow.context.spool.folder.iterdir()) == []


def test_what_few_still_need_is_copied_forward_and_goes_on_from_there(flow):
    ids = received(flow, 6)
    deliver_all_but(flow, 4)
    [old] = segments(flow)
    assert reclaim(flow) == 0
    assert segments(flow) == [old]  # most are done soon: it is left alone for a while
    reclaim(flow, LATER)
    assert len(segments(flow)) == 2
    reclaim(flow)
    [new] = segments(flow)
    assert new != old
    [info] = flow.context.spool.segments()
    assert info.kind == FORWARDED
    assert take_over(flow.context.spool, flow.store) == 0  # it is not replayed
    held = next(i for i in ids if flow.row(i).state == "held")
    flow.operator.release([held])
    flow.run()
    assert flow.row(held).state == "delivered"
    assert flow.restored(str(ct(4).SOPInstanceUID)) == encode(ct(4))
    flow.retainer.once()
    assert segments(flow) == []


def test_a_step_that_read_its_row_before_the_copy_finds_the_bytes(flow):
    received(flow, 6)
    deliver_all_but(flow, 4)
    [held] = [row for row in (flow.row(i) for i in _ids(flow)) if row.state == "held"]
    reclaim(flow, LATER)
    reclaim(flow)
    with flow.context.received(held)() as file:  # the row as it was
        assert file.read() == encode(ct(4))


def _ids(flow: Flow) -> list[str]:
    from gateway.database import InstanceRow, reading

    with reading(flow.engine) as session:
        return [row.id for row in session.query(InstanceRow)]


def test_a_changed_record_is_not_copied_and_its_segment_stays(flow):
    received(flow, 6)
    deliver_all_but(flow, 4)
    [path] = flow.context.spool.segment_paths()
    [place] = flow.store.places_in(path.stem)
    data = bytearray(path.read_bytes())
    data[place.offset + 100] ^= 1
    path.write_bytes(data)
    reclaim(flow, LATER)
    assert segments(flow) == [path.stem]


def test_files_of_versions_before_drain(flow):
    """A file per instance, as it was written: read, delivered, and deleted."""
    import hashlib

    from tests.support.flow import add_row

    old = Spool(flow.context.spool.folder, flow.context.spool._cipher)
    writer = old.create()
    writer.write(encode(ct()))
    name = writer.publish()
    digest = hashlib.sha256(encode(ct())).hexdigest()
    instance_id = add_row(flow.store, file=name, route="relay", size=len(encode(ct())), sha256=digest)
    flow.run()
    assert flow.row(instance_id).state == "delivered"
    flow.retainer.once()
    assert list(flow.context.spool.folder.iterdir()) == []
