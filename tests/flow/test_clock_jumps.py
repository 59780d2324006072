"""A clock that is set two hours forward or back while work is under way: nothing is lost, done twice, or stuck."""

from __future__ import annotations

import time

import pytest

from gateway.audit import events
from gateway.database import ClaimRow, InstanceRow, transaction
from gateway.errors import TransientError
from gateway.flow.clock import BACK_S, BackwardJumps, ClockGuard
from gateway.flow.states import RECEIVED
from gateway.flow.steps import Steps
from gateway.service.worker import WorkerParts
from tests.flow.test_commitments import Site
from tests.support.flow import LEASE_S, Flow, ct

JUMP = 7200.0
PAUSE = 60.0  # of `Flow.retry`


class Time:
    """The wall clock of the whole process, and the count that nobody sets."""

    def __init__(self, monkeypatch) -> None:
        self.passed = self.off = 0.0
        real, counted = time.time, time.monotonic
        self.counted = lambda: counted() + self.passed
        monkeypatch.setattr(time, "time", lambda: real() + self.passed + self.off)

    def jumps(self, flow: Flow) -> BackwardJumps:
        """Of a worker process that starts now."""
        return BackwardJumps(flow.engine, LEASE_S, time.time, self.counted)


@pytest.fixture
def at(monkeypatch) -> Time:
    return Time(monkeypatch)


@pytest.mark.parametrize("jump", [JUMP, -JUMP])
def test_what_is_leased_when_the_clock_jumps_is_done_once(flow, at, jump):
    """Forward, all leases seem to have run out: two workers are at the same instances, and one of them counts."""
    ids = [flow.receive(ct(number)) for number in (1, 2)]
    jumps, other = at.jumps(flow), flow.again()
    jumps.once()
    for step, state in ((Steps.seal, RECEIVED), (Steps.mark, "sealed")):
        mine = flow.store.claim(state, 100, LEASE_S)
        at.off += jump
        jumps.once()
        theirs = other.store.claim(state, 100, LEASE_S)
        assert [len(mine), len(theirs)] == [2, 2 if jump > 0 else 0]
        step(other.steps, theirs)
        step(flow.steps, mine)
    pairs = flow.store.claim_deliveries("outside", 100, LEASE_S)
    at.off += jump
    jumps.once()
    other.deliver()
    flow.steps.deliver(pairs, flow.sender, flow.retry)
    assert {flow.row(one).state for one in ids} == {"delivered"}
    assert {len(digests) for digests in flow.sender.byte_strings().values()} == {1}
    assert len(flow.sender.byte_strings()) == 2
    assert all(flow.row(one).deaths == 0 for one in ids)
    marked = [line["instance_id"] for line in flow.audited(events.INSTANCE_MARKED)]
    assert sorted(marked) == sorted(ids)


def test_a_lease_of_a_dead_machine_ends_in_its_time_though_the_clock_went_back(flow, at):
    one = flow.receive(ct())
    jumps = at.jumps(flow)
    jumps.once()
    assert [row.id for row in flow.store.claim(RECEIVED, 1, LEASE_S)] == [one]
    with transaction(flow.engine) as session:  # of a machine of which nobody here can tell whether it lives
        session.query(InstanceRow).update({"lease_owner": "elsewhere:1:ab"})
        session.query(ClaimRow).update({"owner": "elsewhere:1:ab"})
    at.off -= JUMP
    other = flow.again()
    at.passed += LEASE_S + 20
    assert other.store.claim_suspect(RECEIVED, LEASE_S) == []
    jumps.once()
    at.passed += LEASE_S + 2
    other.run()
    assert other.row(one).state == "delivered"


def test_pauses_are_as_long_as_they_were_though_the_clock_went_back(flow, at):
    flow.sender.fail = lambda *_: TransientError("no-answer", "nobody")
    one = flow.receive(ct())
    jumps = at.jumps(flow)
    jumps.once()
    flow.run()
    [waiting] = [flow.deliveries(one)["outside"]]
    assert waiting.reason_code == "no-answer"
    at.off -= JUMP
    jumps.once()
    flow.sender.fail = lambda *_: None
    flow.deliver()
    assert flow.sender.received == []
    at.passed += PAUSE + 2
    flow.deliver()
    assert flow.row(one).state == "delivered" and len(flow.sender.received) == 1


def test_a_step_that_waits_goes_on_in_its_time_though_the_clock_went_back(flow, at, monkeypatch):
    one = flow.receive(ct())
    jumps = at.jumps(flow)
    jumps.once()
    with monkeypatch.context() as patched:
        patched.setattr(flow.context.protector, "seal", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        flow.seal()
    assert flow.row(one).reason_code == "disk-full"
    at.off -= JUMP
    at.passed += 10
    jumps.once()
    flow.run()
    assert flow.row(one).state == "delivered"


@pytest.mark.parametrize("jump", [JUMP, -JUMP])
def test_commitments_are_asked_for_and_reported_though_the_clock_jumps(make_flow, at, jump):
    site = Site(make_flow(), report_within_s=600, retry_first_s=60)
    jumps = at.jumps(site.flow)
    jumps.once()
    one = site.delivered()
    site.peer.fail = TransientError("unreachable", "nobody listens")
    site.commitments.once()
    assert site.delivery(one).commit_state == "due"
    site.peer.fail = None
    at.off += jump
    at.passed += 61
    jumps.once()
    assert site.commitments.once() == 1 and site.delivery(one).commit_state == "asked"
    at.off += jump
    jumps.once()
    assert site.commitments.once() == (1 if jump > 0 else 0)  # forward, the report seems to be late
    at.passed += 601
    assert site.commitments.once() == 1
    assert site.report() == 1 and site.delivery(one).commit_state == "committed"


def test_a_worker_that_starts_on_a_clock_that_was_set_back_meanwhile_sees_it_too(flow, at):
    assert ClockGuard(flow.engine, flow.context.audit, time.time, at.counted).believes()
    flow.sender.fail = lambda *_: TransientError("no-answer", "nobody")
    one = flow.receive(ct())
    flow.run()
    at.off -= JUMP
    again = flow.again()
    at.jumps(again).once()
    at.passed += PAUSE + 2
    flow.sender.fail = lambda *_: None
    again.deliver()
    assert again.row(one).state == "delivered"


def test_the_worker_looks_for_a_clock_that_was_set_back_also_while_something_is_done_alone(flow):
    part = WorkerParts(flow.config, flow.context.audit).build(flow.config, None)
    [once] = [once for name, once, pause_s in part._worker._further if name == "clock" and pause_s <= 10]
    assert once.__self__._lease_s == flow.config.worker.lease_s  # type: ignore[attr-defined]
    part.discard()


def test_small_steps_back_count_together_and_time_that_passes_is_none(flow, at):
    one = flow.receive(ct())
    due = time.time() + 30 * 86_400
    with transaction(flow.engine) as session:
        session.query(InstanceRow).update({"next_attempt_at": due})
    jumps = at.jumps(flow)
    for _ in range(3):
        jumps.once()
        at.passed += 86_400
    at.off += JUMP
    jumps.once()
    moved = []
    for _ in range(5):
        at.off -= BACK_S * 0.3
        jumps.once()
        moved.append(round(due - flow.row(one).next_attempt_at))
    assert moved == [0, 0, 0, *[round(BACK_S * 1.2)] * 2]
