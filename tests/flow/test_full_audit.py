"""With the audit's disk full nothing is held, marked or queued untold, and nobody's neighbours pay for it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.audit import events
from gateway.config.models import PASS_STATEMENT
from gateway.database import DeliveryRow, InstanceRow, transaction
from gateway.errors import PermanentError
from tests.support.flow import ROUTE, Flow, ct


@pytest.fixture
def flow(make_flow) -> Flow:
    return make_flow()


def fill(flow: Flow) -> None:
    """From now on the kernel answers ENOSPC to each line."""
    flow.context.audit._path = Path("/dev/full")


def make_room(flow: Flow) -> None:
    flow.context.audit._path = flow.audit_path
    with transaction(flow.engine) as session:  # nobody waits for the back-off here
        session.execute(update(InstanceRow).values(next_attempt_at=0.0))
        session.execute(update(DeliveryRow).values(next_attempt_at=0.0))


def of(flow: Flow, ids: list[str]) -> set[tuple]:
    rows = [flow.row(one) for one in ids]
    return {(row.state, row.reason_code, row.lease_owner) for row in rows}


@pytest.mark.parametrize("step", ["seal", "deliver"])
def test_what_cannot_be_told_is_not_held_and_keeps_no_neighbour(flow, step):
    if step == "seal":
        flow = flow.again(ROUTE.model_copy(update={"action": "hold"}))
    ids = [flow.receive(ct(number)) for number in range(1, 4)]
    if step == "deliver":
        flow.seal()
        flow.mark()
        flow.sender.fail = lambda destination, item: PermanentError("refused", "no")
    fill(flow)
    getattr(flow, step)()
    if step == "seal":
        assert of(flow, ids) == {("received", "audit-full", None)}
    else:
        found = [flow.deliveries(one)["outside"] for one in ids]
        assert {(one.state, one.reason_code, one.lease_owner) for one in found} == {("queued", "audit-full", None)}
        assert of(flow, ids) == {("marked", None, None)}
    make_room(flow)
    getattr(flow, step)()
    assert {state for state, *_ in of(flow, ids)} == {"held"}
    assert sorted(line["instance_id"] for line in flow.audited(events.INSTANCE_HELD)) == sorted(ids)


def test_a_copy_is_queued_only_when_that_was_told(flow):
    ids = [flow.receive(ct(number)) for number in range(1, 4)]
    flow.seal()
    fill(flow)
    flow.mark()
    flow.deliver()
    assert of(flow, ids) == {("sealed", "audit-full", None)}
    assert flow.sender.received == [] and not any(flow.deliveries(one) for one in ids)
    make_room(flow)
    flow.mark()
    flow.deliver()
    assert sorted(line["instance_id"] for line in flow.audited(events.INSTANCE_MARKED)) == sorted(ids)
    assert len(flow.sender.received) == len(ids)


def test_what_is_stranded_waits_untold_and_does_not_leave(flow):
    ids = [flow.receive(ct(number)) for number in range(1, 3)]
    flow.seal()
    flow.mark()
    moved = flow.again(ROUTE.model_copy(update={"destinations": ("second",)}))
    fill(moved)
    assert moved.steps.hold_stranded() == 0
    moved.deliver()
    assert moved.sender.received == [] and of(moved, ids) == {("marked", None, None)}
    make_room(moved)
    assert moved.steps.hold_stranded() + len(moved.audited(events.INSTANCE_HELD)) == 4


def test_an_original_passes_only_when_that_was_told(flow):
    passing = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT, "mark": None})
    flow = flow.again(passing)
    ids = [flow.receive(ct(number)) for number in range(1, 4)]
    fill(flow)
    flow.seal()
    flow.deliver()
    assert flow.sender.received == [] and {state for state, *_ in of(flow, ids)} == {"received"}


def test_lines_of_what_was_sent_are_on_the_disk_before_it_counts_as_sent(flow, monkeypatch):
    """With one flush for all of them: a power cut before it lets them be sent, and told of, again."""
    ids = [flow.receive(ct(number)) for number in range(1, 4)]
    flow.seal()
    flow.mark()
    audit, order = flow.context.audit, []
    flow.sender.fail = lambda destination, item: audit.note(events.DELIVERY, "success", destination=destination)
    fsync, settle = os.fsync, flow.store.settle_deliveries
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("flushed"), fsync(file)))
    monkeypatch.setattr(flow.store, "settle_deliveries", lambda *of: (order.append("settled"), settle(*of))[1])
    audit._flushed_at = time.monotonic()  # or a note flushes by itself
    flow.deliver()
    assert order[:2] == ["flushed", "settled"] and order.count("flushed") == 1
    assert {flow.deliveries(one)["outside"].state for one in ids} == {"sent"}
    assert len(flow.audited(events.DELIVERY)) == 3


def test_what_was_sent_stays_sent_when_its_lines_cannot_be_flushed(flow, monkeypatch):
    one = flow.receive(ct(1))
    flow.seal()
    flow.mark()

    def full() -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(flow.context.audit, "flush", full)
    flow.deliver()
    assert flow.deliveries(one)["outside"].state == "sent"
