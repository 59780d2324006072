"""A DICOM port: who gets in, how many, and how it ends.

The address is looked at when a connection is accepted (`gateway.network.door`): one that is not listed is told so in
DICOM. The TLS handshake runs in the connection's own thread under a deadline (one silent client stalls nobody).
Every association is decided in one place: calling AE title, address and certificate, called AE title, then how many
there are. Whoever is refused gets an A-ASSOCIATE-RJ and an audit line; a flood of refusals is summed up.

Deadlines, one after the other: a balancer's PROXY header, TLS handshake and A-ASSOCIATE-RQ, `handshake_timeout_s` each;
then `idle_timeout_s` for a silent association, for one PDU and for one blocked send.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext

from gateway.audit import AuditLog, events
from gateway.audit.refusals import Refusals
from gateway.errors import ConfigError
from gateway.network import settings
from gateway.network.admission import Counts, Places
from gateway.network.callers import (
    CALLED_AE_UNKNOWN,
    CALLING_AE_BLANK,
    CALLING_AE_UNKNOWN,
    INTERNAL_ERROR,
    TOO_MANY_ASSOCIATIONS,
    TOO_MANY_OF_AE,
    VERSION_NOT_SUPPORTED,
    Caller,
    Rejection,
    plain_address,
)
from gateway.network.door import Door, DoorLimits
from gateway.network.listener import Listener
from gateway.network.upper_layer import GatewayAssociation

_WAIT_FOR_PLACE_S = 0.3  # an association that ends this moment still counts: who comes next is not sent away for it


@dataclass(frozen=True)
class Listen:
    """Where and how a port listens.

    `port` 0 takes any free port. `handshake_timeout_s` bounds the TLS handshake, the wait for A-ASSOCIATE-RQ (ARTIM,
    PS3.8 9.1.5) and the release; `idle_timeout_s` bounds a silent association, one PDU and one blocked send.
    `addresses` are those of the peers (None: every address is listed); `max_connections_per_address` and
    `max_associations_per_ae` count within the others (None: three quarters of them, and all of them). `balancers` are
    the addresses that have to say in a PROXY header, within `handshake_timeout_s`, who a connection is from.
    """

    host: str
    port: int
    called_aes: tuple[str, ...]
    max_pdu: int = 131_072
    max_associations: int = 50
    max_connections: int = 100
    idle_timeout_s: float = 60
    handshake_timeout_s: float = 5
    addresses: tuple[str, ...] | None = None
    balancers: tuple[str, ...] = ()
    max_connections_per_address: int | None = None
    max_associations_per_ae: int | None = None
    is_shared: bool = False  # other processes of this user may listen on the same port


class ScpServer:
    """One listening port with its associations.

    Parameters
    ----------
    listen
        Host, port, AE titles and limits.
    audit
        Where refusals are written.
    admit
        Decides on a caller: None lets it in. Called in the association's thread before the called AE title and the
        number of associations are looked at; an exception refuses.
    contexts
        Given the contexts that the peer proposes, and who it is, the supported ones to negotiate with (pynetdicom takes
        the first transfer syntax of ours that the peer proposed).
    handlers
        pynetdicom ``(event, handler)`` pairs.
    association_class
        Makes what serves an association.
    tls
        The port speaks TLS with this context and no other way.
    on_end
        Called once per established association after it has ended, in its own thread.
    counts
        What the limits count, shared with the role's other ports and processes; None: this port's own.
    """

    def __init__(
        self,
        listen: Listen,
        *,
        audit: AuditLog,
        admit: Callable[[Caller], Rejection | None],
        contexts: Callable[[Sequence[PresentationContext], Caller], list[PresentationContext]],
        handlers: Iterable[tuple[evt.EventType, Callable[..., Any]]] = (),
        association_class: Callable[[ApplicationEntity, str], GatewayAssociation] = GatewayAssociation,
        tls: ssl.SSLContext | None = None,
        on_end: Callable[[GatewayAssociation], None] | None = None,
        counts: Counts | None = None,
    ) -> None:
        settings.apply()
        self.listen = listen
        self.tls = tls
        self.association_class = association_class
        self.refusals = Refusals(audit)
        self._counts = counts or Counts()
        limits = DoorLimits(
            listen.max_connections, listen.max_connections_per_address, listen.addresses, listen.balancers
        )
        self.door = Door(limits, self._counts, self.refusals)
        self._admit = admit
        self._contexts = contexts
        self._handlers = [(evt.EVT_REQUESTED, self._requested), *handlers]
        self._on_end = on_end
        self._live: set[GatewayAssociation] = set()
        self._issued: set[Places] = set()  # of connections that may still become associations
        self._lock = threading.Lock()
        self._port = listen.port
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, where `bind` did not, serve in a thread and return; raises as `bind`."""
        if self._listener is None:
            self.bind()
        assert self._listener is not None
        self._listener.serves = True
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.1,), name=f"listen-{self.port}")
        self._thread.daemon = True
        self._thread.start()

    def bind(self, before: Iterable[ScpServer] = ()) -> None:
        """Listen, and accept nothing yet: who connects waits.

        Parameters
        ----------
        before
            Servers of this process that this one follows. One of the same host and port hands its socket on, so that
            nobody who connects meanwhile is lost.

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
        ae.maximum_associations = 1 << 30  # ours are counted in `_judge`; pynetdicom counts threads that are ending
        ae.implementation_class_uid = settings.IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = settings.IMPLEMENTATION_VERSION_NAME
        where = (self.listen.host, self.listen.port)
        own = [one for one in before if one.listen.port == where[1] and one._listener is not None]
        same = next((one for one in own if one.listen.host == where[0]), None)
        for one in own if same is None else ():  # the same port on another address of this machine
            one._share_port()
        try:
            self._listener = (
                Listener(self, ae, where, self._handlers, same._handed_on())
                if same is not None
                else Listener(self, ae, where, self._handlers, _bound(where) if own or self.listen.is_shared else None)
            )
        except OSError as error:
            raise ConfigError(
                "cannot-listen", f"cannot listen on {where[0]} port {where[1]}: {error.strerror}", "is the port taken?"
            ) from None
        self._port = self._listener.server_address[1]
        ae._servers.append(self._listener)  # its shutdown() takes it off this list

    def _handed_on(self) -> socket.socket:
        """The listening socket, for the server that follows."""
        assert self._listener is not None and self._listener.socket is not None
        return self._listener.socket.dup()

    def _share_port(self) -> None:
        """Let another socket of this process bind the same port on another address."""
        assert self._listener is not None and self._listener.socket is not None
        self._listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

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
        self.pause()
        deadline = time.monotonic() + drain_s
        while self.associations and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = list(self._live)
        for association in left:
            association.acse.send_abort(0x00)
        deadline = time.monotonic() + 2 * drain_s + 1  # of all together: a disk that hangs hangs for each of them
        for association in left:
            if association.ident is not None:
                association.join(max(0.0, deadline - time.monotonic()))
        self.refusals.sum_up(all_of_them=True)

    def pause(self) -> None:
        """Take no more connections; those that are there go on."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._thread is None:  # it never served
            listener.server_close()
            return
        listener.shutdown()
        self._thread.join()

    def finish(self) -> None:
        """After `pause`: wait until every connection has ended by itself, however long that takes."""
        while self._is_busy():
            time.sleep(0.1)
        self.refusals.sum_up(all_of_them=True)

    def _is_busy(self) -> bool:
        with self._lock:
            self._issued = {places for places in self._issued if not places.ended}
            return bool(self._live or self._issued)

    def place_for(self, address: str, balancer: str = "") -> Places | None:
        """A place for one more connection from this address, or None when it has to go; called on accept.

        For a balancer's own address it is a place to wait in; with the header that it wrote this is called again, with
        the client's address and the balancer's.
        """
        waits = not balancer and self.door.is_balancer(address)
        places = self.door.await_header(address) if waits else self.door.enter(address, balancer)
        if places is not None:
            with self._lock:
                self._issued = {one for one in self._issued if not one.ended} | {places}
        return places

    def association_began(self, association: GatewayAssociation) -> None:
        """Note an association that waits for its A-ASSOCIATE-RQ."""
        with self._lock:
            self._live.add(association)

    def association_ended(self, association: GatewayAssociation) -> None:
        """Called by each association as its last act."""
        with self._lock:
            self._live.discard(association)
        if association.caller is None:
            if association.flaw and not association.is_rejected:
                self.door.refuse(_address_of(association), association.flaw, association.balancer)
        elif self._on_end is not None and not association.is_rejected:
            self._on_end(association)

    def _requested(self, event: evt.Event) -> None:
        """EVT_REQUESTED: accept or refuse, before pynetdicom negotiates. Whatever goes wrong here refuses."""
        association = event.assoc
        assert isinstance(association, GatewayAssociation)
        try:
            rejection = self._judge(association)
        except Exception:
            rejection = INTERNAL_ERROR
        if rejection is not None:
            self._refuse(association, rejection)

    def _judge(self, association: GatewayAssociation) -> Rejection | None:
        request, remote = association.associate_request, association.requestor.address_info
        if request is None or remote is None:
            return INTERNAL_ERROR
        caller = association.caller = Caller(
            association_id=association.association_id,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            address=plain_address(remote.address),
            port=remote.port,
            certificate=association.certificate,
            balancer=association.balancer,
        )
        if not request.version_supported:
            return VERSION_NOT_SUPPORTED
        if not request.calling_ae:
            return CALLING_AE_BLANK
        if not request.calling_usable:
            return CALLING_AE_UNKNOWN
        rejection = self._admit(caller)
        if rejection is not None:
            return rejection
        if not request.called_usable or caller.called_ae not in self.listen.called_aes:
            return CALLED_AE_UNKNOWN
        rejection = self._take_place(association, caller)
        if rejection is not None:
            return rejection
        primitive = association.requestor.primitive
        proposed = primitive.presentation_context_definition_list if primitive is not None else []
        association.acceptor.supported_contexts = self._contexts(proposed, caller)
        association.acceptor.ae_title = caller.called_ae
        return None

    def _take_place(self, association: GatewayAssociation, caller: Caller) -> Rejection | None:
        """Count the association, waiting a moment for one that is just ending."""
        per_ae = self.listen.max_associations_per_ae
        own = f"associations of {caller.calling_ae}"
        wanted = [("associations", self.listen.max_associations)]
        wanted += [(own, per_ae)] if per_ae is not None else []
        deadline = time.monotonic() + _WAIT_FOR_PLACE_S
        while full := association.places.take(wanted):
            if time.monotonic() > deadline:
                return TOO_MANY_OF_AE if full == own else TOO_MANY_ASSOCIATIONS
            time.sleep(0.01)
        return None

    def _refuse(self, association: GatewayAssociation, rejection: Rejection) -> None:
        association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        caller = association.caller
        fields = caller.audit_fields() if caller else {"association_id": association.association_id}
        try:
            self.refusals.write(events.ASSOCIATION_REFUSED, rejection.reason, _address_of(association), **fields)
        finally:
            association.kill()  # waits until the rejection is on its way


def _bound(where: tuple[str, int]) -> socket.socket:
    """A socket on a port that this user's other sockets may have too, on another address or in other processes."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        where[0] or None, where[1], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _address_of(association: GatewayAssociation) -> str:
    remote = association.requestor.address_info
    return plain_address(remote.address) if remote is not None else ""


__all__ = ["Listen", "ScpServer"]
