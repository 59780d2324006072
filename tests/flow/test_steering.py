"""Deliveries that an operator steers: kinds of failures, fallbacks, turns, several at a time, schedules."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from gateway.audit import events
from gateway.config import TRUST_STATEMENT
from gateway.config.models import PASS_STATEMENT, Worker
from gateway.errors import PermanentError, TransientError
from gateway.flow import outages
from gateway.flow.overview import look
from gateway.flow.selection import list_instances
from gateway.flow.sidebyside import side_by_side
from gateway.flow.store import FlowStore
from gateway.flow.turns import Turns
from gateway.flow.worker import FlowWorker, _retry
from tests.support.flow import LEASE_S, ROUTE, ct

PASS = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT})


def steered(flow, route=ROUTE, **outside):
    """The same site with other keys of destination "outside"."""
    first, second = flow.config.destinations
    second = second.model_copy(update={"trust_statement": TRUST_STATEMENT})
    return flow.again(route, destinations=(first.model_copy(update=outside), second))


def ready(flow, count: int = 1) -> list[str]:
    ids = [flow.receive(ct(number)) for number in range(1, count + 1)]
    flow.seal()
    flow.mark()
    return ids


def down(name, item):
    return TransientError("unreachable", "nobody listens") if name == "outside" else None


def now(flow) -> None:
    with flow.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE delivery SET next_attempt_at = 0")


# -- kinds of failures ---------------------------------------------------------------------------------------------


def test_each_kind_is_tried_by_its_own_rule_and_counted_by_itself(flow):
    outside = flow.config.destinations[0]
    entries = [{"on": "unreachable", "attempts": 9}, {"on": "resources", "attempts": 3}]
    outside = outside.model_validate({**outside.model_dump(), "retries": [*entries, {"on": "refused", "attempts": 2}]})
    flow.retry = partial(_retry, outside)
    [one] = ready(flow)
    errors = ["unreachable"] * 4 + ["status-a700"] * 2 + ["association-rejected"]
    for number, code in enumerate(errors):
        kind = PermanentError if code == "association-rejected" else TransientError
        flow.sender.fail = lambda *_, error=kind(code, "no"): error
        flow.deliver()
        now(flow)
        assert flow.row(one).state == "marked", (number, code)
    assert flow.deliveries(one)["outside"].attempts == 1  # of the kind that came last
    flow.deliver()
    assert (flow.row(one).state, flow.row(one).reason_code) == ("held", "association-rejected")


def test_an_instance_on_which_a_destination_chokes_now_so_and_now_so_is_held_at_last(flow):
    outside = flow.config.destinations[0].model_copy(update={"retry_attempts": 4})
    flow.retry = partial(_retry, outside)
    [one] = ready(flow)
    for code in ["no-answer", "status-0110", "association-aborted"]:
        error = TransientError(code, "no")
        error.about_instance = True
        flow.sender.fail = lambda *_, error=error: error
        flow.deliver()
        now(flow)
    assert flow.row(one).state == "marked"
    flow.deliver()
    assert (flow.row(one).state, flow.row(one).reason_code) == ("held", "association-aborted")


# -- later -----------------------------------------------------------------------------------------------------------


def test_what_is_sent_again_or_released_may_be_put_off(flow):
    [one] = ready(flow)
    flow.operator.retry([one], after_s=3600)  # a destination is at rest until then
    flow.deliver()
    assert flow.sender.received == []
    flow.operator.retry([one])
    flow.deliver()
    assert len(flow.sender.received) == 1
    assert flow.operator.replay([one], after_s=3600) == 1
    flow.deliver()
    assert len(flow.sender.received) == 1 and flow.deliveries(one)["outside"].next_attempt_at > time.time() + 3500
    now(flow)
    flow.deliver()
    assert len(flow.sender.received) == 2
    other = flow.receive(ct(9))
    flow.operator.hold([other])
    flow.operator.release([other], after_s=3600)
    flow.seal()
    assert flow.row(other).state == "received" and flow.row(other).next_attempt_at > time.time() + 3500


# -- fallback ------------------------------------------------------------------------------------------------------


def test_copies_go_to_the_fallback_once_their_destination_has_failed_for_long(flow, monkeypatch):
    clock = [100.0]
    flow = steered(flow, fallback="second", fallback_after_s=60)
    monkeypatch.setattr(flow.steps._deliverer._outages, "_clock", lambda: clock[0])
    ids = ready(flow, 3)
    tried = []
    flow.sender.fail = lambda name, item: tried.append(name) or down(name, item)
    flow.deliver()
    now(flow)
    assert {flow.deliveries(one)["outside"].state for one in ids} == {"queued"}  # not yet
    clock[0] += 61
    flow.deliver()
    assert tried == ["outside", "outside"]  # asked once more, and then no more for these
    assert [set(flow.deliveries(one)) for one in ids] == [{"second"}] * 3
    flow.deliver("second")
    assert {flow.row(one).state for one in ids} == {"delivered"}
    lines = flow.audited(events.DELIVERY_FELL_BACK)
    assert {(line["destination"], line["fallback"]) for line in lines} == {("outside", "second")} and len(lines) == 3
    named = {
        (one.destination, one.configured) for one in look(flow.engine, [ROUTE], flow.config.destinations).deliveries
    }
    assert named == {("outside", True), ("second", True)}
    [later] = ready(flow)
    clock[0] += outages.PROBE_S + 1
    flow.sender.fail = lambda *_: None
    flow.deliver()  # it is tried now and then, and is back
    assert flow.deliveries(later)["outside"].state == "sent"


def test_an_original_never_goes_to_a_fallback(flow):
    flow = steered(flow, PASS, fallback="second", fallback_after_s=0, trust_statement=TRUST_STATEMENT)
    [one] = ready(flow)
    flow.sender.fail = down
    flow.deliver()
    assert flow.deliveries(one)["outside"].state == "queued" and flow.sender.received == []
    with flow.engine.begin() as connection:  # whoever forges the row gains nothing
        forged = "UPDATE delivery SET destination = 'second', fallback_of = 'outside', next_attempt_at = 0"
        connection.exec_driver_sql(forged)
    flow.deliver("second")
    assert (flow.row(one).reason_code, flow.sender.received) == ("destination-not-trusted", [])


def test_what_would_be_held_goes_to_the_fallback_and_released_to_the_first_again(flow):
    flow = steered(flow, fallback="second")
    [one] = ready(flow)
    flow.sender.fail = lambda name, item: PermanentError("association-rejected", "no") if name == "outside" else None
    flow.deliver()
    assert set(flow.deliveries(one)) == {"second"}
    flow.operator.hold([one])
    flow.operator.release([one])
    flow.sender.fail = lambda *_: None
    flow.seal()
    flow.mark()
    flow.deliver()
    assert {n: d.state for n, d in flow.deliveries(one).items()} == {"outside": "sent"}


def test_a_fallback_that_is_not_configured_any_more_gets_nothing(flow):
    flow = steered(flow, fallback="second", fallback_after_s=0)
    [one] = ready(flow)
    flow.sender.fail = down
    flow.deliver()
    plain = steered(flow, fallback=None)
    plain.deliver("second")
    assert (plain.row(one).reason_code, plain.sender.received) == ("destination-not-named", [])


# -- several at a time, turns, schedules ---------------------------------------------------------------------------


def test_as_many_are_sent_side_by_side_as_there_are_connections(flow):
    ids = ready(flow, 4)
    together = threading.Barrier(2, timeout=20)
    flow.sender.fail = lambda *_: together.wait() and None
    pairs = flow.store.claim_deliveries("outside", 4, LEASE_S)
    assert flow.steps.deliver(pairs, flow.sender, flow.retry, at_a_time=2) == 4
    assert {flow.row(one).state for one in ids} == {"delivered"}


@pytest.mark.parametrize("places", [{"connections": 4}, {"async_operations": 4}])
def test_what_is_suspected_leaves_for_a_destination_of_many_places_when_there_is_nothing_else(make_flow, places):
    """A worker died over it: it goes alone, after the rest, also when the rest is nothing."""
    flow = make_flow()
    (one,) = ready(flow, 1)
    FlowStore(flow.engine, "elsewhere:1:00000000").claim_deliveries("outside", 1, lease_s=-1)
    destination = flow.config.destinations[0].model_copy(update=places)
    worker = FlowWorker(Worker(), [destination], flow.store, flow.steps, flow.sender, flow.retainer)
    assert destination.name == "outside" and destination.at_a_time == 4
    assert worker.deliver_once(destination) == 1
    assert flow.row(one).state == "delivered"
    assert worker.deliver_once(destination) == 0


def test_no_more_is_begun_once_the_destination_is_not_reachable(flow):
    ids = ready(flow, 5)
    tried = []
    flow.sender.fail = lambda name, item: tried.append(item) or down(name, item)
    pairs = flow.store.claim_deliveries("outside", 5, LEASE_S)
    assert flow.steps.deliver(pairs, flow.sender, flow.retry, 30.0, at_a_time=2) == 0
    assert len(tried) <= 3
    attempts = [flow.deliveries(one)["outside"].attempts for one in ids]
    assert sum(attempts) == len(tried) and {flow.row(one).state for one in ids} == {"marked"}


def test_no_more_are_begun_than_the_sender_has_places():
    """A destination that grants no window gets one at a time; the room is known after the first."""
    under_way, most, room, lock = 0, [0, 0], [1], threading.Lock()

    def work(number: int) -> int:
        nonlocal under_way
        with lock:
            under_way += 1
            most[room[0] > 1] = max(most[room[0] > 1], under_way)
        time.sleep(0.01)
        with lock:
            under_way -= 1
        if number == 5:
            room[0] = 3
        return number

    found = side_by_side(16, 8, work, lambda: True, lambda: room[0])
    assert sorted(found) == [(number, number) for number in range(16)]
    assert most[0] == 1 and most[1] <= 3


def test_side_by_side_gives_every_result_once():
    assert sorted(side_by_side(20, 4, lambda number: number, lambda: True)) == [(n, n) for n in range(20)]
    assert [number for number, _ in side_by_side(3, 1, str, lambda: False)] == [0]
    assert not list(side_by_side(0, 4, str, lambda: True, lambda: pytest.fail("there is nothing to make room for")))


def test_the_most_urgent_have_their_turn_first():
    turns, order, inside = Turns(1), [], threading.Event()

    def take(priority: str) -> None:
        with turns.turn(priority):
            order.append(priority)

    with turns.turn("low"):
        threads = []
        for priority in ("low", "medium", "high"):
            threads.append(threading.Thread(target=take, args=(priority,)))
            threads[-1].start()
            while len(turns._waiting) < len(threads):
                inside.wait(0.001)
    for thread in threads:
        thread.join(50)
    assert order == ["high", "medium", "low"]


@pytest.mark.parametrize("is_open", [True, False])
def test_outside_its_schedule_a_destination_gets_nothing_and_the_queue_says_so(flow, is_open):
    weekday = time.localtime().tm_wday
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    window = f"{days[weekday]} 00:00-24:00" if is_open else f"{days[(weekday + 3) % 7]} 00:00-24:00"
    flow = steered(flow, schedule=(window,))
    [one] = ready(flow)
    worker = FlowWorker(Worker(), flow.config.destinations, flow.store, flow.steps, flow.sender, flow.retainer)
    assert worker.deliver_once(flow.config.destinations[0]) == int(is_open)
    assert flow.row(one).state == ("delivered" if is_open else "marked")
    [entry] = list_instances(flow.engine, destinations=flow.config.destinations)
    [figures] = look(flow.engine, [ROUTE], flow.config.destinations).deliveries
    assert (entry.reason_code == "outside-schedule") is (figures.opens_at is not None) is not is_open
    assert is_open or entry.next_attempt_at == figures.opens_at > time.time()
