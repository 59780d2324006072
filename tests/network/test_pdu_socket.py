"""Writing PDUs: whole and in order however little the other side takes at a time, and in parts without joining them."""

from __future__ import annotations

import os
import queue
import socket
import threading
from types import SimpleNamespace

import pytest

from gateway.network.pdu_socket import GatewaySocket


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
