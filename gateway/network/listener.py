"""The listening socket and what becomes of a connection until it is an association."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from gateway.network.admission import Places
from gateway.network.callers import plain_address
from gateway.network.pdu_socket import CLOSING_WAIT_S, GatewaySocket
from gateway.network.proxy_protocol import HeaderError, receive
from gateway.network.tls import peer_certificate
from gateway.network.upper_layer import GatewayAssociation

if TYPE_CHECKING:
    from gateway.network.server import ScpServer

_Request = socket.socket | tuple[bytes, socket.socket]  # as `socketserver` has it; for TCP always the socket


class Listener(ThreadedAssociationServer):
    """pynetdicom's server with its accept, its handshake and its counting replaced.

    Stock: the TLS handshake runs on the accepting thread, nothing bounds connections before A-ASSOCIATE-RQ, a
    collection of garbage runs on that thread every few seconds, and what goes wrong is printed with a traceback.

    Parameters
    ----------
    inherited
        A socket that listens already, of the server that this one follows; None: one of its own is made.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        scp: ScpServer,
        ae: ApplicationEntity,
        where: tuple[str, int],
        handlers: Iterable[tuple[evt.EventType, Callable[..., Any]]],
        inherited: socket.socket | None = None,
    ) -> None:
        self.scp = scp
        self.serves = False  # connections are accepted
        self._inherited = inherited
        self._places: dict[socket.socket, Places] = {}
        bound = cast("list[evt.EventHandlerType]", list(handlers))
        super().__init__(ae, where, ae.ae_title, [], evt_handlers=bound, request_handler=_Handler)

    def server_bind(self) -> None:
        """Bind, or take over what is bound. Accepting never waits: another server may have been the quicker one."""
        assert self.socket is not None
        if self._inherited is None:
            super().server_bind()
        else:
            self.socket.close()
            self.socket = self._inherited
            self.server_address = self.socket.getsockname()
        self.socket.settimeout(0)

    def server_close(self) -> None:
        """Accept what has connected already, and close this socket; one that was handed on goes on listening.

        Stock shuts the socket down, for everybody who has it.
        """
        assert self.socket is not None
        with contextlib.suppress(OSError):
            while self.serves:
                self.process_request(*self.get_request())
        self.socket.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and nothing more: this thread serves everybody."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def process_request(self, request: _Request, client_address: Any) -> None:
        """Give the connection a thread, if there is a place for its address."""
        connection = cast("socket.socket", request)
        places = self.scp.place_for(plain_address(client_address[0]))
        if places is None:
            connection.close()
            return
        self._places[connection] = places
        try:
            super().process_request(connection, client_address)
        except RuntimeError:  # the system gives no more threads
            del self._places[connection]
            places.give_back()
            connection.close()
            self.scp.door.refuse(plain_address(client_address[0]), "out-of-threads")

    def process_request_thread(self, request: _Request, client_address: Any) -> None:
        """PROXY header and handshake, each under a deadline, then hand over to an association."""
        connection = cast("socket.socket", request)
        places = self._places.pop(connection)
        balancer = ""
        try:
            if self.scp.door.is_balancer(plain_address(client_address[0])):
                client_address, balancer = self._client_of(connection, client_address)
                waited, entered = places, self.scp.place_for(plain_address(client_address[0]), balancer)
                waited.give_back()
                if entered is None:
                    self.shutdown_request(connection)
                    return
                places = entered
            connection.settimeout(self.scp.listen.handshake_timeout_s)
            if self.scp.tls is not None:
                connection = self.scp.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                connection.do_handshake()  # the timeout is that of the whole handshake
            _Handler(connection, client_address, self, places, balancer)
        except Exception as error:
            if isinstance(error, ssl.SSLError):
                _let_alert_arrive(connection)
            self.shutdown_request(connection)
            places.give_back()
            reason = handshake_failure(error)
            if reason:
                self.scp.door.refuse(plain_address(client_address[0]), reason, balancer)

    def _client_of(self, connection: socket.socket, balancer: Any) -> tuple[Any, str]:
        """Address of the client as a balancer says it, in the form of the system, and the balancer's own."""
        client = receive(connection, self.scp.listen.handshake_timeout_s)
        address = plain_address(balancer[0])
        return (balancer if client is None else (client.address, client.port)), address

    def service_actions(self) -> None:
        """Called by the accepting thread every moment."""
        self.scp.refusals.sum_up()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stock prints a traceback; what can go wrong here is answered above."""


class _Handler(RequestHandler):
    """Makes our association for a connection that is ready for A-ASSOCIATE-RQ."""

    server: Listener

    def __init__(
        self, request: socket.socket, client_address: Any, server: Listener, places: Places, balancer: str
    ) -> None:
        self._places = places
        self._balancer = balancer
        super().__init__(request, client_address, server)

    def _create_association(self) -> GatewayAssociation:
        scp = self.server.scp
        association = scp.association_class(self.ae, MODE_ACCEPTOR)
        association._server = self.server
        association.places = self._places
        association.balancer = self._balancer
        association.on_ended = scp.association_ended
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
            # One handler of an event that wants an answer, a list of them of the others.
            pairs = bound if isinstance(bound, list) else [bound]
            for handler, args in pairs:
                association.bind(event, handler, args)
        scp.association_began(association)
        return association


def _let_alert_arrive(connection: socket.socket) -> None:
    """Read away what the client has sent already: else closing resets the connection, and it never learns why."""
    with contextlib.suppress(OSError):
        connection.settimeout(CLOSING_WAIT_S)
        socket.socket.shutdown(connection, socket.SHUT_WR)
        socket.socket.recv(connection, 65536)


def handshake_failure(error: Exception) -> str:
    """The audit's word for a connection that never became an association; empty for a bare open and close."""
    if isinstance(error, HeaderError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "tls-handshake-timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls-certificate-not-trusted"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return ""  # load balancers look in this way every few seconds
    if isinstance(error, ssl.SSLError):
        return "tls-handshake-failed"
    return "internal-error"
