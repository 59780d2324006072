"""The way to a workstation's own configured address, for C-MOVE and for answers to C-STORE.

Originals go there over TLS with that workstation's certificate verified: it has to chain to our trust *and* be bound to
the workstation's entry, before the first DICOM byte is said. Only an entry with `receive_plain` is called in clear.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from gateway.config.models import Restore, Workstation
from gateway.errors import PermanentError
from gateway.network.binding import is_bound
from gateway.network.retrieve.suboperations import Originator, Planned
from gateway.network.scu import Peer, ScuAssociation
from gateway.network.tls import peer_certificate

CONNECT_TIMEOUT_S = 10.0

Wanted = tuple[str, str]  # (SOP class UID, transfer syntax UID)


class BoundTls:
    """A client context that lets no certificate through but the workstation's own.

    Stands where an `ssl.SSLContext` is used to wrap a connection.
    """

    def __init__(self, context: ssl.SSLContext, workstation: Workstation) -> None:
        self._context = context
        self._workstation = workstation

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str) -> ssl.SSLSocket:
        """Handshake, then compare.

        Raises
        ------
        PermanentError
            Code ``certificate-not-bound``; the connection is closed.
        ssl.SSLError, OSError
            As `ssl.SSLContext.wrap_socket`.
        """
        secured = self._context.wrap_socket(sock, server_hostname=server_hostname)
        if not is_bound(self._workstation, peer_certificate(secured)):
            secured.close()
            raise PermanentError(
                "certificate-not-bound",
                f"the certificate at the address of {self._workstation.ae_title} is not bound to that AE title",
                "list its key_sha256 or one of its SANs in the workstation's entry",
            )
        return secured


class WorkstationOutlet:
    """Sub-operations on an association of ours to the workstation."""

    sends_files = False
    bit_exact = True

    def __init__(self, association: ScuAssociation, originator: Originator | None) -> None:
        self._association = association
        self._originator = originator

    def accepts(self, planned: Planned) -> bool:
        return (planned.sop_class_uid, planned.transfer_syntax_uid) in self._association.accepted

    def send(self, planned: Planned, chunks: Iterable[bytes]) -> int:
        originator = self._originator
        return self._association.store(
            planned.sop_class_uid,
            planned.sop_instance_uid,
            planned.transfer_syntax_uid,
            ChunkReader(chunks),
            move_originator=(originator.ae_title, originator.message_id) if originator else None,
        ).status


@contextmanager
def way_to(
    settings: Restore,
    workstation: Workstation,
    client_tls: ssl.SSLContext | None,
    wanted: Sequence[Wanted],
    originator: Originator | None = None,
) -> Iterator[WorkstationOutlet]:
    """An association to the workstation with one context for each of `wanted` (at most 128); released at the end.

    Raises
    ------
    TransientError, PermanentError
        As `gateway.network.scu.ScuAssociation`, and ``destination-without-tls``, ``certificate-not-bound``.
    """
    tls: BoundTls | None = None
    if not workstation.receive_plain:
        if client_tls is None:
            raise PermanentError(
                "destination-without-tls",
                f"{workstation.ae_title} must be reached over TLS, and the restore role has no [restore.tls]",
                "give [restore.tls], or set receive_plain = true for it",
            )
        tls = BoundTls(client_tls, workstation)
    if workstation.port is None:
        raise PermanentError(
            "no-address", f"{workstation.ae_title} has no address to send originals to", "give its host and port"
        )
    peer = Peer(
        host=workstation.host,
        port=workstation.port,
        called_ae=workstation.ae_title,
        calling_ae=settings.ae_title,
        tls=tls,
        max_pdu=settings.max_pdu,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        response_timeout_s=settings.idle_timeout_s,
    )
    association = ScuAssociation(peer, wanted)
    try:
        yield WorkstationOutlet(association, originator)
    except BaseException:
        association.abort()
        raise
    association.release()


class ChunkReader:
    """Reads from an iterator of chunks as from a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty only at the end. A view of a chunk, where bytes are promised: nothing is copied."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = memoryview(chunk)
        taken = self._left[:size]
        self._left = self._left[size:]
        return cast(bytes, taken)
