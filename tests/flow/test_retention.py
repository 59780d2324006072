"""Retention: received bytes go after delivery, derived files and originals after their days, held ones stay."""

from __future__ import annotations

import os
import time

import pytest

from gateway.config.models import Retention
from gateway.errors import NotFoundError, PermanentError
from gateway.flow.store import FlowStore
from gateway.service import places
from tests.support.dicom.samples import encode
from tests.support.flow import ct

DAY = 86_400.0


def in_days(days: float) -> float:
    return time.time() + days * DAY


def test_the_spool_is_purged_after_delivery_even_when_the_worker_died_before_it_could(flow, monkeypatch):
    instance_id = flow.receive(ct())
    monkeypatch.setattr(flow.context.spool, "delete", lambda name: None)
    monkeypatch.setattr(FlowStore, "forget_spool_file", lambda *_: None)
    flow.run()
    monkeypatch.undo()
    assert (flow.row(instance_id).state, len(flow.spooled())) == ("delivered", 1)
    flow.retainer.once()
    assert (flow.spooled(), flow.row(instance_id).spool_file) == ([], None)


def test_the_spool_is_kept_until_delivery(flow):
    flow.receive(ct())
    flow.seal()
    flow.mark()
    flow.again(retention=Retention(vault_days=1, derived_days=0)).retainer.once(now=in_days(1000))
    assert len(flow.spooled()) == len(flow.derived()) == 1


def test_derived_files_go_after_their_days(flow):
    instance_id = flow.receive(ct())
    flow.run()
    keeping = flow.again(retention=Retention(derived_days=2)).retainer
    keeping.once(now=in_days(1.9))
    assert len(flow.derived()) == 1
    keeping.once(now=in_days(2.1))
    assert (flow.derived(), flow.row(instance_id).derived_file) == ([], None)
    assert flow.restored(ct().SOPInstanceUID) == encode(ct())


def test_a_derived_file_that_another_instance_still_needs_stays(flow):
    flow.receive(ct())
    flow.run()
    second = flow.receive(ct())
    flow.seal()
    flow.mark()
    flow.again(retention=Retention(derived_days=0)).retainer.once(now=in_days(10))
    assert len(flow.derived()) == 1
    flow.deliver()
    assert flow.row(second).state == "delivered"


def test_originals_stay_for_ever_unless_days_are_named(flow):
    flow.receive(ct())
    flow.run()
    flow.retainer.once(now=in_days(36_500))
    assert flow.restored(ct().SOPInstanceUID) == encode(ct())


def test_originals_go_after_their_days_but_not_those_of_held_instances(flow):
    flow.receive(ct(1))
    flow.run()
    flow.sender.fail = lambda *_: PermanentError("context-refused", "")
    held = flow.receive(ct(2))
    flow.run()
    assert flow.row(held).state == "held"
    keeping = flow.again(retention=Retention(vault_days=30)).retainer
    keeping.once(now=in_days(29))
    assert flow.restored(ct(1).SOPInstanceUID) == encode(ct(1))
    keeping.once(now=in_days(31))
    with pytest.raises(NotFoundError) as caught:
        flow.restored(ct(1).SOPInstanceUID)
    assert caught.value.code == "payload-missing"
    assert len(os.listdir(places(flow.config).vault)) == 1
    assert flow.restored(ct(2).SOPInstanceUID) == encode(ct(2))
    flow.sender.fail = lambda *_: None
    flow.operator.release([held])
    flow.run()
    assert flow.row(held).state == "delivered"


def test_an_original_that_comes_again_after_its_retention_is_kept_anew(flow):
    flow.receive(ct())
    flow.run()
    first = flow.sender.received[-1][1].sop_instance_uid
    flow.again(retention=Retention(vault_days=30)).retainer.once(now=in_days(31))
    flow.receive(ct())
    flow.run()
    second = flow.sender.received[-1][1].sop_instance_uid
    assert first != second
    assert flow.restored(second) == flow.restored(ct().SOPInstanceUID) == encode(ct())


def test_a_held_instance_keeps_its_received_bytes(flow):
    instance_id = flow.receive(ct())
    flow.operator.hold([instance_id])
    for path in places(flow.config).spool.iterdir():
        os.utime(path, (1, 1))
    flow.retainer.once(now=in_days(1000))
    assert flow.spooled() == [flow.row(instance_id).spool_file]


@pytest.mark.parametrize("folder", ["spool", "derived", "vault"])
def test_what_a_kill_left_half_written_is_swept_when_it_is_old(flow, folder):
    flow.receive(ct())
    flow.run()
    flow.retainer.once()
    where = getattr(places(flow.config), folder)
    before = set(where.iterdir())
    left = where / (".new-0123456789abcdef" if folder == "vault" else "0123.abcd.part")
    left.write_bytes(b"half")
    flow.retainer.once()
    assert left.exists()
    for path in where.iterdir():
        os.utime(path, (1, 1))
    flow.retainer.once()
    assert set(where.iterdir()) == before
