"""Associations to a workstation's own configured address, for C-MOVE and for answers to C-STORE.

Originals go there over TLS with that workstation's certificate verified: it has to chain to our trust *and* be bound to
the workstation's entry, before the first DICOM byte is said. Only an entry with `receive_plain` is called in clear.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import AE, build_context
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.association import Association
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from gateway.config.models import Workstation
from gateway.errors import PermanentError, TransientError
from gateway.network.retrieve.access import certificate_is_bound
from gateway.network.tls import peer_certificate

MAX_CONTEXTS = 128  # odd context ids of one byte (PS3.8 9.3.2.2)

Wanted = tuple[str, str]  # (SOP class UID, transfer syntax UID)


class _OpenedSocket(AssociationSocket):
    """An association's socket that is connected and checked already."""

    def __init__(self, association: Association, connection: socket.socket) -> None:
        super().__init__(association, client_socket=connection)
        self.event_queue.get_nowait()  # Evt5 means that a peer called us; here we call

    def connect(self, primitive: T_CONNECT) -> None:
        primitive.result = "Evt2"  # transport connection confirmed
        self.provider_queue.put(primitive)


@contextmanager
def association_to(
    ae: AE,
    workstation: Workstation,
    wanted: Sequence[Wanted],
    tls: ssl.SSLContext | None,
    max_pdu: int,
) -> Iterator[Association]:
    """An established association to the workstation that proposes one context for each of `wanted` (at most 128).

    It has no reactor of its own: the caller sends and receives. Released at the end, or aborted when the block raises.

    Raises
    ------
    TransientError
        Codes ``destination-unreachable``, ``destination-busy``, ``association-lost``.
    PermanentError
        Codes ``destination-without-tls``, ``destination-certificate``, ``destination-rejected``.
    """
    connection = _connect(workstation, tls, ae.connection_timeout or 10.0)
    connection.settimeout(ae.network_timeout)  # a receiver that stops taking bytes ends the association
    association = Association(ae, MODE_REQUESTOR)
    try:
        association.set_socket(_OpenedSocket(association, connection))
        _describe(association, ae, workstation, wanted, max_pdu)
        association.request()
        if not association.is_established:
            raise _refusal(association)
        yield association
        association.acse.negotiate_release()
    except BaseException:
        if association.is_established and not association.is_aborted:
            association.abort()
        raise
    finally:
        association.dul.kill_dul()
        connection.close()


def _connect(workstation: Workstation, tls: ssl.SSLContext | None, timeout: float) -> socket.socket:
    if not workstation.receive_plain and tls is None:
        raise PermanentError(
            "destination-without-tls",
            f"{workstation.ae_title} does not receive in clear and there is no TLS to call it with",
            "give [restore.tls], or set receive_plain = true for it",
        )
    try:
        connection = socket.create_connection((workstation.host, workstation.port), timeout)
    except OSError as error:
        raise TransientError(
            "destination-unreachable", f"cannot connect to {workstation.ae_title}: {error.strerror or error}"
        ) from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if workstation.receive_plain:
        return connection
    try:
        secured = tls.wrap_socket(connection, server_hostname=workstation.host)
    except (ssl.SSLError, OSError) as error:
        connection.close()
        reason = getattr(error, "reason", None) or type(error).__name__
        raise PermanentError("destination-certificate", f"TLS with {workstation.ae_title} failed: {reason}") from None
    if not certificate_is_bound(workstation, peer_certificate(secured)):
        secured.close()
        raise PermanentError(
            "destination-certificate",
            f"the certificate at {workstation.ae_title}'s address is not bound to that AE title",
            "list its key_sha256 or one of its SANs in the workstation's entry",
        )
    return secured


def _describe(
    association: Association, ae: AE, workstation: Workstation, wanted: Sequence[Wanted], max_pdu: int
) -> None:
    local = association.dul.socket.socket.getsockname()
    association.name = f"RestoreDestination@{workstation.ae_title}"
    association.acceptor.ae_title = workstation.ae_title
    association.acceptor.address_info = AddressInformation.from_addr_port(workstation.host, workstation.port)
    association.requestor.address_info = AddressInformation.from_tuple(local)
    association.requestor.ae_title = ae.ae_title
    association.requestor.maximum_length = max_pdu
    association.requestor.implementation_class_uid = ae.implementation_class_uid
    association.requestor.implementation_version_name = ae.implementation_version_name
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in wanted[:MAX_CONTEXTS]]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    association.requestor.requested_contexts = contexts


def _refusal(association: Association) -> TransientError | PermanentError:
    if not association.is_rejected:
        return TransientError("association-lost", "the destination did not answer the association request")
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0x02:
        return TransientError("destination-busy", "the destination rejected the association for now")
    return PermanentError("destination-rejected", "the destination rejected the association")
