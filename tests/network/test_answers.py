"""Answers to C-STORE leave in the thread that took them: whole among others, and not for ever where nobody reads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from gateway.network import command as dimse
from gateway.network.tls import client_context
from tests.network.test_ingress import gateway_threads, until
from tests.support.network import raw
from tests.support.network.samples import ct
from tests.support.network.windowed import answer, store, window_item

WITHIN_S = 20
SMALL = 2048  # bytes of a buffer of the system, which makes it more


def echo(number: int) -> bytes:
    command: dimse.Command = {
        dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1",
        dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
        dimse.MESSAGE_ID: number,
        dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
    }
    return raw.data(1, 3, dimse.encode_command(command))


@contextlib.contextmanager
def association(port: int, window: int | None, tls, *, buffer: int | None = None) -> Iterator[raw.Wire]:
    with socket.socket() as plain:
        if buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.connect(("127.0.0.1", port))
        plain.settimeout(WITHIN_S)
        wire = raw.Wire(tls.wrap_socket(plain) if tls else plain)
        with wire.sock:
            more = b"" if window is None else window_item(window)
            wire.send(raw.associate(user=raw.user_information(more=more)))
            assert wire.read()[0] == 0x02
            yield wire


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secured(request, authority):
    """What the ingress is started with, and the context of who calls it."""
    if not request.param:
        return {}, None
    context = client_context(authority.issue("archive"))
    context.check_hostname = False
    return {"tls": authority.issue("gateway")}, context


@pytest.mark.parametrize("window", [None, 8])
def test_answers_of_two_kinds_come_whole_and_each_once(start_ingress, receiver, secured, window):
    """C-ECHO is answered by another thread than C-STORE."""
    settings, tls = secured
    uid, data = ct()
    waiting, answered = 0, []
    with association(start_ingress(**settings).port, window, tls) as wire:
        for number in range(1, 301):
            wire.send(echo(number) if number % 4 == 0 else store(number, f"{uid[:40]}.{number}", data[:600]))
            waiting += 1
            if waiting == 12:
                answered.append(answer(wire))
                waiting -= 1
        answered += [answer(wire) for _ in range(waiting)]
        wire.send(raw.RELEASE_RQ)
        assert wire.read()[0] == 0x06
    assert sorted(answered) == [(number, 0) for number in range(1, 301)]
    assert len(receiver.committed) == 225


@pytest.mark.parametrize("window", [None, 8])
def test_a_peer_that_reads_no_answer_is_let_go_in_time(start_ingress, receiver, secured, window):
    settings, tls = secured
    ingress = start_ingress(idle_timeout_s=1, **settings)
    uid, data = ct()
    ended = threading.Event()
    with association(ingress.port, window, tls, buffer=SMALL) as wire:
        assert until(lambda: ingress._server.associations, WITHIN_S)  # it is told that it is before it is so here
        [ours] = ingress._server.associations
        ours.dul.connection.connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    wire.send(store(1, uid, data[:100]))
            ended.set()

        threading.Thread(target=send, daemon=True).start()
        assert ended.wait(WITHIN_S), "it may hold its place for ever"
        assert until(lambda: not gateway_threads(), WITHIN_S)
    assert receiver.committed
