"""Killed where `test_steps.py` and `tests/crash` do not kill: copying forward, taking over, reports, waiting archives.

In one process (`tests.support.killed`).
"""

from __future__ import annotations

import os

import pytest

from gateway.audit import events
from gateway.errors import CapacityError
from gateway.flow.segments.recovery import take_over
from tests.flow.test_commitments import Site
from tests.flow.test_downstream import SHORT
from tests.flow.test_reclaim import LATER, deliver_all_but, received, reclaim, segments
from tests.flow.test_segments import offer, rows, without_rows
from tests.support.dicom.samples import encode
from tests.support.flow import ct
from tests.support.killed import killed


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_is_killed_while_copying_forward_loses_nothing_and_leaves_nothing(flow, monkeypatch, when):
    """The copies are flushed, and rows do not name them yet, or do already."""
    ids = received(flow, 6)
    deliver_all_but(flow, 4)
    with killed(monkeypatch, flow.store, "moved", when):
        reclaim(flow, LATER)
    assert len(segments(flow)) == 2
    again = flow.again()
    for _ in range(3):
        reclaim(again, LATER)
    assert len(segments(again)) == 1  # that with the one that is held, once
    again.operator.release([ids[3]])
    again.run()
    assert {again.row(one).state for one in ids} == {"delivered"}
    assert again.restored(str(ct(4).SOPInstanceUID)) == encode(ct(4))
    reclaim(again, 2 * LATER)
    assert segments(again) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2])
def test_who_is_killed_while_taking_over_lets_the_next_start_go_on(flow, monkeypatch, when, call):
    """Rows come in transactions of their own: some are written, and the segment says how far."""
    monkeypatch.setattr("gateway.flow.segments.recovery.MOST_ROWS", 1)
    ids = without_rows(flow, monkeypatch)
    with killed(monkeypatch, flow.store, "add_received", when, call):
        take_over(flow.context.spool, flow.store)
    told = call if when == "after" else call - 1
    assert set(rows(flow)) == set(ids[:told])
    assert take_over(flow.context.spool, flow.store) == len(ids) - told
    flow.run()
    assert {flow.row(one).state for one in ids} == {"delivered"} and len(flow.sender.received) == len(ids)


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_is_killed_while_cutting_a_torn_end_lets_the_next_start_cut_it(flow, monkeypatch, when):
    ids = without_rows(flow, monkeypatch)
    [path] = flow.context.spool.segment_paths()
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"MG" + bytes(100))
    with killed(monkeypatch, os, "truncate", when):
        take_over(flow.context.spool, flow.store)
    assert rows(flow) == {}
    assert take_over(flow.context.spool, flow.store) == len(ids)
    assert path.stat().st_size <= whole and set(rows(flow)) == set(ids)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_report_over_which_a_worker_is_killed_counts_when_it_comes_again(make_flow, monkeypatch, when):
    """Its line may stand in the audit; nothing is committed without the transaction."""
    site = Site(make_flow())
    one = site.delivered()
    site.commitments.once()
    with killed(monkeypatch, site.flow.context.audit, "write", when):
        site.report()
    assert site.delivery(one).commit_state == "asked"
    assert site.report() == 1 and site.delivery(one).commit_state == "committed"
    lines = site.flow.audited(events.COMMITMENT_REPORTED)
    assert len(lines) == (2 if when == "after" else 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_archive_whose_receiver_is_killed_while_it_waits_sends_again_and_nothing_goes_twice(
    make_flow, monkeypatch, when
):
    """It is durable, and the archive was told nothing yet."""
    flow = make_flow(SHORT)
    receiver = flow.receiver()
    with killed(monkeypatch, flow.store, "state_of", when):
        offer(receiver, 1)
    receiver.close()
    take_over(flow.context.spool, flow.store)
    again = flow.again()
    later = again.receiver()
    with pytest.raises(CapacityError) as caught:
        offer(later, 1)
    assert caught.value.code == "not-delivered-yet"
    again.run()
    assert offer(later, 1) in rows(again)  # success at last
    later.close()
    assert len(rows(again)) == 1 and len(again.sender.received) == 1
