"""What people at the page asked for: done only when the flow, looking anew, finds that it may be; and told of."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.config.accounts import Account, write_accounts
from gateway.config.models import Worker
from gateway.config.page import Page
from gateway.database import DeliveryRow, InstanceRow, RequestRow, reading, transaction
from gateway.errors import CapacityError, TransientError
from gateway.flow import requested
from gateway.flow.gate import Gate
from gateway.flow.overview import look
from gateway.flow.requests import Wanted, ask, list_requests, new_id
from gateway.flow.states import to
from gateway.flow.worker import FlowWorker
from gateway.service.wiring import build_requested
from tests.support.flow import ROUTE, Flow, configuration, ct

HOLDS = ROUTE.model_copy(update={"name": "asked", "called_ae": "ASKED", "action": "hold"})


@pytest.fixture
def flow(engine, tmp_path: Path, site_keys: Path) -> Flow:
    """A site with an operator `ops` and a viewer `eye`, on each kind of database."""
    users = tmp_path / "page-users"
    write_accounts(users, {"ops": Account("ops", "operator", "h"), "eye": Account("eye", "viewer", "h")})
    config = configuration(tmp_path / "state", site_keys, ROUTE, HOLDS)
    return Flow(config.model_copy(update={"page": Page(users=users)}), engine)


def wish(flow: Flow, action: str, instance_id: str | None = None, user: str = "ops", **more) -> str:
    request_id = new_id()
    ask(flow.engine, request_id, Wanted(action, instance_id, **more), user, "session1")
    return request_id


def answer(flow: Flow, *routes) -> dict[str, tuple[str, int | None, str | None]]:
    """What became of each request: state, instances changed, result."""
    config = flow.config.model_copy(update={"routes": routes}) if routes else flow.config
    build_requested(config, flow.engine, flow.store, flow.context.audit).once()
    return {one.id: (one.state, one.done, one.result) for one in list_requests(flow.engine)}


def held(flow: Flow, number: int = 1) -> str:
    instance_id = flow.receive(ct(number), called_ae="ASKED")
    flow.seal()
    assert flow.row(instance_id).state == "held"
    return instance_id


def test_a_release_is_done_and_names_who_asked(flow: Flow) -> None:
    one = held(flow)
    request = wish(flow, "release", one)
    assert answer(flow)[request] == ("done", 1, None)
    assert flow.row(one).state == "received"
    (line,) = flow.audited("instance-released")
    assert (line["user"], line["session_id"], line["request_id"]) == ("ops", "session1", request)
    assert (line["instance_id"], line["operation"]) == (one, "release")
    assert build_requested(flow.config, flow.engine, flow.store, flow.context.audit).once() == 0  # once, not again


def test_a_retry_is_for_what_waits(flow: Flow) -> None:
    flow.sender.fail = lambda destination, item: TransientError("unreachable", "no")
    one = flow.receive(ct(1))
    flow.run()
    assert flow.deliveries(one)["outside"].next_attempt_at > time.time()
    by_destination = wish(flow, "retry", destination="outside", route="relay")
    assert answer(flow)[by_destination] == ("done", 1, None)
    assert flow.deliveries(one)["outside"].next_attempt_at == 0


def test_a_replay_is_for_what_is_delivered(flow: Flow) -> None:
    one = flow.receive(ct(1))
    flow.run()
    assert flow.row(one).state == "delivered"
    waiting = flow.receive(ct(2))
    asked = [wish(flow, "replay", one), wish(flow, "replay", waiting), wish(flow, "replay", destination="outside")]
    found = answer(flow)
    assert [found[request] for request in asked] == [("done", 1, None), *[("done", 0, "nothing-to-do")] * 2]
    flow.run()
    sent = [item for _, item, _ in flow.sender.received if item.instance_id == one]
    assert len(sent) == 2 and len(flow.sender.byte_strings()) == 2
    assert [line["operation"] for line in flow.audited("instance-released")] == ["replay"]


def test_a_destination_is_paused_and_resumed(flow: Flow) -> None:
    wrong = [wish(flow, "pause"), wish(flow, "pause", destination="outside", route="relay")]
    unknown = wish(flow, "pause", destination="elsewhere")
    by_viewer = wish(flow, "pause", destination="outside", user="eye")
    right, again = wish(flow, "pause", destination="outside"), wish(flow, "pause", destination="outside")
    found = answer(flow)
    assert [found[request] for request in wrong] == [("refused", 0, "no-choice")] * 2
    assert found[unknown] == ("refused", 0, "no-such-destination")
    assert found[by_viewer] == ("refused", 0, "not-an-operator")
    assert (found[right], found[again]) == (("done", 1, None), ("done", 0, "nothing-to-do"))
    (line,) = flow.audited("destination-paused")
    assert (line["destination"], line["user"], line["request_id"]) == ("outside", "ops", right)
    one = flow.receive(ct(1))
    flow.run()
    assert flow.row(one).state == "marked" and flow.sender.received == []
    with transaction(flow.engine) as session:  # what a worker died of comes alone: it waits as well
        session.execute(update(DeliveryRow).values(deaths=1))
    assert not flow.store.has_suspect_delivery("outside")
    assert flow.store.claim_suspect_delivery("outside", 60) == []
    (delivery,) = [one for one in look(flow.engine, flow.config.routes).deliveries if one.route == "relay"]
    assert delivery.paused_at is not None and delivery.queued == 1
    bell = flow.store.wakes.bell(to("outside"))
    request = wish(flow, "resume", destination="outside")
    assert answer(flow)[request] == ("done", 1, None) and bell.wait(0.0)
    again = wish(flow, "resume", destination="outside")
    assert answer(flow)[again] == ("done", 0, "nothing-to-do")
    assert len(flow.audited("destination-resumed")) == 1
    assert len(flow.store.claim_suspect_delivery("outside", 60)) == 1


def test_whether_a_destination_answers_is_asked_after_the_rest(flow: Flow) -> None:
    """It may take as long as it likes not to answer."""
    answers: list[str] = []

    def echo(name: str) -> None:
        answers.append(name)
        if len(answers) > 1:
            raise TransientError("unreachable", "outside does not answer")

    requested = build_requested(flow.config, flow.engine, flow.store, flow.context.audit, echo)
    first, second = wish(flow, "echo", destination="outside"), wish(flow, "echo", destination="outside")
    release = wish(flow, "release", held(flow))
    results: list[dict] = []
    for _ in range(2):
        requested.once()
        results.append({one.id: (one.state, one.done, one.result) for one in list_requests(flow.engine)})
    assert results[0] == {first: ("done", 1, None), second: ("asked", None, None), release: ("done", 1, None)}
    assert results[1][second] == ("done", 0, "unreachable") and answers == ["outside"] * 2
    lines = flow.audited("destination-asked")
    assert [(line["outcome"], line.get("reason")) for line in lines] == [("success", None), ("failure", "unreachable")]


def test_a_discard_wants_the_id_and_a_held_instance(flow: Flow) -> None:
    one, other = held(flow, 1), flow.receive(ct(2))
    wrong = [
        wish(flow, "discard", one),
        wish(flow, "discard", one, confirmation=other),
        wish(flow, "discard", reason="route-holds"),
    ]
    on_its_way = wish(flow, "discard", other, confirmation=other)
    right = wish(flow, "discard", one, confirmation=one)
    found = answer(flow)
    assert [found[request] for request in wrong] == [("refused", 0, "not-confirmed")] * 3
    assert found[on_its_way] == ("done", 0, "nothing-to-do") and flow.row(other).state == "received"
    assert found[right] == ("done", 1, None) and flow.row(one).state == "discarded"
    assert [line["reason"] for line in flow.audited("action-refused")] == ["not-confirmed"] * 3


@pytest.mark.parametrize("user", ["eye", "gone", "", "ops:operator"])
def test_only_an_operator_of_now_is_obeyed(flow: Flow, user: str) -> None:
    one = held(flow)
    request = wish(flow, "release", one, user=user)
    assert answer(flow)[request] == ("refused", 0, "not-an-operator")
    assert flow.row(one).state == "held" and flow.audited("instance-released") == []
    (line,) = flow.audited("action-refused")
    assert line["outcome"] == "refused" and line["request_id"] == request


def test_who_lost_the_right_meanwhile_is_not_obeyed(flow: Flow) -> None:
    request = wish(flow, "release", held(flow))
    assert flow.config.page is not None
    write_accounts(flow.config.page.users, {"ops": Account("ops", "viewer", "h")})
    assert answer(flow)[request] == ("refused", 0, "not-an-operator")
    flow.config.page.users.write_text("not a line\n")
    request = wish(flow, "release", held(flow, 2))
    assert answer(flow)[request] == ("refused", 0, "users-unreadable")


def test_a_choice_takes_what_was_there_when_it_was_asked(flow: Flow) -> None:
    first, second = held(flow, 1), held(flow, 2)
    request = wish(flow, "release", reason="route-holds", route="asked")
    later = held(flow, 3)
    assert answer(flow)[request] == ("done", 2, None)
    assert [flow.row(one).state for one in (first, second, later)] == ["received", "received", "held"]
    flow.seal()
    nothing = wish(flow, "release", reason="no-words")
    empty = wish(flow, "release")
    found = answer(flow)
    assert found[nothing] == ("done", 0, "nothing-to-do") and found[empty] == ("refused", 0, "no-choice")


def test_many_are_released_together_and_each_is_told_of_once(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "_TOGETHER", 2)
    ids = [held(flow, number) for number in range(1, 6)]
    with transaction(flow.engine) as session:
        session.execute(update(InstanceRow).where(InstanceRow.id == max(ids[2:4])).values(spool_file=None))
    request = wish(flow, "release", reason="route-holds")
    assert answer(flow)[request] == ("done", 4, "spool-purged")
    assert sorted(line["instance_id"] for line in flow.audited("instance-released")) == sorted(
        set(ids) - {max(ids[2:4])}
    )


def test_what_is_asked_for_waits_for_nobody_who_works_alone(flow: Flow) -> None:
    """Many instances take long to be released: that must not stop the flow, which waits for its turn to be alone."""
    gate, ran = Gate(), threading.Event()
    worker = FlowWorker(
        Worker(poll_s=0.1),
        [],
        flow.store,
        flow.steps,
        flow.sender,
        flow.retainer,
        (),
        gate,
        [("x", lambda: ran.set() or 0, 1.0)],
    )
    with gate.alone():
        worker.start()
        assert ran.wait(50)
    worker.stop()


def test_of_a_route_that_is_gone_nothing_is_released(flow: Flow) -> None:
    one = held(flow)
    single, choice = wish(flow, "release", one), wish(flow, "release", reason="route-holds")
    found = answer(flow, ROUTE)
    assert found[single] == ("refused", 0, "route-gone") and found[choice] == ("done", 0, "nothing-to-do")
    assert flow.row(one).state == "held"
    request = wish(flow, "discard", one, confirmation=one)  # which is how one gets rid of it
    assert answer(flow, ROUTE)[request] == ("done", 1, None)


def test_what_cannot_be_is_refused(flow: Flow) -> None:
    request, unknown = wish(flow, "release", secrets.token_hex(16)), wish(flow, "deliver", held(flow, 1))
    found = answer(flow)
    assert found[request] == ("refused", 0, "no-such-instance") and found[unknown] == ("refused", 0, "unknown-action")
    purged = held(flow, 2)
    with transaction(flow.engine) as session:
        session.execute(update(InstanceRow).where(InstanceRow.id == purged).values(spool_file=None))
    request = wish(flow, "release", purged)
    assert answer(flow)[request] == ("refused", 0, "spool-purged")
    some = wish(flow, "release", reason="route-holds")
    assert answer(flow)[some] == ("done", 1, "spool-purged")


@pytest.mark.parametrize("age", [requested.TOO_OLD_S + 60, -600])
def test_what_waited_for_too_long_or_comes_from_the_future_is_refused(flow: Flow, age: float) -> None:
    one = held(flow)
    request = wish(flow, "release", one)
    with transaction(flow.engine) as session:
        session.execute(update(RequestRow).values(asked_at=time.time() - age))
    assert answer(flow)[request] == ("refused", 0, "too-old") and flow.row(one).state == "held"


def test_what_cannot_be_told_of_waits(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    one = held(flow)
    request = wish(flow, "release", one)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(flow.context.audit, "write_all", full)
        with pytest.raises(CapacityError):
            answer(flow)
    assert flow.row(one).state == "held"
    assert answer(flow)[request] == ("done", 1, None)


def test_a_request_whose_worker_died_is_taken_up_by_another_and_old_ones_go(flow: Flow) -> None:
    one = held(flow)
    request, old = wish(flow, "release", one), wish(flow, "release", one)
    with transaction(flow.engine) as session:
        mine = update(RequestRow).where(RequestRow.id == request)
        session.execute(mine.values(state="taken", taken_at=time.time() - requested.TAKEN_S / 2))
        gone = update(RequestRow).where(RequestRow.id == old)
        session.execute(gone.values(state="done", done_at=time.time() - requested.KEPT_S - 1))
    assert answer(flow)[request][0] == "taken"
    with transaction(flow.engine) as session:
        session.execute(mine.values(taken_at=time.time() - requested.TAKEN_S - 1))
    assert answer(flow) == {request: ("done", 1, None)}
    with reading(flow.engine) as session:
        assert session.get(RequestRow, old) is None
