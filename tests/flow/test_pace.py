"""How many deliveries are claimed at once: many of a destination that takes them fast, few of a slow one."""

from __future__ import annotations

from gateway.config import TRUST_STATEMENT
from gateway.config.models import PASS_STATEMENT, Worker
from gateway.flow import pace
from gateway.flow.pace import LEAST, MOST, Pace
from gateway.flow.worker import FlowWorker
from tests.support.flow import ROUTE, ct

FAST, SLOW = pace.MOMENT_S / 10, pace.MOMENT_S * 2


def test_it_doubles_with_each_whole_batch_that_went_out_soon_up_to_the_most():
    one, sizes = Pace(), []
    for _ in range(6):
        sizes.append(one.size)
        one.took(True, FAST)
    assert sizes == [LEAST, 2 * LEAST, MOST, MOST, MOST, MOST]


def test_it_halves_when_one_took_long_down_to_the_least():
    one = Pace()
    for _ in range(3):
        one.took(True, FAST)
    for expected in (MOST // 2, LEAST, LEAST):
        one.took(False, SLOW)
        assert one.size == expected


def test_part_of_a_batch_or_one_that_failed_at_once_says_nothing():
    one = Pace()
    one.took(False, FAST)
    assert one.size == LEAST


def test_a_worker_claims_more_of_a_destination_that_is_fast(make_flow, monkeypatch):
    flow = make_flow()
    trusted = tuple(one.model_copy(update={"trust_statement": TRUST_STATEMENT}) for one in flow.config.destinations)
    passing = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT})
    flow = flow.again(passing, destinations=trusted)
    for number in range(1, 3 * LEAST + 3):
        flow.receive(ct(number))
    flow.seal()
    monkeypatch.setattr(pace, "MOMENT_S", 60.0)  # a busy machine is fast enough
    worker = FlowWorker(Worker(), trusted, flow.store, flow.steps, flow.sender, flow.retainer)
    assert [worker.deliver_once(trusted[0]) for _ in range(4)] == [LEAST, 2 * LEAST, 2, 0]
