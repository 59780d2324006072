"""The way to a peer before the first DICOM byte: TCP, then TLS, each under a deadline, and what may go wrong there."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError, TransientError

CERTIFICATE_FAILURES = frozenset({"certificate-not-trusted", "certificate-refused", "tls-failed"})
"""Codes of a connection that was not made because TLS could not be: nothing was sent, and nothing was said in DICOM."""

_ABOUT_CERTIFICATES = (
    "CERTIFICATE",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
)  # ... a signature that is not good
_OUR_CERTIFICATE = "has it expired, and does the partner trust its authority?"


class ClientTls(Protocol):
    """What secures a connection of ours: an `ssl.SSLContext`, or one that looks closer at the certificate."""

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str) -> ssl.SSLSocket: ...


@dataclass(frozen=True)
class Peer:
    """Whom to call, and how patiently.

    `tls` is a client context; the peer's certificate has to name `host`. `response_timeout_s` bounds the answer to
    A-ASSOCIATE-RQ, each DIMSE response and each blocked send.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str
    tls: ClientTls | None = None
    max_pdu: int = 131_072
    connect_timeout_s: float = 10
    response_timeout_s: float = 60


def connect(peer: Peer) -> socket.socket:
    """A connection to the peer, secured and its certificate checked where it speaks TLS; it is closed on an error.

    Raises
    ------
    TransientError
        Codes ``unreachable``, ``connection-lost``, and those of `CERTIFICATE_FAILURES`.
    """
    where = f"{peer.host} port {peer.port}"
    try:
        connection = socket.create_connection((peer.host, peer.port), peer.connect_timeout_s)
    except (
        UnicodeError
    ):  # Python encodes names itself: an empty label, or one of more than 63 characters (RFC 1035 2.3.4)
        raise TransientError("unreachable", f"{peer.host} is no host name", "correct it in the configuration") from None
    except OSError as error:
        reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        raise TransientError("unreachable", f"cannot connect to {where}: {reason}", "is it running?") from None
    # A C-STORE is a small PDU, some large ones, and a wait: without this each waits for a delayed ACK (7x slower).
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if peer.tls is None:
        return connection
    try:
        return peer.tls.wrap_socket(connection, server_hostname=peer.host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise TransientError(
            "certificate-not-trusted",
            f"the certificate of {where} is not good: {error.verify_message}",
            "have the partner renew it, or put its authority into the trust",
        ) from None
    except ssl.SSLEOFError:
        connection.close()
        raise TransientError("connection-lost", f"{where} closed the connection in the TLS handshake") from None
    except ssl.SSLError as error:
        connection.close()
        if _refuses_ours(error):
            message = f"{where} refuses our certificate: {error.reason}"
            raise TransientError("certificate-refused", message, _OUR_CERTIFICATE) from None
        raise TransientError("tls-failed", f"no TLS with {where}: {error.reason}", "is it a TLS port?") from None
    except GatewayError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        raise TransientError("unreachable", f"TLS handshake with {where}: {reason}") from None


def _refuses_ours(error: ssl.SSLError) -> bool:
    """Whether it is the peer's alert about our own certificate (RFC 8446 6.2)."""
    reason = error.reason or ""
    return "ALERT" in reason and any(word in reason for word in _ABOUT_CERTIFICATES)


def lost(error: OSError) -> TransientError:
    """The error for a connection that ended while it was used."""
    if isinstance(error, ssl.SSLError) and _refuses_ours(error):
        # In TLS 1.3 the peer's verdict on our certificate comes after our side of the handshake is done.
        return TransientError("certificate-refused", "the peer refuses our certificate", _OUR_CERTIFICATE)
    return TransientError("connection-lost", f"the connection was lost: {error.strerror or type(error).__name__}")
