"""The connection of an association that we ask for: whole PDUs out and in, each under a deadline.

Where several requests are under way, one thread reads while another sends. OpenSSL does not bear that at the same
moment, so both take turns at the socket, and whoever reads waits for bytes outside of its turn.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from gateway.errors import TransientError
from gateway.network.associate_pdus import LONGEST_ASSOCIATE
from gateway.network.connect import Peer, connect, lost
from gateway.network.pdu_socket import send_parts
from gateway.network.scu_pdus import P_DATA

_LONGEST_PDU = 2 << 20  # bytes of a P-DATA-TF

Patience = Callable[[], float]
"""Seconds that may still be waited for the rest of a PDU; asked again and again."""


def until(deadline: float) -> Patience:
    """Patience that ends at a time of `time.monotonic`."""
    return lambda: deadline - time.monotonic()


class ScuWire:
    """An open connection; one thread at a time reads, and one at a time sends PDUs.

    Raises
    ------
    TransientError
        As `gateway.network.connect.connect`; of its methods ``connection-lost``, ``no-answer``, ``unexpected-answer``
        and ``certificate-refused``.
    """

    def __init__(self, peer: Peer) -> None:
        self._blocked_s = peer.response_timeout_s
        self._socket = connect(peer)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._turn = threading.Lock()
        self._read = threading.Lock()  # held while somebody reads: a descriptor that is waited for is not closed
        self._is_cut = False  # half a PDU went out: what followed would be taken for the rest of it
        self.last_sent = time.monotonic()

    def send(self, *parts: bytes) -> None:
        """Send PDUs, in whatever parts they come; after one that could not be sent whole, nothing."""
        try:
            with self._turn:
                if self._is_cut:
                    raise TimeoutError
                self._is_cut = True
                self._socket.settimeout(self._blocked_s)
                send_parts(self._socket, parts)
                self._is_cut = False
        except TimeoutError:
            raise TransientError("no-answer", "the peer does not read what it is sent") from None
        except OSError as error:
            raise lost(error) from None
        self.last_sent = time.monotonic()

    def read_pdu(self, patience: Patience) -> tuple[int, bytearray]:
        """Type and body of the next PDU."""
        with self._read:
            kind, _, length = struct.unpack(">BBL", self._exactly(6, patience))
            if not 0x01 <= kind <= 0x07 or length > (_LONGEST_PDU if kind == P_DATA else LONGEST_ASSOCIATE):
                raise TransientError("unexpected-answer", "the peer does not speak DICOM")
            return kind, self._exactly(length, patience)

    def skip(self, length: int, patience: Patience) -> None:
        """Read so many bytes, whatever they are."""
        with self._read:
            self._exactly(length, patience)

    def first_byte(self) -> bytes | None:
        """What the peer has begun to say, or nothing where it has closed; None: it is silent."""
        if not self._poll.poll(0):
            return None
        data = bytearray(1)
        try:
            count = self._receive(memoryview(data))
        except OSError:
            return b""
        return None if count is None else bytes(data[:count])

    def close(self) -> None:
        """Close it, after whoever reads has been told."""
        if not self._read.acquire(blocking=False):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # past that of TLS, which would read on in clear
            self._read.acquire()
        try:
            with self._turn:
                self._socket.close()
        finally:
            self._read.release()

    def _exactly(self, length: int, patience: Patience) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        read = 0
        while read < length:
            left = patience()
            try:
                if left <= 0:
                    raise TimeoutError
                count = self._receive(view[read:])
                if count is None:
                    self._poll.poll(left * 1000)
                    continue
            except TimeoutError:
                raise TransientError("no-answer", "the peer did not answer in time") from None
            except OSError as error:
                raise lost(error) from None
            if count == 0:
                raise TransientError("connection-lost", "the peer closed the connection")
            read += count
        return data

    def _receive(self, view: memoryview) -> int | None:
        """How many bytes came, 0 at the end; None: none yet, or a record of TLS itself, such as a session ticket."""
        with self._turn:
            self._socket.settimeout(0)
            try:
                return self._socket.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
