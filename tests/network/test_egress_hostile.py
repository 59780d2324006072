"""Destinations that answer what was not asked, for another instance, not at all, or that read no further."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gateway.audit import events
from gateway.errors import TransientError
from gateway.network import command as dimse
from gateway.network.associate_pdus import read_request
from tests.network.test_egress_window import (
    WITHIN_S,
    Partner,
    answer,
    egress,
    images,
    lock_step,
    send_all,
)
from tests.network.test_ingress import until
from tests.support.network import raw
from tests.support.network.samples import outgoing

__all__ = ["egress"]


def changed(request: dimse.Command, **elements: int | str) -> bytes:
    """A successful answer to a C-STORE with other elements, by the names of `gateway.network.command`."""
    others = {getattr(dimse, name): value for name, value in elements.items()}
    command = dimse.decode_command(raw.store_rsp(request)) | others
    return raw.data(1, 3, dimse.encode_command(command))


@pytest.mark.parametrize("kind", [dimse.C_ECHO_RSP, dimse.N_ACTION_RSP, dimse.C_GET_RSP])
def test_the_answer_to_another_operation_is_none(egress, audit, kind):
    """A success of C-ECHO says nothing of an instance."""

    def talk(partner: Partner, wire: raw.Wire) -> None:
        wire.send(changed(partner.read(wire), COMMAND_FIELD=kind))
        wire.read()

    with raw.scripted_scp(Partner(None, talk)) as port:
        (error,) = send_all(egress(port, 1), images(1))
    assert isinstance(error, TransientError) and error.code == "unexpected-answer"
    assert [line["outcome"] for line in audit.lines(events.DELIVERY)] == ["failure"]


def test_answers_that_name_each_others_instance_are_taken_for_neither(egress):
    """Nobody can tell by then whether the number or the name is wrong: both go again, each by itself."""

    def talk(partner: Partner, wire: raw.Wire) -> None:
        if len(partner.asked) > 1:
            lock_step(partner, wire)
            return
        answer(wire, partner.read(wire))
        first, second = partner.read(wire), partner.read(wire)
        names = [one[dimse.AFFECTED_SOP_INSTANCE_UID] for one in (first, second)]
        wire.send(changed(first, AFFECTED_SOP_INSTANCE_UID=names[1], STATUS=0xA900))
        wire.send(changed(second, AFFECTED_SOP_INSTANCE_UID=names[0]))
        wire.read()

    partner = Partner(2, talk)
    with raw.scripted_scp(partner) as port:
        sender = egress(port, 2)
        assert send_all(sender, images(3)) == [0] * 3
        sender.close()
    assert [partner.stored.count(f"1.2.{number}") for number in range(3)] == [1, 2, 2]


def test_an_answer_that_names_an_instance_of_its_own_is_taken(egress):
    """A receiver that coerces UIDs may say so (PS3.4 B.4.1.2); the Message ID tells whose answer it is."""

    def talk(partner: Partner, wire: raw.Wire) -> None:
        while command := partner.read(wire):
            wire.send(changed(command, AFFECTED_SOP_INSTANCE_UID="1.9", STATUS=0xB000))

    with raw.scripted_scp(Partner(2, talk)) as port:
        sender = egress(port, 2)
        assert send_all(sender, images(3)) == [0xB000] * 3
        sender.close()


def test_one_that_is_never_answered_is_noticed_beside_others_that_are(egress, audit):
    """It fails by itself once a partner that works through its window would have come to it; the others go on."""
    ended = threading.Event()

    def talk(partner: Partner, wire: raw.Wire) -> None:
        while command := partner.read(wire):
            if command[dimse.AFFECTED_SOP_INSTANCE_UID] != "1.2.7":
                answer(wire, command)

    partner = Partner(2, talk)
    with raw.scripted_scp(partner) as port:
        sender = egress(port, 2, response_timeout_s=1)
        assert send_all(sender, images(1)) == [0]
        with ThreadPoolExecutor(2) as pool:
            lost = pool.submit(send_all, sender, [outgoing(b"xx" * 50, "1.2.7", instance_id="lost")])
            assert until(lambda: "1.2.7" in partner.stored, WITHIN_S)

            def go_on() -> list:
                results = []
                while not ended.is_set():
                    results += send_all(sender, [outgoing(b"xx" * 50, f"1.3.{len(results)}")])
                    time.sleep(0.02)
                return results

            others = pool.submit(go_on)
            try:
                (error,) = lost.result(WITHIN_S)
                time.sleep(0.2)
            finally:
                ended.set()
            assert set(others.result()) == {0}
        sender.close()
    assert error.code == "no-answer" and error.about_instance
    assert [line["instance_id"] for line in audit.lines(events.DELIVERY) if line["outcome"] == "failure"] == ["lost"]


def test_who_reads_no_further_is_waited_for_once(egress):
    """What is behind half a PDU would be taken for the rest of it: no A-ABORT follows, and none is waited for."""

    def talk(partner: Partner, wire: raw.Wire) -> None:
        done.wait(WITHIN_S)

    class Narrow(Partner):
        def __call__(self, wire: raw.Wire) -> None:
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            super().__call__(wire)

    done = threading.Event()
    with raw.scripted_scp(Narrow(2, talk)) as port:
        sender = egress(port, 2, response_timeout_s=3)
        began = time.monotonic()
        (error,) = send_all(sender, [outgoing(bytes(40_000_000), "1.2.1")])
        took = time.monotonic() - began
        done.set()
    assert error.code == "no-answer" and 3 <= took < 5.5


def test_what_is_not_accepted_any_more_after_a_new_association_waits(egress):
    """The partner ends the association while the instance is made ready, and takes less on the next one."""

    def serve(wire: raw.Wire) -> None:
        _, body = wire.read()
        request = read_request(body)
        calls.append(request)
        result = 0 if len(calls) == 1 else 3
        contexts = b"".join(
            raw.context_ac(one.context_id, result, one.transfer_syntaxes[0]) for one in request.contexts
        )
        wire.send(raw.associate(0x02, contexts=contexts))
        if len(calls) == 1:
            opened.wait(WITHIN_S)
            return
        wire.read()
        wire.send(raw.RELEASE_RP)

    calls: list = []
    opened = threading.Event()
    item = outgoing(b"xx", "1.2.1")

    def late():
        opened.set()
        time.sleep(0.5)
        return item.open()

    with raw.scripted_scp(serve) as port:
        (result,) = send_all(egress(port, 1), [replace(item, open=late)])
    assert isinstance(result, TransientError) and result.code == "association-ended"
