"""The asynchronous operations window (PS3.7 D.3.3.3): granted, kept to, and what ends in the middle of it."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.audit import events
from gateway.errors import CapacityError
from gateway.network import command as dimse
from gateway.network.ingress import IngressAssociation
from gateway.network.upper_layer import GatewayAssociation
from gateway.network.window import Window
from tests.network.test_ingress import gateway_threads, until
from tests.support.network import raw
from tests.support.network.samples import ct
from tests.support.network.windowed import answer, association, store, window_item

ECHO = {dimse.COMMAND_FIELD: dimse.C_ECHO_RQ, dimse.DATA_SET_TYPE: dimse.NO_DATA_SET}
WITHIN_S = 20  # for what is sure to happen, on a machine that is busy


class Held:
    """Makes the receiver's commits wait until a test lets them go, and counts them."""

    def __init__(self, receiver, monkeypatch) -> None:
        self.go = threading.Event()
        self.now: list[str] = []
        self.together = 0
        self._lock = threading.Lock()
        kind = type(receiver.begin(None))
        receiver.kept.clear()
        commit = kind.commit

        def held(incoming) -> str:
            uid = incoming._kept.facts.sop_instance_uid
            with self._lock:
                self.now.append(uid)
                self.together = max(self.together, len(self.now))
            assert self.go.wait(WITHIN_S)
            with self._lock:
                self.now.remove(uid)
            return commit(incoming)

        monkeypatch.setattr(kind, "commit", held)


@pytest.fixture
def held(receiver, monkeypatch) -> Iterator[Held]:
    held = Held(receiver, monkeypatch)
    yield held
    held.go.set()


@pytest.mark.parametrize(
    ("ours", "asked", "granted"),
    [(8, 3, (3, 1)), (8, 20, (8, 1)), (8, 0, (8, 1)), (8, None, None), (8, 1, None), (1, 5, None), (1, 0, None)],
)
def test_what_is_granted_is_what_both_can(start_ingress, ours, asked, granted):
    with association(start_ingress(async_operations=ours).port, asked) as (_, answered):
        assert answered == granted


def test_those_of_a_window_are_finished_side_by_side(start_ingress, held, receiver):
    with association(start_ingress().port, 4) as (wire, _):
        images = [ct() for _ in range(4)]
        for number, image in enumerate(images):
            wire.send(store(number, *image))
        assert until(lambda: len(held.now) == 4, WITHIN_S)
        held.go.set()
        assert sorted(answer(wire) for _ in images) == [(number, 0) for number in range(4)]
        wire.send(raw.RELEASE_RQ)
        assert wire.read()[0] == 0x06
    assert receiver.committed == dict(images)


def test_what_is_above_the_window_waits_and_is_taken_after_that(start_ingress, held, receiver):
    with association(start_ingress(async_operations=2).port, 9) as (wire, granted):
        assert granted == (2, 1)
        images = [ct(16) for _ in range(6)]
        for number, image in enumerate(images):
            wire.send(store(number, *image))
        assert until(lambda: len(held.now) == 2 and len(receiver.kept) == 3, WITHIN_S)
        held.go.set()
        assert sorted(answer(wire) for _ in images) == [(number, 0) for number in range(6)]
    assert held.together == 2 and receiver.committed == dict(images)


def test_one_instance_twice_is_finished_in_order(start_ingress, held, receiver):
    """The archive has corrected it: the newest has to be the last."""
    uid, first = ct(16)
    second = ct(24)[1]
    with association(start_ingress().port, 4) as (wire, _):
        wire.send(store(1, uid, first) + store(2, uid, second) + store(3, *ct(16)))
        assert until(lambda: held.now == [uid], WITHIN_S)
        held.go.set()
        answers = [answer(wire) for _ in range(3)]
    assert [number for number, _ in answers if number != 3] == [1, 2] and held.together <= 2
    assert [kept.data for kept in receiver.kept if kept.facts.sop_instance_uid == uid] == [first, second]


def test_each_failure_answers_its_own_message(start_ingress, receiver, monkeypatch, audit):
    bad = ct(16)
    kind = type(receiver.begin(None))
    receiver.kept.clear()
    commit = kind.commit

    def fails(incoming) -> str:
        if incoming._kept.facts.sop_instance_uid == bad[0]:
            raise CapacityError("disk-full", "no room")
        return commit(incoming)

    monkeypatch.setattr(kind, "commit", fails)
    ingress = start_ingress()
    with association(ingress.port, 8) as (wire, _):
        images = [ct(16), bad, ct(16)]
        for number, image in enumerate(images):
            wire.send(store(number, *image))
        assert sorted(answer(wire) for _ in images) == [(0, 0), (1, 0xA700), (2, 0)]
        wire.send(raw.RELEASE_RQ)
        wire.read()
    assert until(lambda: audit.lines(events.ASSOCIATION_CLOSED), WITHIN_S)
    (line,) = audit.lines(events.ASSOCIATION_CLOSED)
    assert line["received"] == 2 and line["failed"] == 1


def test_a_release_is_answered_after_what_was_under_way(start_ingress, held, receiver):
    with association(start_ingress().port, 4) as (wire, _):
        wire.send(store(1, *ct(16)) + store(2, *ct(16)))
        assert until(lambda: len(held.now) == 2, WITHIN_S)
        wire.send(raw.RELEASE_RQ)
        wire.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
        wire.sock.settimeout(WITHIN_S)
        held.go.set()
        assert sorted([answer(wire), answer(wire)]) == [(1, 0), (2, 0)]
        assert wire.read()[0] == 0x06


@pytest.mark.parametrize("goodbye", [b"", raw.ABORT])
def test_a_peer_that_is_gone_leaves_what_it_sent_and_no_thread(start_ingress, held, receiver, audit, goodbye):
    with association(start_ingress().port, 4) as (wire, _):
        wire.send(store(1, *ct(16)) + store(2, *ct(16)))
        assert until(lambda: len(held.now) == 2, WITHIN_S)
        wire.send(goodbye)
    held.go.set()
    assert until(lambda: len(receiver.committed) == 2 and not gateway_threads(), WITHIN_S)
    assert until(lambda: not [t for t in threading.enumerate() if t.name.startswith("window")], WITHIN_S)
    (line,) = audit.lines(events.ASSOCIATION_CLOSED)
    assert line["received"] == 2 and line["outcome"] == "failure"


def test_an_answer_that_cannot_be_made_ends_the_association(start_ingress, receiver, monkeypatch):
    monkeypatch.setattr("gateway.network.incoming.IncomingObject.finish", lambda self: 1 / 0)
    with association(start_ingress(idle_timeout_s=60).port, 4) as (wire, _):
        wire.send(store(1, *ct(16)))
        assert wire.read()[0] == 0x07
    assert until(lambda: not gateway_threads(), WITHIN_S)


def test_other_requests_are_answered_within_a_window(start_ingress, held):
    verification = "1.2.840.10008.1.1"
    contexts = raw.context_rq() + raw.context_rq(3, verification, ("1.2.840.10008.1.2",))
    with raw.connected(start_ingress().port) as wire:
        wire.sock.settimeout(WITHIN_S)
        wire.send(raw.associate(contexts=contexts, user=raw.user_information(more=window_item(4))))
        assert wire.read()[0] == 0x02
        wire.send(store(1, *ct(16)))
        assert until(lambda: len(held.now) == 1, WITHIN_S)
        echo = {**ECHO, dimse.AFFECTED_SOP_CLASS_UID: verification, dimse.MESSAGE_ID: 9}
        wire.send(raw.data(3, 3, dimse.encode_command(echo)))
        assert answer(wire) == (9, 0)
        held.go.set()
        assert answer(wire) == (1, 0)


def test_a_window_of_one_has_no_threads():
    begun = threading.active_count()
    told = io.StringIO()
    window = Window()
    window.run("1.2", lambda: told.write(threading.current_thread().name) and None)
    window.end()
    assert told.getvalue() == threading.current_thread().name and threading.active_count() == begun


def test_a_commit_that_hangs_does_not_keep_the_process_from_ending():
    """A file system that is away for good; a supervisor would have to kill the role."""
    script = (
        "import threading; from gateway.network.window import Window; begun = threading.Event()\n"
        "Window(2).run('1.2', lambda: begun.set() or threading.Event().wait()); begun.wait(); print('at the end')"
    )
    ended = subprocess.run([sys.executable, "-c", script], timeout=50, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "at the end\n")


def test_where_no_thread_is_to_be_had_a_request_is_finished_all_the_same(monkeypatch):
    """The limit of a unit or a container (TasksMax, pids.max)."""
    done: list[str] = []
    starts = iter([False, True, False, False])
    start = threading.Thread.start

    def limited(thread) -> None:
        if thread.name == "window" and not next(starts):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    window, go = Window(4), threading.Event()
    window.run("1.1", lambda: done.append(threading.current_thread().name))
    assert done == [threading.current_thread().name]
    for uid in ("1.2", "1.3", "1.4"):  # one thread for all of them
        window.run(uid, lambda: go.wait(WITHIN_S) and done.append(threading.current_thread().name))
    go.set()
    window.end()
    assert done[1:] == ["window"] * 3


def test_associations_that_hang_are_waited_for_together(start_ingress, held, monkeypatch):
    """Else a stop takes seconds for each, and the supervisor kills the role."""
    patience: list[float] = []

    def join(association, timeout=None) -> None:
        patience.append(timeout)
        time.sleep(0.2)

    ingress = start_ingress()
    with association(ingress.port, 2) as (one, _), association(ingress.port, 2) as (other, _):
        one.send(store(1, *ct(16)))
        other.send(store(1, *ct(16)))
        assert until(lambda: len(held.now) == 2, WITHIN_S)
        with monkeypatch.context() as patched:
            patched.setattr(GatewayAssociation, "join", join)
            ingress.stop(0.3)
        held.go.set()
    assert len(patience) == 2 and patience[1] < patience[0] - 0.15


def test_a_peer_that_waits_for_answers_is_not_idle(start_ingress, held, monkeypatch):
    """With ack "downstream" one may wait for its place in the window, and then for its own delivery."""
    looks: list[bool] = []
    is_busy = IngressAssociation.is_busy
    monkeypatch.setattr(
        IngressAssociation, "is_busy", lambda one: looks.append(one.dul.idle_timer_expired()) or is_busy(one)
    )
    with association(start_ingress(idle_timeout_s=3).port, 2) as (wire, _):
        wire.send(store(1, *ct(16)))
        assert until(lambda: looks.count(True) > 1, WITHIN_S)
        assert held.now
        held.go.set()
        assert answer(wire) == (1, 0)
        wire.send(raw.RELEASE_RQ)
        assert wire.read()[0] == 0x06


def test_a_peer_that_has_its_answers_is_idle_after_its_time(start_ingress, audit):
    with association(start_ingress(idle_timeout_s=1).port, 2) as (wire, _):
        wire.send(store(1, *ct(16)))
        assert answer(wire) == (1, 0)
        assert wire.read()[0] == 0x07
    assert until(lambda: audit.lines(events.ASSOCIATION_CLOSED), WITHIN_S)
    assert audit.lines(events.ASSOCIATION_CLOSED)[0]["reason"] == "idle-timeout"
