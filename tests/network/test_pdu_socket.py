"""Writing PDUs: whole and in order however little the other side takes at a time, and in parts without joining them."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
from types import SimpleNamespace

import pytest

from gateway.network.pdu_socket import DataPdu, GatewaySocket, send_parts
from tests.support.network.certificates import Authority


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.settimeout(5)
    association = SimpleNamespace(dul=SimpleNamespace(event_queue=queue.SimpleQueue()), _ae=None)
    with ours, theirs:
        yield GatewaySocket(association, ours), theirs


def test_parts_arrive_whole_and_in_order(ends):
    connection, theirs = ends
    parts = [os.urandom(size) for size in (0, 6, 100_000, 1, 0, 12, 300_000)] + [b"ab"] * 2000
    received = bytearray()

    def read() -> None:
        while len(received) < sum(map(len, parts)):
            received.extend(theirs.recv(1000))

    reader = threading.Thread(target=read)
    reader.start()
    connection.send_parts([memoryview(part) for part in parts])
    reader.join(30)
    assert bytes(received) == b"".join(parts)


def test_over_tls_as_well_small_parts_together_and_large_ones_as_they_are(tmp_path, monkeypatch):
    tls = Authority(tmp_path).issue("peer")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(tls.trust))
    server.load_cert_chain(tls.certificate, tls.private_key)
    here, there = socket.socketpair()
    parts = [b"head", b"er", bytes(os.urandom(200_000)), b"", b"next", bytes(os.urandom(70_000))]
    received = bytearray()

    def read() -> None:
        with server.wrap_socket(there, server_side=True) as theirs:
            while data := theirs.recv(4096):
                received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    written: list[int] = []
    honest = ssl.SSLSocket.sendall
    monkeypatch.setattr(ssl.SSLSocket, "sendall", lambda sock, data: written.append(len(data)) or honest(sock, data))
    with client.wrap_socket(here, server_hostname="localhost") as ours:
        send_parts(ours, [memoryview(part) for part in parts])
    reader.join(30)
    assert bytes(received) == b"".join(parts)
    assert written == [6, 200_000, 4, 70_000]


def test_what_is_to_outlast_the_next_pdu_is_kept_in_memory_of_its_own():
    body = bytearray(b"\0\0\0\4\1\2ab\0\0\0\3\3\0c")
    pdu = DataPdu(memoryview(body))
    kept = pdu.kept()
    body[:] = bytes(len(body))
    assert [(context, bytes(data)) for context, data in kept.fragments] == [(1, b"\2ab"), (3, b"\0c")]
    assert bytes(pdu.fragments[0][1]) == bytes(3)


def test_a_peer_that_takes_nothing_is_an_error(ends):
    connection, _ = ends
    connection.connected.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.send_parts([bytes(10_000_000)])


def test_a_connection_that_has_ended_is_an_error(ends):
    connection, theirs = ends
    theirs.close()
    with pytest.raises(OSError):
        connection.send_parts([b"x"])
