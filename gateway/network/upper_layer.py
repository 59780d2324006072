"""pynetdicom's acceptor side, with the parts replaced that do not stand up to a busy or hostile network.

Stock pynetdicom 3.0.4 reads sockets in 4 KiB pieces without a deadline, polls every millisecond in two threads per
association, and leaves threads behind when a peer stalls in the middle of a PDU. The classes here keep its state
machine and its negotiation (PS3.8 chapter 9) and replace the waiting, the reading and the ending:

- every wait is for an event (data, a primitive to send, a deadline), so a message costs no sleep and idle
  associations cost nothing;
- a PDU has to arrive within its phase's time and to be one that is due: before the association nothing but an
  A-ASSOCIATE-RQ of at most 256 KiB is read, and that by `gateway.network.associate_pdus`;
- an association that ends, in whatever way, closes its socket, gives its places back and ends both of its threads, and
  `flaw` says in a word what was wrong with the peer.

What is changed in pynetdicom, and why there: `DULServiceProvider.run_reactor`, `_read_pdu_data`, `_send` and `stop_dul`
(waiting and reading) and `StateMachine.do_action` (a surprise ends the association, not the thread), both in
`gateway.network.provider`; `Association.run_reactor` and `_run_reactor` (no polling, no second thread left behind),
`AssociationSocket` (deadlines), `ACSE._check_async_ops` (the window that a port grants). Its negotiation, its state
table and its services stay.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable

from pynetdicom import evt
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE, AsynchronousOperationsWindowNegotiation

from gateway.network.admission import Counts, Places
from gateway.network.associate_pdus import AssociateRequest
from gateway.network.callers import Caller
from gateway.network.provider import LONGEST_WAIT_S, GatewayDul
from gateway.network.tls import PeerCertificate


class _GatewayAcse(ACSE):
    """Answers the asynchronous operations window that a peer asks for, of which pynetdicom knows (1, 1) alone."""

    def _check_async_ops(self) -> AsynchronousOperationsWindowNegotiation | None:
        association = self.assoc
        assert isinstance(association, GatewayAssociation)
        agreed = association.agree_window(association.requestor.asynchronous_operations[0])
        if agreed == 1:
            return None  # the default, PS3.7 D.3.3.3
        item = AsynchronousOperationsWindowNegotiation()
        item.maximum_number_operations_invoked = agreed  # by the peer
        item.maximum_number_operations_performed = 1  # we ask for nothing on it
        return item


class GatewayAssociation(Association):
    """An association that a peer has asked us for.

    Attributes
    ----------
    association_id
        16 random hexadecimal digits; safe to log.
    certificate
        What the peer showed in the TLS handshake, or None without TLS.
    balancer
        Address of who said in a PROXY header where the peer calls from; empty: it came by itself.
    caller
        Set by `ScpServer` before `admit` is asked; None until then.
    associate_request
        What the peer's A-ASSOCIATE-RQ says, once it has been read.
    request_due
        Time (`time.monotonic`) by which A-ASSOCIATE-RQ has to be read; None once it was.
    flaw
        The audit's word for what the peer did wrong, empty when nothing.
    places
        What the association takes of the port's limits.
    on_ended
        Called with the association as the last act of its thread.
    activity
        Set when the association's thread has something to look at.
    """

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        self.association_id = secrets.token_hex(8)
        self.certificate: PeerCertificate | None = None
        self.balancer = ""
        self.caller: Caller | None = None
        self.associate_request: AssociateRequest | None = None
        self.request_due: float | None = None
        self.flaw = ""
        self.places = Places(Counts())
        self.on_ended: Callable[[GatewayAssociation], None] = lambda _: None
        self.activity = threading.Event()
        super().__init__(ae, mode)
        self.dul: GatewayDul = GatewayDul(self)
        self.dimse = self.make_dimse()
        self.acse = _GatewayAcse(self)
        # The setters hand the timeouts on to the new DUL.
        self.acse_timeout = self.ae.acse_timeout
        self.network_timeout = self.ae.network_timeout

    @property
    def known_caller(self) -> Caller:
        """The caller, where there has to be one: after `ScpServer` has let it in."""
        if self.caller is None:
            raise RuntimeError("an association without a caller asks for service")
        return self.caller

    def note_flaw(self, flaw: str) -> None:
        """Note what the peer did wrong; the first word stays."""
        self.flaw = self.flaw or flaw

    def make_dimse(self) -> DIMSEServiceProvider:
        """What puts the fragments of this association's messages together; it has no socket yet."""
        return DIMSEServiceProvider(self)

    def agree_window(self, invoked: int) -> int:
        """How many operations the peer may have under way where it asks for `invoked` (0: as many as it likes)."""
        return 1

    def before_release(self) -> None:
        """Called in the association's thread before a release is answered: what is under way is answered first."""

    def is_busy(self) -> bool:
        """Whether the peer waits for an answer of ours: then its silence says nothing."""
        return False

    def connection_ended(self) -> None:
        """Called in the socket's own thread after its last event, whatever ended the association."""

    def run_reactor(self) -> None:
        """The association's thread: negotiate, serve, end."""
        try:
            if self.acse_timeout is not None:
                self.request_due = time.monotonic() + self.acse_timeout
            self.dul.start()
            self._started_dul = True
            self._dul_ready.wait()
            request = self._wait_for_request()
            if request is not None:
                self._time_allowed(self.acse_timeout)
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
            self.places.give_back()
            self.on_ended(self)

    def _wait_for_request(self) -> A_ASSOCIATE | None:
        """The peer's A-ASSOCIATE-RQ, or None when it goes away, sends something else or takes too long."""
        while self.dul.is_alive():
            self.activity.clear()
            primitive = self.dul.receive_pdu(wait=False)
            if primitive is not None:
                return primitive if isinstance(primitive, A_ASSOCIATE) else None
            left = None if self.request_due is None else self.request_due - time.monotonic()
            if left is not None and left <= 0:
                self.note_flaw("associate-timeout")
                return None
            self.activity.wait(left)
        return None

    def _time_allowed(self, seconds: float | None) -> None:
        """How long one PDU may take from now on, and one blocked send."""
        self.request_due = None
        with contextlib.suppress(OSError):  # closed already
            self.dul.connection.connected.settimeout(seconds)

    def _run_reactor(self) -> None:
        """Serve requests until the peer releases, someone aborts, the connection ends or nothing happens for long."""
        self._time_allowed(self.network_timeout)
        while not self._kill:
            self.activity.wait(LONGEST_WAIT_S)
            self.activity.clear()
            context_id, message = self.dimse.get_msg(block=False)
            if message is not None and context_id is not None:
                self._serve_request(message, context_id)
                self.dul.tell_association()  # there may be more
            if self.is_established and self.acse.is_release_requested():
                self.before_release()
                # The places first: who has the answer may come back at once, and finds them free.
                self.places.give_back()
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
            if not self.is_busy() and self.dul.idle_timer_expired():  # in this order: an answer begins its time anew
                self.note_flaw("idle-timeout")
                self.abort(block=False)
                return
