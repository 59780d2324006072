"""Reading and writing PDUs on the acceptor's side: whole, under a deadline, and without a copy more than needed."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from gateway.network.upper_layer import GatewayAssociation

_MOST_PARTS = 512  # that the system takes at a time (IOV_MAX of Linux is 1024)
_TLS_RECORD = 16 << 10  # bytes of the longest record of TLS (RFC 8446 5.1)
CLOSING_WAIT_S = 0.02  # after our last PDU the peer may close first; then its stack has read that PDU for certain


def send_parts(sock: socket.socket, parts: Iterable[bytes | memoryview]) -> None:
    """Send parts one after the other, without putting them together; raises as `sendall`.

    TLS has no `sendmsg`: there small parts go in one write, and large ones as they are in writes of their own.
    """
    if isinstance(sock, ssl.SSLSocket):
        for part in _small_ones_joined(parts):
            sock.sendall(part)
        return
    left = deque(parts)
    while left:
        sent = sock.sendmsg(left if len(left) <= _MOST_PARTS else islice(left, _MOST_PARTS))
        while left and sent >= len(left[0]):
            sent -= len(left.popleft())
        if sent:
            left[0] = memoryview(left[0])[sent:]


def _small_ones_joined(parts: Iterable[bytes | memoryview]) -> Iterator[bytes | bytearray | memoryview]:
    small = bytearray()
    for part in parts:
        if len(part) < _TLS_RECORD:
            small += part
            continue
        if small:
            yield small
            small = bytearray()
        yield part
    if small:
        yield small


class WakeUp:
    """Wakes the one thread that waits for a socket when another thread has something for it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()  # so that no ring can hit a descriptor that was closed and reused
        self._open = True
        self.is_waiting = False  # the one thread waits, or looks whether there is anything

    def ring(self) -> None:
        with self._lock:
            if self._open:
                with contextlib.suppress(BlockingIOError):  # it rings already
                    os.write(self._writer, b"\0")

    def wait(self, sock: socket.socket, timeout_s: float) -> bool:
        """Wait for data on `sock`, for a ring or for the timeout; True when `sock` can be read (or has failed)."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._reader, select.POLLIN)
        self.is_waiting = True
        try:
            ready = [descriptor for descriptor, _ in poll.poll(timeout_s * 1000)]
        finally:
            self.is_waiting = False
        if self._reader in ready:
            os.read(self._reader, 65536)
            ready.remove(self._reader)
        return bool(ready)

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._reader)
            os.close(self._writer)


class GatewaySocket(AssociationSocket):
    """Reads in whole PDUs with the socket's timeout as the deadline of each, sends without copying."""

    def __init__(self, assoc: GatewayAssociation, client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._gateway_association = assoc

    @property
    def ready(self) -> bool:
        """Wait until there is data, something to send, or a quarter of a second has gone by."""
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        # TLS may hold decrypted bytes that the operating system no longer knows of.
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        dul = self._gateway_association.dul
        try:
            return dul.wake_up.wait(sock, dul.patience_s)
        except (OSError, ValueError):  # closed under our feet
            self.event_queue.put("Evt17")
            return False

    @property
    def has_unread(self) -> bool:
        """Whether bytes have come that nobody has read yet."""
        sock = self.socket
        poll = select.poll()
        try:
            if sock is None:
                return False
            if isinstance(sock, ssl.SSLSocket) and sock.pending():
                return True
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed under our feet
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer when the peer closes; TimeoutError when they take too long."""
        data = bytearray(nr_bytes)
        with memoryview(data) as view:
            read = self.read_into(view)
        del data[read:]
        return data

    def read_into(self, view: memoryview) -> int:
        """Fill `view` as `recv` does; returns how many bytes there are."""
        sock = self.socket
        if sock is None:
            raise OSError("closed")
        timeout_s = sock.gettimeout()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        phase_ends = self._gateway_association.request_due
        read = 0
        while read < len(view):
            if phase_ends is not None:
                sock.settimeout(max(0.001, phase_ends - time.monotonic()))
            _acknowledge_at_once(sock)
            count = sock.recv_into(view[read:])
            if count == 0:
                break
            read += count
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the peer was too slow in sending a PDU")
        return read

    def send(self, bytestream: bytes | bytearray) -> None:
        try:
            self.connected.sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")

    @property
    def is_plain(self) -> bool:
        """Whether threads may send and read side by side: a connection of TLS is one thread's."""
        return not isinstance(self.socket, ssl.SSLSocket)

    def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send parts one after the other, as `send_parts`; OSError, and nothing is queued for it."""
        send_parts(self.connected, parts)

    @property
    def connected(self) -> socket.socket:
        """The socket; OSError when it is closed already."""
        if self.socket is None:
            raise OSError("the connection is closed")
        return self.socket

    def drain(self) -> None:
        """Throw away what has arrived, so that closing does not reset the connection under our own last PDU."""
        with contextlib.suppress(OSError):
            self.connected.settimeout(CLOSING_WAIT_S)
            self.connected.recv(65536)

    def _shutdown_socket(self) -> None:
        """Close the socket; stock pynetdicom leaves it open when the peer was quicker."""
        if self.socket is None:
            return
        with contextlib.suppress(OSError):  # not connected any more
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _acknowledge_at_once(sock: socket.socket) -> None:
    """Send the next ACK without delay, where the system can (Linux forgets the wish, so it is said for each read).

    A sender without TCP_NODELAY, as DCMTK is by default, holds back the end of each message until we acknowledge what
    came before, and without this we would acknowledge late.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class DataPdu:
    """A received P-DATA-TF PDU (PS3.8 9.3.5): its fragments, each with the id of its presentation context.

    They are views of the body: good for as long as that is.

    Raises
    ------
    ValueError
        The items do not add up to the PDU.
    """

    def __init__(self, body: bytearray | memoryview) -> None:
        self._body = body
        self.fragments: list[tuple[int, memoryview]] = []
        view = memoryview(body)
        at = 0
        while at < len(view):
            if at + 6 > len(view):
                raise ValueError("truncated presentation data value item")
            length, context_id = struct.unpack_from(">LB", view, at)
            if length < 2 or at + 4 + length > len(view):
                raise ValueError("presentation data value item longer than its PDU")
            self.fragments.append((context_id, view[at + 5 : at + 4 + length]))
            at += 4 + length

    def kept(self) -> DataPdu:
        """The same in memory of its own."""
        return DataPdu(bytearray(self._body))

    def to_primitive(self) -> P_DATA:
        primitive = P_DATA()
        # Views, where pynetdicom asks for bytes: what reads them here takes both, and nothing is copied.
        primitive.presentation_data_value_list.extend(cast("list[tuple[int, bytes]]", self.fragments))
        return primitive
