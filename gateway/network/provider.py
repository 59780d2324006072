"""The thread that owns an association's socket: reads what is due, sends what is handed to it, and keeps the state.

pynetdicom's, with the parts replaced that `gateway.network.upper_layer` names.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import A_ABORT_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA

from gateway.errors import DicomError, GatewayError
from gateway.network.associate_pdus import LONGEST_ASSOCIATE, read_request
from gateway.network.pdu_socket import CLOSING_WAIT_S, DataPdu, GatewaySocket, WakeUp
from gateway.network.proxy_protocol import FIRST_BYTES

if TYPE_CHECKING:
    from gateway.network.upper_layer import GatewayAssociation

_SHORTEST_LIMIT = 256 << 10  # bytes of a P-DATA-TF that are always taken: some senders overstep what we state
_LONGEST_SMALL = 1024  # bytes of A-RELEASE-RQ, A-RELEASE-RP and A-ABORT, which have four
LONGEST_WAIT_S = 0.25  # timers (ARTIM, idle) are looked at this often
_SENDING = ("Sta6", "Sta8")  # in which P-DATA may be sent
_ASSOCIATE_RQ, _P_DATA_TF, _RELEASE_RQ, _RELEASE_RP, _ABORT = 0x01, 0x04, 0x05, 0x06, 0x07  # PS3.8 9.3.1


class EncodedData(P_DATA):
    """P-DATA that is encoded already: whole P-DATA-TF PDUs (PS3.8 9.3.5), which go to the socket as they are."""

    def __init__(self, pdus: bytes | bytearray) -> None:
        super().__init__()
        self.pdus = pdus


class _GatewayStateMachine(StateMachine):
    """The state machine of PS3.8 9.2, that ends an association instead of a thread when it is surprised."""

    def __init__(self, dul: GatewayDul) -> None:
        super().__init__(dul)
        self._gateway_dul = dul

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception as error:  # an event that this state does not know, or an action that failed
            self._gateway_dul.fail(error.code if isinstance(error, GatewayError) else "protocol-error")
        self._gateway_dul.tell_association()


class GatewayDul(DULServiceProvider):
    """The thread that owns the socket."""

    def __init__(self, assoc: GatewayAssociation) -> None:
        super().__init__(assoc)
        self._gateway_association = assoc
        self.daemon = True  # a stuck peer must not keep the process from ending
        self.wake_up = WakeUp()
        self.state_machine = _GatewayStateMachine(self)
        self._is_broken = False  # something was sent that ends the association; its event is under way
        self._is_reading = False
        self._room = bytearray()  # one P-DATA-TF after the other is read into it: new memory would be cleared for each
        self._acting = threading.RLock()  # who has it sends, and the state stays as it is
        self._turning = threading.Lock()  # who has it reads
        self._at_home = threading.Event()  # nobody has borrowed the socket
        self._at_home.set()
        self._borrower: threading.Thread | None = None
        self._held: list[bytes | memoryview] = []  # of the borrower: goes with the next

    @property
    def connection(self) -> GatewaySocket:
        """The socket with its reading and writing."""
        assert isinstance(self.socket, GatewaySocket)  # set before the thread starts
        return self.socket

    def run_reactor(self) -> None:
        try:
            self._idle_timer.start()
            self._gateway_association._dul_ready.set()
            while not self._kill_thread:
                self._at_home.wait()
                with self._turning:
                    self._turn()
        finally:
            self.connection._shutdown_socket()
            self.wake_up.close()
            self._gateway_association.connection_ended()
            self._gateway_association.places.give_back()
            self._gateway_association.activity.set()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """The socket is the calling thread's in the block: nothing is read or sent but by what it calls here.

        For an exchange of many messages: none of them waits until another thread was woken up. What others hand over
        meanwhile, an abort above all, is sent in the next `turn`, or at the end of the block.
        """
        self._at_home.clear()
        self.wake_up.ring()
        with self._turning:
            self._borrower = threading.current_thread()
            try:
                yield
                self.flush()
            finally:
                self._borrower = None
                self._held.clear()
                self._at_home.set()

    @property
    def is_borrowed(self) -> bool:
        """Whether the calling thread has borrowed the socket."""
        return self._borrower is threading.current_thread()

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._kill_thread or not self.is_alive()

    def turn(self) -> None:
        """Wait a moment for something to read or to send, and act on it; for who has borrowed the socket."""
        self.flush()
        self._turn()

    def flush(self) -> None:
        """Send what waits for something to go with; for who has borrowed the socket."""
        if self._held:
            self.send_data(())

    def hear(self) -> None:
        """Act on all that has come, where the calling thread has borrowed the socket: else its own thread does."""
        while self.is_borrowed and not self.is_over and self.connection.has_unread:
            self._turn()

    def _turn(self) -> None:
        """Send one primitive or read one PDU, and act on the event that came of it or waited.

        As a turn of pynetdicom's loop, which gives the interpreter away in each: `GatewaySocket.ready` waits.
        """
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        with self._acting:
            if self._process_recv_primitive():
                self._act()
                return
        if self._is_transport_event():
            self._idle_timer.restart()
        with self._acting:
            self._act()

    def _act(self) -> None:
        if not self.event_queue.empty():  # who acts takes from it, nobody else
            self.state_machine.do_action(self.event_queue.get(block=False))

    def send_data(self, parts: Sequence[bytes | memoryview], *, may_wait: bool = False) -> None:
        """Send whole P-DATA-TF PDUs, in the calling thread where that is possible: when this returns, they have left.

        Over TLS, and behind what waits to be sent, they are queued for the thread that owns the socket.

        Parameters
        ----------
        may_wait
            They may go with the next ones, or with `flush`, where the calling thread has borrowed the socket.
        """
        if self.is_borrowed:
            self._held += parts
            if may_wait:
                return
            parts, self._held = self._held, []
        with self._acting:  # what that thread has taken from its queue, it has sent
            is_ours = self.is_borrowed or threading.current_thread() is self
            may_send = self.connection.is_plain or is_ours
            if may_send and self.to_provider_queue.empty() and self.event_queue.empty():
                if self._state in _SENDING:
                    self._send_parts(parts)
                return
        self.send_pdu(EncodedData(b"".join(parts)))

    def answer(self, pdu: bytes) -> None:
        """Send one whole P-DATA-TF: at once in this thread, from any other as soon as this one can.

        Others do not wait here, since this thread may wait for them while it acts on what it has read.
        """
        if threading.current_thread() is self:
            self.send_data([pdu])
        else:
            self.send_pdu(EncodedData(pdu))

    def _send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            self.connection.send_parts(parts)
        except OSError:
            self.event_queue.put("Evt17")  # the connection has ended
            self.wake_up.ring()

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        if threading.current_thread() is not self:
            self.wake_up.ring()

    def _process_recv_primitive(self) -> bool:
        """As pynetdicom's; what is encoded already is sent at once (actions DT-1 and AR-7 of PS3.8 9.2 do no more)."""
        waiting = self.to_provider_queue.queue
        first = waiting[0] if waiting else None
        if isinstance(first, EncodedData):
            self.to_provider_queue.get(False)  # this thread alone takes from it
            if self._state in _SENDING:
                self.connection.send(first.pdus)
            return True
        return super()._process_recv_primitive()

    @property
    def has_read_all(self) -> bool:
        """Whether all that has come was read and acted on."""
        return self.wake_up.is_waiting and not self.connection.has_unread

    @property
    def patience_s(self) -> float:
        """How long the socket may be waited for: not at all while there are events to act on."""
        if not self.event_queue.empty():
            return 0
        return CLOSING_WAIT_S if self._state == "Sta13" else LONGEST_WAIT_S

    @property
    def _state(self) -> str:
        """The state of PS3.8 table 9-10, ``Sta1`` to ``Sta13``."""
        return self.state_machine.current_state

    @property
    def _is_waiting(self) -> bool:
        """Whether an A-ASSOCIATE-RQ is due and nothing else."""
        return self._state in ("Sta1", "Sta2")

    def kill_dul(self) -> None:
        super().kill_dul()
        if threading.current_thread() is not self:
            self.wake_up.ring()

    def stop_dul(self) -> bool:
        if self._state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    def tell_association(self) -> None:
        """Wake the association's thread when there is something for it."""
        if not (self.to_user_queue.empty() and self.assoc.dimse.msg_queue.empty()):
            self._gateway_association.activity.set()

    def fail(self, flaw: str) -> None:
        """End the association at once: A-ABORT by the service provider, and the connection closed (PS3.8 9.3.8)."""
        self._gateway_association.note_flaw(flaw)
        abort = A_ABORT_RQ()
        abort.source = 0x02
        abort.reason_diagnostic = 0x00
        self.connection.send(abort.encode())
        self.connection.close()
        primitive = A_P_ABORT()
        primitive.provider_reason = 0x00
        self.to_user_queue.put(primitive)
        self.assoc.dimse.msg_queue.put((None, None))
        self.state_machine.current_state = "Sta1"
        self.kill_dul()

    def _send(self, pdu: Any) -> None:
        """Send one PDU; P-DATA-TF, which is nearly all of them, without the generic encoder."""
        if not isinstance(pdu, P_DATA_TF):
            self.connection.send(pdu.encode())
            return
        body = b"".join(
            struct.pack(">LB", len(value) + 1, item.presentation_context_id) + value
            for item in pdu.presentation_data_value_items
            for value in (item.presentation_data_value or b"",)
        )
        self.connection.send(struct.pack(">BBL", _P_DATA_TF, 0, len(body)) + body)

    def _read_pdu_data(self) -> None:
        """Read one PDU and queue its event: Evt17 connection closed, Evt19 not a PDU that is due, else its own."""
        if self._state == "Sta13" or self._is_broken:  # all is said: what still comes is not looked at
            self.connection.drain()
            self.event_queue.put("Evt17")
            return
        try:
            self._is_reading = True
            pdu, event = self._read_due_pdu()
        except TimeoutError:
            self._gateway_association.note_flaw("associate-timeout" if self._is_waiting else "pdu-timeout")
            self.event_queue.put("Evt17")
        except OSError:
            self.event_queue.put("Evt17")
        except Exception as error:  # ours, or whatever pynetdicom raises on a malformed PDU
            self._is_broken = True
            self._gateway_association.note_flaw(error.code if isinstance(error, DicomError) else "malformed-pdu")
            self.event_queue.put("Evt19")
        else:
            if isinstance(pdu, DataPdu) and self._state == "Sta6" and self.event_queue.empty():
                self._indicate(pdu)
            else:
                waits: Any = pdu.kept() if isinstance(pdu, DataPdu) else pdu
                self._recv_pdu.put(waits)
                self.event_queue.put(event)
        finally:
            self._is_reading = False

    def _indicate(self, pdu: DataPdu) -> None:
        """Hand data on at once, which is nearly all that comes (action DT-2 of PS3.8 9.2 does no more).

        Who takes it copies what is to stay: the next PDU is read into the same memory.
        """
        with self._acting:
            try:
                self.assoc.dimse.receive_primitive(pdu.to_primitive())
            except Exception as error:
                self.fail(error.code if isinstance(error, GatewayError) else "protocol-error")
            self.tell_association()

    def begin_idle_time(self) -> None:
        """From now on the peer may be silent for as long as it may."""
        self._idle_timer.restart()

    def idle_timer_expired(self) -> bool:
        """Whether nothing has come for too long; a PDU that has begun to come has a time of its own."""
        return not self._is_reading and bool(super().idle_timer_expired())

    def _read_due_pdu(self) -> tuple[Any, str]:
        """The next PDU, decoded, and its event.

        Raises
        ------
        DicomError
            ``unexpected-pdu``, ``pdu-too-long``, ``bad-associate-request``, ``proxy-header-not-expected``: what is too
            long is never read, and what is not due never decoded.
        OSError
            The connection has ended, or the PDU takes too long (TimeoutError).
        """
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        longest = self._longest(kind)
        if self._is_waiting and kind in FIRST_BYTES:
            raise DicomError("proxy-header-not-expected", "a PROXY header where none may be, or a second one")
        if longest == 0:
            raise DicomError("unexpected-pdu", f"a PDU of type {kind:#04x} is not due")
        if length > longest:
            raise DicomError("pdu-too-long", f"a PDU of {length} bytes where {longest} are the most")
        if kind == _P_DATA_TF:
            return DataPdu(self._into_room(length)), "Evt10"
        body = self._exactly(length)
        if kind == _ASSOCIATE_RQ:
            request = read_request(body)
            self._gateway_association.associate_request = request
            return self._decode_pdu(bytearray(request.encode()))
        return self._decode_pdu(bytearray(struct.pack(">BBL", kind, 0, 4) + bytes(body[:4]).ljust(4, b"\0")))

    def _longest(self, kind: int) -> int:
        """The most bytes that a PDU of this type may have now; 0 when none is due."""
        if kind == _ABORT:
            return _LONGEST_SMALL
        if self._is_waiting:
            return LONGEST_ASSOCIATE if kind == _ASSOCIATE_RQ else 0
        if kind == _P_DATA_TF and self._state != "Sta3":  # Sta3: our own answer to the request is under way
            return max(_SHORTEST_LIMIT, 2 * self.assoc.ae.maximum_pdu_size)
        return _LONGEST_SMALL if kind in (_RELEASE_RQ, _RELEASE_RP) else 0

    def _into_room(self, length: int) -> memoryview:
        """As `_exactly`, in memory that is used again for the next."""
        if len(self._room) < length:
            self._room = bytearray(length)
        view = memoryview(self._room)[:length]
        if self.connection.read_into(view) < length:
            raise ConnectionError("the peer closed the connection")
        return view

    def _exactly(self, length: int) -> bytearray:
        data = self.connection.recv(length)
        if len(data) < length:
            raise ConnectionError("the peer closed the connection")
        return data
