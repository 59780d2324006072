"""The asynchronous operations window of the egress (PS3.7 D.3.3.3): asked for, kept to, and what ends in the middle."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gateway.audit import events
from gateway.config.models import Destination
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError
from gateway.network import command as dimse
from gateway.network.associate_pdus import read_request
from gateway.network.connect import Peer
from gateway.network.egress import Egress
from gateway.network.scu import ScuAssociation
from tests.network.test_ingress import until
from tests.support.network import peers, raw
from tests.support.network.samples import CT, EXPLICIT, MR, ct, data_set_bytes, outgoing
from tests.support.network.windowed import window_item

WITHIN_S = 20


class Partner:
    """A destination that grants a window, and answers as a test says.

    Parameters
    ----------
    grants
        Operations that it lets us invoke; 0: no limit; None: it says nothing of it.
    talk
        Speaks on an association once it is open.
    """

    def __init__(self, grants: int | None, talk: Callable[[Partner, raw.Wire], None]) -> None:
        self.grants = grants
        self.talk = talk
        self.asked: list[tuple[int, int] | None] = []
        self.stored: list[str] = []

    def __call__(self, wire: raw.Wire) -> None:
        kind, body = wire.read()
        assert kind == 0x01
        request = read_request(body)
        self.asked.append(request.asynchronous)
        more = b"" if self.grants is None else window_item(self.grants)
        contexts = b"".join(raw.context_ac(one.context_id, syntax=one.transfer_syntaxes[0]) for one in request.contexts)
        wire.send(raw.associate(0x02, contexts=contexts, user=raw.user_information(more=more)))
        self.talk(self, wire)

    def read(self, wire: raw.Wire) -> dimse.Command | None:
        """The next C-STORE; None at the end, a release having been answered."""
        command = wire.read_store()
        if command is None:
            wire.send(raw.RELEASE_RP)
        else:
            self.stored.append(command[dimse.AFFECTED_SOP_INSTANCE_UID])
        return command


def answer(wire: raw.Wire, *requests: dimse.Command, status: int = 0) -> None:
    """Answer requests, all in one write."""
    wire.send(b"".join(raw.data(1, 3, raw.store_rsp(request, status)) for request in requests))


def lock_step(partner: Partner, wire: raw.Wire) -> None:
    """Answer each before the next is read."""
    while command := partner.read(wire):
        answer(wire, command)


def in_groups(number: int) -> Callable[[Partner, raw.Wire], None]:
    """Read one by itself, then so many before any of them is answered, the last first."""

    def talk(partner: Partner, wire: raw.Wire) -> None:
        if command := partner.read(wire):
            answer(wire, command)
        while True:
            commands = []
            for _ in range(number):
                if (command := partner.read(wire)) is None:
                    return
                commands.append(command)
            for command in reversed(commands):
                answer(wire, command)

    return talk


@pytest.fixture
def egress(audit) -> Iterator[Callable[..., Egress]]:
    made = []

    def make(port: int, window: int = 4, **more) -> Egress:
        settings = {"type": "research", "ae_title": "OUTSIDE", "host": "127.0.0.1", "name": "outside"}
        settings |= {"connect_timeout_s": 20, "response_timeout_s": 30, "idle_release_s": 5, **more}
        made.append(Egress([Destination(port=port, async_operations=window, **settings)], audit))
        return made[-1]

    yield make
    for one in made:
        one.close()


def send_all(sender: Egress, items: list) -> list[int | DeliveryError]:
    """Send the first, then the others side by side: the status, or the error, of each."""

    def send(item) -> int | DeliveryError:
        try:
            return sender.send("outside", item)
        except DeliveryError as error:
            return error

    first = send(items[0])
    with ThreadPoolExecutor(16) as pool:
        return [first, *pool.map(send, items[1:])]


def images(count: int, size: int = 40_000) -> list:
    return [outgoing(bytes([number]) * size, f"1.2.{number}", instance_id=f"i{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("ours", "grants", "asked", "places"),
    [(4, 4, (4, 1), 4), (8, 3, (8, 1), 3), (4, 9, (4, 1), 4), (4, 0, (4, 1), 4), (4, None, (4, 1), 1), (1, 9, None, 1)],
)
def test_what_is_agreed_on_is_what_both_can(egress, ours, grants, asked, places):
    partner = Partner(grants, lock_step)
    with raw.scripted_scp(partner) as port:
        sender = egress(port, ours)
        assert sender.at_a_time("outside") == 1
        assert send_all(sender, images(1)) == [0]
        assert sender.at_a_time("outside") == places
        sender.close()
    assert partner.asked == [asked]


def test_answers_come_in_any_order(egress):
    """All of a window are sent before any is answered, on one association; each gets the answer to its own."""
    partner = Partner(4, in_groups(4))
    with raw.scripted_scp(partner) as port:
        sender = egress(port)
        assert send_all(sender, images(9)) == [0] * 9
        sender.close()
    assert len(partner.asked) == 1 and len(partner.stored) == 9


def test_each_status_is_that_of_its_own_instance(egress, audit):
    def talk(partner: Partner, wire: raw.Wire) -> None:
        answer(wire, partner.read(wire))
        commands = [partner.read(wire) for _ in range(4)]
        for command in reversed(commands):
            answer(wire, command, status=0xA900 if command[dimse.AFFECTED_SOP_INSTANCE_UID] == "1.2.2" else 0)
        assert partner.read(wire) is None

    with raw.scripted_scp(Partner(4, talk)) as port:
        sender = egress(port)
        results = send_all(sender, images(5))
        sender.close()
    assert isinstance(results[2], PermanentError) and results[2].code == "status-a900"
    assert [result for result in results if result != results[2]] == [0] * 4
    failed = [line["instance_id"] for line in audit.lines(events.DELIVERY) if line["outcome"] == "failure"]
    assert failed == ["i2"]


def test_no_more_are_under_way_than_were_granted(egress):
    under_way, most, lock = 0, 0, threading.Lock()

    def talk(partner: Partner, wire: raw.Wire) -> None:
        nonlocal under_way, most
        while True:
            command = partner.read(wire)
            if command is None:
                return
            with lock:
                under_way += 1
                most = max(most, under_way)
            wire.sock.settimeout(0.2)  # is there one more?
            try:
                wire.sock.recv(1, 2)  # MSG_PEEK
            except TimeoutError:
                under_way = 0
                answer(wire, *waiting, command)
                waiting.clear()
            else:
                waiting.append(command)
            wire.sock.settimeout(WITHIN_S)

    waiting: list[dimse.Command] = []
    with raw.scripted_scp(Partner(2, talk)) as port:
        sender = egress(port, 8)
        assert send_all(sender, images(8)) == [0] * 8
        sender.close()
    assert most == 2


@pytest.mark.parametrize("ends", ["abort", "close", "nonsense", "data set"])
def test_an_end_in_the_middle_leaves_what_was_answered_and_the_rest_goes_again_alone(egress, audit, ends):
    """One of the four is what the partner ends over, each time: it alone fails, and the answered are not sent again."""
    last_word = {
        "abort": raw.ABORT,
        "close": b"",
        "nonsense": raw.data(1, 3, b"no command set"),
        "data set": raw.data(1, 2, b"data"),
    }[ends]

    def talk(partner: Partner, wire: raw.Wire) -> None:
        waiting: list[dimse.Command] = []
        while command := partner.read(wire):
            uid = command[dimse.AFFECTED_SOP_INSTANCE_UID]
            together = len(partner.asked) == 1 and uid != "1.2.0"
            if together:
                waiting.append(command)
            if len(waiting) == 4:
                known = next(one for one in waiting if one[dimse.AFFECTED_SOP_INSTANCE_UID] == "1.2.3")
                answer(wire, known)
                wire.send(last_word)
                return
            if uid == "1.2.2" and not together:
                wire.send(last_word)
                return
            if not together:
                answer(wire, command)

    partner = Partner(4, talk)
    with raw.scripted_scp(partner) as port:
        sender = egress(port)
        results = send_all(sender, images(5))
        assert send_all(sender, images(1)) == [0]
        sender.close()
    assert [isinstance(one, TransientError) and one.about_instance for one in results] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert partner.stored.count("1.2.3") == 1 and partner.stored.count("1.2.2") == 2
    assert [line["instance_id"] for line in audit.lines(events.DELIVERY) if line["outcome"] == "failure"] == ["i2"]


@pytest.mark.parametrize("surplus", ["unknown", "twice"])
def test_more_answers_than_questions_end_the_association(egress, surplus):
    told: list[int] = []

    def talk(partner: Partner, wire: raw.Wire) -> None:
        if len(partner.asked) > 1:
            lock_step(partner, wire)
            return
        answer(wire, partner.read(wire))
        first, second = partner.read(wire), partner.read(wire)
        other = first if surplus == "twice" else {**first, dimse.MESSAGE_ID: 999}
        answer(wire, first, other)
        told.append(wire.read()[0])
        assert second

    partner = Partner(2, talk)
    with raw.scripted_scp(partner) as port:
        sender = egress(port, 2)
        assert send_all(sender, images(3)) == [0] * 3
        sender.close()
    assert len(partner.asked) >= 2 and told == [0x07]
    assert sum(partner.stored.count(f"1.2.{number}") for number in (1, 2)) == 3  # the answered one was not sent again


def test_an_answer_that_never_comes_ends_it(egress):
    def talk(partner: Partner, wire: raw.Wire) -> None:
        answer(wire, partner.read(wire))
        partner.read(wire)
        answer(wire, partner.read(wire))
        wire.read()

    partner = Partner(2, talk)
    with raw.scripted_scp(partner) as port:
        results = send_all(egress(port, 2, response_timeout_s=1), images(3))
    assert results.count(0) == 2
    (error,) = [one for one in results if one != 0]
    assert error.code == "no-answer" and not error.about_instance


def test_bytes_that_cannot_be_read_abort_after_the_others_were_answered(egress):
    """A derived file that was changed: the partner must not take a part for the whole, nor lose what it has stored."""
    go = threading.Event()

    class Broken(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            if self.tell():
                go.set()
                raise DicomError("changed", "not what was signed")
            return super().read(size)

    def talk(partner: Partner, wire: raw.Wire) -> None:
        if len(partner.asked) > 1:
            lock_step(partner, wire)
            return
        answer(wire, partner.read(wire))
        command = partner.read(wire)
        assert go.wait(WITHIN_S)
        answer(wire, command)
        assert partner.read(wire) is None

    partner = Partner(2, talk)
    with raw.scripted_scp(partner) as port:
        sender = egress(port, 2)
        one, other, broken = images(3)
        assert send_all(sender, [one]) == [0]
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(sender.send, "outside", other)
            assert until(lambda: "1.2.1" in partner.stored, WITHIN_S)
            with pytest.raises(DicomError):
                sender.send("outside", replace(outgoing(bytes(300_000), "1.2.9"), open=lambda: Broken(bytes(300_000))))
            assert sent.result() == 0
        assert send_all(sender, [broken]) == [0]
        sender.close()
    assert partner.stored == ["1.2.0", "1.2.1", "1.2.2"]


def test_a_further_context_waits_for_what_is_under_way(egress):
    """The association is negotiated anew with it, when nothing is lost by it."""
    partner = Partner(4, lock_step)
    with raw.scripted_scp(partner) as port:
        sender = egress(port)
        items = images(12)
        mixed = [outgoing(b"y" * 2000, f"1.3.{n}", sop_class=CT if n % 2 else MR) for n in range(8)]
        assert send_all(sender, [*items, *mixed]) == [0] * 20
        sender.close()
    assert len(partner.asked) == 2 and len(partner.stored) == 20


def test_message_ids_that_are_under_way_are_passed_over():
    def talk(partner: Partner, wire: raw.Wire) -> None:
        first = partner.read(wire)
        second = partner.read(wire)
        assert {first[dimse.MESSAGE_ID], second[dimse.MESSAGE_ID]} == {65_535, 2}
        answer(wire, second, first)
        partner.read(wire)

    with raw.scripted_scp(Partner(4, talk)) as port:
        peer = Peer("127.0.0.1", port, "OUTSIDE", "GATEWAY", response_timeout_s=WITHIN_S)
        association = ScuAssociation(peer, [(CT, EXPLICIT)], window=4)
        association._under_way.begin(dimse.C_STORE_RQ)
        association._under_way._last = 65_534
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(association.store, CT, f"1.{n}", EXPLICIT, io.BytesIO(b"xx")) for n in range(2)]
            assert [one.result().status for one in sent] == [0, 0]
        association.release()


@pytest.mark.parametrize("secured", [False, True])
def test_our_own_ingress_grants_a_window(egress, start_ingress, receiver, authority, secured):
    tls = {"tls": authority.issue("gateway")} if secured else {}
    ingress = start_ingress(**tls)
    sender = egress(
        ingress.port, 8, ae_title="GATEWAY", calling_ae="ARCHIVE", **({"tls": authority.issue("us")} if secured else {})
    )
    made = [ct(200) for _ in range(24)]
    assert send_all(sender, [outgoing(data, uid) for uid, data in made]) == [0] * 24
    assert sender.at_a_time("outside") == 8
    assert receiver.committed == dict(made)


@pytest.mark.peers
@pytest.mark.parametrize("window", [1, 8])
def test_dcmtk_which_grants_none_gets_the_same_bytes(egress, tmp_path, window):
    made = dict(ct(64) for _ in range(6))
    with peers.storescp(tmp_path / "out", "+xa", "+B") as port:
        sender = egress(port, window)
        assert send_all(sender, [outgoing(data, uid) for uid, data in made.items()]) == [0] * 6
        assert sender.at_a_time("outside") == 1
        sender.close()
    found = sorted(hashlib.sha256(data_set_bytes(file)).hexdigest() for file in (tmp_path / "out").iterdir())
    assert found == sorted(hashlib.sha256(data).hexdigest() for data in made.values())
