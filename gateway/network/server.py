"""A DICOM port: who gets in, how many, and how it ends.

`ScpServer` listens, does the TLS handshake in the connection's own thread under a deadline (one silent client stalls
nobody), caps connections before and associations after A-ASSOCIATE, and decides every association in one place: calling
AE title and address first, called AE title next. Whoever is refused gets an A-ASSOCIATE-RJ and an audit line.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from gateway.audit import AuditLog, events
from gateway.errors import ConfigError
from gateway.network import settings
from gateway.network.tls import PeerCertificate, peer_certificate
from gateway.network.upper_layer import GatewayAssociation, GatewaySocket


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4) and the word for it in the audit."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 service provider (ACSE), 3 service provider (presentation)
    diagnostic: int
    reason: str


CALLING_AE_UNKNOWN = Rejection(1, 1, 3, "calling-ae-unknown")
ADDRESS_NOT_LISTED = Rejection(1, 1, 3, "address-not-listed")
CERTIFICATE_NOT_BOUND = Rejection(1, 1, 3, "certificate-not-bound-to-ae")
PLAIN_NOT_ALLOWED = Rejection(1, 1, 3, "plain-not-allowed")
CALLED_AE_UNKNOWN = Rejection(1, 1, 7, "called-ae-unknown")
TOO_MANY_ASSOCIATIONS = Rejection(2, 3, 2, "too-many-associations")
INTERNAL_ERROR = Rejection(2, 1, 1, "internal-error")


@dataclass(frozen=True)
class Listen:
    """Where and how a port listens.

    `port` 0 takes any free port. `handshake_timeout_s` bounds the TLS handshake, the wait for A-ASSOCIATE-RQ (ARTIM,
    PS3.8 9.1.5) and the release; `idle_timeout_s` bounds a silent association, one PDU and one blocked send.
    """

    host: str
    port: int
    called_aes: tuple[str, ...]
    max_pdu: int = 131_072
    max_associations: int = 50
    max_connections: int = 100
    idle_timeout_s: float = 60
    handshake_timeout_s: float = 5


@dataclass(frozen=True)
class Caller:
    """Who asks for an association. Only `address` and `certificate` are facts; the AE titles are claims."""

    association_id: str
    calling_ae: str
    called_ae: str
    address: str
    port: int
    certificate: PeerCertificate | None

    def audit_fields(self) -> dict[str, object]:
        """The fields of the audit trail that name this caller."""
        return {
            "association_id": self.association_id,
            "calling_ae": self.calling_ae,
            "called_ae": self.called_ae,
            "peer_address": self.address,
            "tls": self.certificate is not None,
            "key_sha256": self.certificate.key_sha256 if self.certificate else None,
        }


def address_listed(address: str, networks: Iterable[str]) -> bool:
    """Whether an IP address is one of, or lies in one of, the given addresses and networks (CIDR)."""
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


class ScpServer:
    """One listening port with its associations.

    Parameters
    ----------
    listen
        Host, port, AE titles and limits.
    audit
        Where refusals are written.
    admit
        Decides on a caller: None lets it in. Called in the association's thread after the limit of associations and
        before the called AE title is looked at; an exception refuses.
    contexts
        Given the contexts that the peer proposes, the supported ones to negotiate with (pynetdicom takes the first
        transfer syntax of ours that the peer proposed).
    handlers
        pynetdicom ``(event, handler)`` pairs.
    association_class
        What serves an association; its `caller` attribute is a `Caller`.
    tls
        The port speaks TLS with this context and no other way.
    on_end
        Called once per established association after it has ended, in its own thread.
    """

    def __init__(
        self,
        listen: Listen,
        *,
        audit: AuditLog,
        admit: Callable[[Caller], Rejection | None],
        contexts: Callable[[Sequence[PresentationContext]], list[PresentationContext]],
        handlers: Iterable[tuple] = (),
        association_class: type[GatewayAssociation] = GatewayAssociation,
        tls: ssl.SSLContext | None = None,
        on_end: Callable[[GatewayAssociation], None] | None = None,
    ) -> None:
        settings.apply()
        self.listen = listen
        self.tls = tls
        self.association_class = association_class
        self._audit = audit
        self._admit = admit
        self._contexts = contexts
        self._handlers = [(evt.EVT_REQUESTED, self._requested), *handlers]
        self._on_end = on_end
        self._live: set[GatewayAssociation] = set()
        self._lock = threading.Lock()
        self._port = listen.port
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen and return.

        Raises
        ------
        ConfigError
            Code ``cannot-listen``: the port is taken or the address is not ours.
        """
        ae = ApplicationEntity(self.listen.called_aes[0])
        ae.maximum_pdu_size = self.listen.max_pdu
        ae.acse_timeout = self.listen.handshake_timeout_s
        ae.network_timeout = self.listen.idle_timeout_s
        ae.dimse_timeout = self.listen.idle_timeout_s
        ae.maximum_associations = self.listen.max_connections  # ours is counted in `_judge`
        ae.implementation_class_uid = settings.IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = settings.IMPLEMENTATION_VERSION_NAME
        where = (self.listen.host, self.listen.port)
        try:
            self._listener = _Listener(self, ae, where, self._handlers)
        except OSError as error:
            raise ConfigError(
                "cannot-listen", f"cannot listen on {where[0]} port {where[1]}: {error.strerror}", "is the port taken?"
            ) from None
        self._port = self._listener.server_address[1]
        ae._servers.append(self._listener)  # its shutdown() takes it off this list
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.1,), name=f"listen-{self.port}")
        self._thread.daemon = True
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is, or was, listened on; the configured one before `start`."""
        return self._port

    @property
    def associations(self) -> list[GatewayAssociation]:
        """The established associations."""
        with self._lock:
            return [association for association in self._live if association.is_established]

    def stop(self, drain_s: float = 5.0) -> None:
        """Take no more connections, give associations `drain_s` seconds to end, abort what is left."""
        if self._listener is None:
            return
        self._listener.shutdown()
        self._thread.join()
        deadline = time.monotonic() + drain_s
        while self.associations and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = list(self._live)
        for association in left:
            association.acse.send_abort(0x00)
        for association in left:
            if association.ident is not None:
                association.join(2 * drain_s + 1)
        self._listener = None

    def _requested(self, event: evt.Event) -> None:
        """EVT_REQUESTED: accept or refuse, before pynetdicom negotiates. Whatever goes wrong here refuses."""
        association = event.assoc
        try:
            request = association.requestor.primitive
            association.caller = Caller(
                association_id=association.association_id,
                calling_ae=(request.calling_ae_title or "").strip(),
                called_ae=(request.called_ae_title or "").strip(),
                address=_plain_address(association.requestor.address_info.address),
                port=association.requestor.address_info.port,
                certificate=association.certificate,
            )
            rejection = self._judge(association)
            if rejection is None:
                proposed = request.presentation_context_definition_list
                association.acceptor.supported_contexts = self._contexts(proposed)
                association.acceptor.ae_title = association.caller.called_ae
        except Exception:
            rejection = INTERNAL_ERROR
        if rejection is not None:
            self._refuse(association, rejection)

    def _judge(self, association: GatewayAssociation) -> Rejection | None:
        if len(self.associations) >= self.listen.max_associations:
            return TOO_MANY_ASSOCIATIONS
        rejection = self._admit(association.caller)
        if rejection is None and association.caller.called_ae not in self.listen.called_aes:
            return CALLED_AE_UNKNOWN
        return rejection

    def _refuse(self, association: GatewayAssociation, rejection: Rejection) -> None:
        association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        caller = getattr(association, "caller", None)
        fields = caller.audit_fields() if caller else {"association_id": association.association_id}
        try:
            self._audit.write(events.ASSOCIATION_REFUSED, "refused", reason=rejection.reason, **fields)
        finally:
            association.kill()  # waits until the rejection is on its way

    def _began(self, association: GatewayAssociation) -> None:
        with self._lock:
            self._live.add(association)

    def _ended(self, association: GatewayAssociation) -> None:
        with self._lock:
            self._live.discard(association)
        if self._on_end is not None and association.is_rejected is False and hasattr(association, "caller"):
            self._on_end(association)

    def _node_refused(self, address: str, reason: str) -> None:
        self._audit.write(events.NODE_REFUSED, "refused", peer_address=_plain_address(address), reason=reason)


def _plain_address(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket, as IPv4; everything else as it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return str(ip.ipv4_mapped or ip) if ip.version == 6 else str(ip)


class _Handler(RequestHandler):
    """Makes our association for a connection that is ready for A-ASSOCIATE-RQ."""

    def _create_association(self) -> GatewayAssociation:
        association = self.server.scp.association_class(self.ae, MODE_ACCEPTOR)
        association._server = self.server
        association.name = f"AcceptorThread-{association.association_id}"
        if isinstance(self.request, ssl.SSLSocket):
            association.certificate = peer_certificate(self.request)
        association.set_socket(GatewaySocket(association, self.request))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = self.server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        for event, bound in self.server._handlers.items():
            for handler, args in [bound] if event.is_intervention else bound:
                association.bind(event, handler, args)
        self.server.scp._began(association)
        return association


class _Listener(ThreadedAssociationServer):
    """The listening socket."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, scp: ScpServer, ae: ApplicationEntity, where: tuple[str, int], handlers: list[tuple]) -> None:
        self.scp = scp
        self._connections = 0
        self._last_refusal = 0.0
        self._count_lock = threading.Lock()
        super().__init__(ae, where, ae.ae_title, [], evt_handlers=handlers, request_handler=_Handler)

    def get_request(self) -> tuple[socket.socket, tuple]:
        """Accept a connection and nothing more: this thread serves everybody."""
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        """Give the connection a thread, unless there are too many."""
        with self._count_lock:
            too_many = self._connections >= self.scp.listen.max_connections
            self._connections += not too_many
        if too_many:
            request.close()
            # At most one line a second: a flood must not fill the disk as well.
            if time.monotonic() - self._last_refusal > 1:
                self._last_refusal = time.monotonic()
                self.scp._node_refused(client_address[0], "too-many-connections")
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        """Handshake under a deadline, then hand over to an association."""
        try:
            request.settimeout(self.scp.listen.handshake_timeout_s)
            if self.scp.tls is not None:
                request = self.scp.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                request.do_handshake()
            self.finish_request(request, client_address)
        except Exception as error:
            self.shutdown_request(request)
            self._connection_ended()
            reason = _handshake_failure(error)
            if reason:
                self.scp._node_refused(client_address[0], reason)

    def association_ended(self, association: GatewayAssociation) -> None:
        """Called by each association as its last act."""
        self._connection_ended()
        self.scp._ended(association)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stock prints a traceback; what can go wrong here is answered above."""

    def _connection_ended(self) -> None:
        with self._count_lock:
            self._connections -= 1


def _handshake_failure(error: Exception) -> str:
    """The audit's word for a connection that never became an association; empty for a bare open and close."""
    if isinstance(error, TimeoutError):
        return "tls-handshake-timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls-certificate-not-trusted"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return ""  # load balancers look in this way every few seconds
    if isinstance(error, ssl.SSLError):
        return "tls-handshake-failed"
    return "internal-error"
