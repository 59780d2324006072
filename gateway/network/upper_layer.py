"""pynetdicom's acceptor side, with the parts replaced that do not stand up to a busy or hostile network.

Stock pynetdicom 3.0.4 reads sockets in 4 KiB pieces without a deadline, polls every millisecond in two threads per
association, and leaves threads behind when a peer stalls in the middle of a PDU. The classes here keep its state
machine and its negotiation (PS3.8 chapter 9) and replace the waiting, the reading and the ending:

- every wait is for an event (data, a primitive to send, a deadline), so a message costs no sleep and idle
  associations cost nothing;
- a PDU has to arrive within the idle timeout and to be of a sane length;
- an association that ends, in whatever way, closes its socket and ends both of its threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import ssl
import struct
import threading
import time

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_P_ABORT, P_DATA
from pynetdicom.transport import AssociationSocket

from gateway.network.tls import PeerCertificate

_LONGEST_PDU = 2 << 20  # bytes; our largest configurable maximum is 1 MiB, some senders overstep theirs by a header
_LONGEST_WAIT_S = 0.25  # timers (ARTIM, idle) are looked at this often
_CLOSING_WAIT_S = 0.02  # after our last PDU the peer may close first; then its stack has read that PDU for certain
_P_DATA_TF = 0x04  # PS3.8 9.3.5


class WakeUp:
    """Wakes the one thread that waits for a socket when another thread has something for it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()  # so that no ring can hit a descriptor that was closed and reused
        self._open = True

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
        ready = [descriptor for descriptor, _ in poll.poll(timeout_s * 1000)]
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

    @property
    def ready(self) -> bool:
        """Wait until there is data, something to send, or a quarter of a second has gone by."""
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        # TLS may hold decrypted bytes that the operating system no longer knows of.
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        try:
            return self.assoc.dul.wake_up.wait(sock, self.assoc.dul.patience_s)
        except (OSError, ValueError):  # closed under our feet
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer when the peer closes; TimeoutError when they take too long."""
        data = bytearray(nr_bytes)
        view = memoryview(data)
        timeout_s = self.socket.gettimeout()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        read = 0
        while read < nr_bytes:
            _acknowledge_at_once(self.socket)
            count = self.socket.recv_into(view[read:])
            if count == 0:
                view.release()
                del data[read:]
                break
            read += count
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the peer takes too long to send one PDU")
        return data

    def send(self, bytestream: bytes) -> None:
        try:
            self.socket.sendall(bytestream)
        except (OSError, AttributeError):  # AttributeError: already closed, the socket is None
            self.event_queue.put("Evt17")

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

    Raises
    ------
    ValueError
        The items do not add up to the PDU.
    """

    def __init__(self, body: bytearray) -> None:
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

    def to_primitive(self) -> P_DATA:
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(self.fragments)
        return primitive


class _GatewayStateMachine(StateMachine):
    """The state machine of PS3.8 9.2, that ends an association instead of a thread when it is surprised."""

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception:  # an event that this state does not know, or an action that failed
            self.dul.fail()
        self.dul.tell_association()


class GatewayDul(DULServiceProvider):
    """The thread that owns the socket."""

    def __init__(self, assoc: GatewayAssociation) -> None:
        super().__init__(assoc)
        self.daemon = True  # a stuck peer must not keep the process from ending
        self.wake_up = WakeUp()
        self.state_machine = _GatewayStateMachine(self)
        self._run_loop_delay = 0  # `GatewaySocket.ready` does the waiting

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self.socket._shutdown_socket()
            self.wake_up.close()
            self.assoc.connection_ended()
            self.assoc.activity.set()

    def send_pdu(self, primitive: object) -> None:
        super().send_pdu(primitive)
        if threading.current_thread() is not self:
            self.wake_up.ring()

    @property
    def patience_s(self) -> float:
        """How long the socket may be waited for: not at all while there are events to act on."""
        if not self.event_queue.empty():
            return 0
        return _CLOSING_WAIT_S if self.state_machine.current_state == "Sta13" else _LONGEST_WAIT_S

    def kill_dul(self) -> None:
        super().kill_dul()
        if threading.current_thread() is not self:
            self.wake_up.ring()

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def tell_association(self) -> None:
        """Wake the association's thread when there is something for it."""
        if not (self.to_user_queue.empty() and self.assoc.dimse.msg_queue.empty()):
            self.assoc.activity.set()

    def fail(self) -> None:
        """End the association at once: A-ABORT by the service provider, and the connection closed (PS3.8 9.3.8)."""
        abort = A_ABORT_RQ()
        abort.source = 0x02
        abort.reason_diagnostic = 0x00
        self.socket.send(abort.encode())
        self.socket.close()
        primitive = A_P_ABORT()
        primitive.provider_reason = 0x00
        self.to_user_queue.put(primitive)
        self.assoc.dimse.msg_queue.put((None, None))
        self.state_machine.current_state = "Sta1"
        self.kill_dul()

    def _send(self, pdu: object) -> None:
        """Send one PDU; P-DATA-TF, which is nearly all of them, without the generic encoder."""
        if not isinstance(pdu, P_DATA_TF):
            self.socket.send(pdu.encode())
            return
        body = b"".join(
            struct.pack(">LB", len(item.presentation_data_value) + 1, item.presentation_context_id)
            + item.presentation_data_value
            for item in pdu.presentation_data_value_items
        )
        self.socket.send(struct.pack(">BBL", _P_DATA_TF, 0, len(body)) + body)

    def _read_pdu_data(self) -> None:
        """Read one PDU and queue its event: Evt17 connection closed, Evt19 not a PDU, else the PDU's own."""
        try:
            header = self.socket.recv(6)
            if len(header) < 6:
                self.event_queue.put("Evt17")
                return
            pdu_type, _, length = struct.unpack(">BBL", header)
            if not 0x01 <= pdu_type <= 0x07 or length > _LONGEST_PDU:
                self.event_queue.put("Evt19")
                return
            body = self.socket.recv(length)
        except OSError:
            self.event_queue.put("Evt17")
            return
        if len(body) < length:
            self.event_queue.put("Evt17")
            return
        try:
            if pdu_type == _P_DATA_TF:
                pdu, event = DataPdu(body), "Evt10"
            else:
                pdu, event = self._decode_pdu(header + body)
        except Exception:  # whatever pynetdicom raises on a malformed PDU
            self.event_queue.put("Evt19")
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)


class GatewayAssociation(Association):
    """An association that a peer has asked us for.

    Attributes
    ----------
    association_id
        16 random hexadecimal digits; safe to log.
    certificate
        What the peer showed in the TLS handshake, or None without TLS.
    activity
        Set when the association's thread has something to look at.
    """

    dimse_class = DIMSEServiceProvider

    def __init__(self, ae: object, mode: str) -> None:
        self.association_id = secrets.token_hex(8)
        self.certificate: PeerCertificate | None = None
        self.activity = threading.Event()
        super().__init__(ae, mode)
        self.dul = GatewayDul(self)
        self.dimse = self.dimse_class(self)
        # The setters hand the timeouts on to the new DUL.
        self.acse_timeout = self.ae.acse_timeout
        self.network_timeout = self.ae.network_timeout

    def connection_ended(self) -> None:
        """Called in the socket's own thread after its last event, whatever ended the association."""

    def run_reactor(self) -> None:
        """The association's thread: negotiate, serve, end."""
        try:
            self.dul.start()
            self._started_dul = True
            self._dul_ready.wait()
            request = self._wait_for_request()
            if request is not None:
                self.requestor.primitive = request
                evt.trigger(self, evt.EVT_REQUESTED, {})
                if not self.is_aborted and not self.is_rejected:
                    self.acse.negotiate_association()
                if self.is_established:
                    self._run_reactor()
        finally:
            if self.dul.is_alive() and not (self.is_released or self.is_aborted or self.is_rejected):
                self.acse.send_abort(0x02)
            self.kill()
            self._server.association_ended(self)

    def _wait_for_request(self) -> A_ASSOCIATE | None:
        """The peer's A-ASSOCIATE-RQ, or None when it goes away, sends something else or takes too long."""
        deadline = None if self.acse_timeout is None else time.monotonic() + self.acse_timeout
        while self.dul.is_alive():
            self.activity.clear()
            primitive = self.dul.receive_pdu(wait=False)
            if primitive is not None:
                return primitive if isinstance(primitive, A_ASSOCIATE) else None
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self.activity.wait(left)
        return None

    def _run_reactor(self) -> None:
        """Serve requests until the peer releases, someone aborts, the connection ends or nothing happens for long."""
        with contextlib.suppress(OSError, AttributeError):  # closed already
            self.dul.socket.socket.settimeout(self.network_timeout)  # until here the one of the handshake held
        while not self._kill:
            self.activity.wait(_LONGEST_WAIT_S)
            self.activity.clear()
            context_id, message = self.dimse.get_msg(block=False)
            if message:
                self._serve_request(message, context_id)
                self.dul.tell_association()  # there may be more
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                return
            if self.acse.is_aborted():
                self.is_aborted = True
                self.is_established = False
                return
            if not self.dul.is_alive():
                return
            if self.dul.idle_timer_expired():
                self.abort(block=False)
                return
