"""Success only when all destinations have it; else it stays queued, and what comes again is recognised."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from gateway.config.check import check_config
from gateway.database import InstanceRow, reading
from gateway.errors import CapacityError
from gateway.network.incoming import sentence_of, status_of
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, ct, facts_of

ACK = ROUTE.model_copy(update={"ack": "downstream", "ack_within_s": 59.0})
SHORT = ACK.model_copy(update={"ack_within_s": 0.05})


class Sending:
    """One C-STORE of an archive, whose association waits for the answer."""

    def __init__(self, receiver, ds) -> None:
        self.answer: str | CapacityError | None = None
        self._receiver, self._ds = receiver, ds
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        incoming = self._receiver.begin(facts_of(self._ds))
        incoming.write(encode(self._ds))
        try:
            self.answer = incoming.commit()
        except CapacityError as error:
            incoming.abort()
            self.answer = error

    def wait(self) -> str | CapacityError:
        self._thread.join(110)
        assert self.answer is not None
        return self.answer


def rows(flow) -> list[InstanceRow]:
    with reading(flow.engine) as session:
        return list(session.query(InstanceRow))


def until_received(flow, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(rows(flow)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def receiver(make_flow):
    """The flow, and its receiver with a route that waits for so long."""
    made = []

    def make(route):
        flow = make_flow(route)
        made.append(flow.receiver())
        return flow, made[-1]

    yield make
    for one in made:
        one.close()


def test_of_two_processes_that_get_one_instance_at_once_one_keeps_it(receiver, monkeypatch):
    """Two receivers, as two ingress processes have them: each looks before the other has written."""
    flow, one = receiver(ACK)
    other = flow.receiver()
    both, arrived = threading.Barrier(2), type(flow.store).arrived

    def look(self, *key):
        found = arrived(self, *key)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return found

    monkeypatch.setattr(type(flow.store), "arrived", look)
    sendings = [Sending(one, ct()), Sending(other, ct())]
    until_received(flow)
    deadline = time.monotonic() + 60
    while not all(isinstance(sending.answer, str) for sending in sendings):
        flow.run()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other.close()
    assert len(rows(flow)) == 1 and len({sending.answer for sending in sendings}) == 1


def test_success_is_said_when_all_destinations_have_it(receiver):
    flow, taking = receiver(ACK)
    sending = Sending(taking, ct())
    until_received(flow)
    assert sending.answer is None  # kept, and not said
    flow.run()
    assert sending.wait() == rows(flow)[0].id


def test_what_takes_too_long_stays_queued_and_the_same_again_is_recognised(receiver):
    flow, taking = receiver(SHORT)
    error = Sending(taking, ct()).wait()
    assert isinstance(error, CapacityError) and status_of(error) == (0xA700, "not-delivered-yet")
    assert sentence_of(error) == "not-delivered-yet: queued for outside"
    assert [row.state for row in rows(flow)] == ["received"]
    assert isinstance(Sending(taking, ct()).wait(), CapacityError)  # the archive tries again
    flow.run()
    assert Sending(taking, ct()).wait() == rows(flow)[0].id  # and again
    assert len(rows(flow)) == len(flow.sender.received) == 1
    assert len(flow.spooled()) == 1  # what came again took no room


def test_other_bytes_under_the_same_uid_are_another_instance(receiver):
    flow, taking = receiver(SHORT)
    Sending(taking, ct()).wait()
    Sending(taking, ct(PatientName="Corrected")).wait()
    assert len(rows(flow)) == 2


def test_the_same_on_two_associations_at_once_is_one_instance(receiver):
    flow, taking = receiver(ACK)
    both = [Sending(taking, ct()) for _ in range(2)]
    until_received(flow)
    flow.run()
    assert {one.wait() for one in both} == {row.id for row in rows(flow)} and len(rows(flow)) == 1


def test_what_is_held_is_said_at_once_and_is_recognised_when_it_is_released(receiver):
    flow, taking = receiver(ACK)
    sending = Sending(taking, ct())
    until_received(flow)
    [row] = rows(flow)
    flow.operator.hold([row.id])
    error = sending.wait()
    assert isinstance(error, CapacityError) and status_of(error) == (0xA700, "held")
    flow.operator.release([row.id])
    again = Sending(taking, ct())
    flow.run()
    assert again.wait() == row.id and len(rows(flow)) == 1


def test_what_was_delivered_long_ago_goes_out_again(receiver, monkeypatch):
    flow, taking = receiver(ACK)
    sending = Sending(taking, ct())
    until_received(flow)
    flow.run()
    sending.wait()
    monkeypatch.setattr("gateway.flow.downstream.RESENT_S", -1.0)
    again = Sending(taking, ct())
    until_received(flow, 2)
    flow.run()
    assert again.wait() in {row.id for row in rows(flow)} and len(flow.sender.received) == 2


def test_a_process_that_ends_keeps_no_association_waiting(receiver):
    flow, taking = receiver(ACK)
    sending = Sending(taking, ct())
    until_received(flow)
    taking.hurry()
    assert isinstance(sending.wait(), CapacityError)
    assert [row.state for row in rows(flow)] == ["received"]  # it goes out all the same
    flow.run()
    assert len(flow.sender.received) == 1


def test_a_route_that_says_nothing_answers_as_ever(receiver):
    flow, taking = receiver(ROUTE)
    assert isinstance(Sending(taking, ct()).wait(), str)
    assert [row.state for row in rows(flow)] in ([], ["received"])


def test_what_lets_archives_wait_in_vain_is_told(make_flow):
    flow = make_flow(ACK)
    first, second = flow.config.destinations
    closed = flow.config.model_copy(
        update={"destinations": (first.model_copy(update={"schedule": ("mon 01:00-02:00",)}), second)}
    )
    assert any("gets 0xA700" in finding.message for finding in check_config(closed, "worker"))


# -- back-pressure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"max_unmarked": 1}, "device-behind"),
        ({"max_waiting": 1}, "queue-full"),
        ({"min_free_mib": 1 << 40}, "disk-low"),
    ],
)
def test_each_kind_of_pressure_has_its_sentence(flow, settings, code):
    flow.receive(ct())
    taking = flow.receiver(**settings)
    try:
        with pytest.raises(CapacityError) as caught:
            taking.admit("RELAY", "ARCHIVE", "1.2.840.10008.5.1.4.1.1.2")
        assert status_of(caught.value) == (0xA700, code)
        assert sentence_of(caught.value).startswith(f"{code}: ") and len(sentence_of(caught.value)) <= 64
        if code == "device-behind":  # what is marked and waits for its destination is not the device's
            flow.seal()
            flow.mark()
            taking._checked_at = 0.0
            taking.admit("RELAY", "ARCHIVE", "1.2.840.10008.5.1.4.1.1.2")
    finally:
        taking.close()
