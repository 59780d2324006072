"""Scripted peers on plain sockets: PDUs as bytes, whole or broken, from either side."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

from gateway.network import command as dimse

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION = "1.2.840.10008.3.1.1.1"
RELEASE_RQ, RELEASE_RP = b"\x05\0\0\0\0\x04\0\0\0\0", b"\x06\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    """One item or sub-item (PS3.8 9.3.1)."""
    return struct.pack(">BBH", kind, 0, len(value) if length is None else length) + value


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def context_rq(
    number: int = 1, abstract: str = CT, syntaxes: tuple[str, ...] = (EXPLICIT,), more: bytes = b""
) -> bytes:
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, uid.encode()) for uid in syntaxes) + more
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


def context_ac(number: int = 1, result: int = 0, syntax: str = EXPLICIT, more: bytes = b"") -> bytes:
    return item(0x21, bytes((number, 0, result, 0)) + item(0x40, syntax.encode()) + more)


def user_information(
    max_length: int | None = 16384, class_uid: str = "1.2.3", version: bytes = b"OTHER", more: bytes = b""
) -> bytes:
    inner = b"" if max_length is None else item(0x51, struct.pack(">L", max_length))
    inner += item(0x52, class_uid.encode()) if class_uid else b""
    return item(0x50, inner + (item(0x55, version) if version else b"") + more)


def associate(
    kind: int = 0x01,
    *,
    called: bytes = b"GATEWAY",
    calling: bytes = b"ARCHIVE",
    pad: bytes = b" ",
    version: int = 1,
    contexts: bytes | None = None,
    user: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """A-ASSOCIATE-RQ, or -AC with kind 0x02, whose fields may be anything."""
    if contexts is None:
        contexts = context_rq() if kind == 0x01 else context_ac()
    titles = called.ljust(16, pad) + calling.ljust(16, pad)
    body = struct.pack(">HH", version, 0) + titles + bytes(32) + item(0x10, APPLICATION.encode()) + contexts
    return pdu(kind, body + (user_information() if user is None else user) + more)


def data(context_id: int, control: int, value: bytes) -> bytes:
    """P-DATA-TF with one fragment."""
    return pdu(0x04, fragment(context_id, control, value))


def fragment(context_id: int, control: int, value: bytes) -> bytes:
    return struct.pack(">LBB", len(value) + 2, context_id, control) + value


def store_rsp(request: dimse.Command, status: int = 0) -> bytes:
    """The command set of the answer to a C-STORE-RQ."""
    return dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: request[dimse.AFFECTED_SOP_CLASS_UID],
            dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: request[dimse.MESSAGE_ID],
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status,
        }
    )


def fragments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield message control header and fragment of each PDV in the body of a P-DATA-TF PDU (PS3.8 9.3.5)."""
    at = 0
    while at < len(body):
        length = struct.unpack_from(">L", body, at)[0]
        yield body[at + 5], body[at + 6 : at + 4 + length]
        at += 4 + length


class Wire:
    """A connection on which whole PDUs are read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when the peer has closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", header)
        return kind, self._exactly(length)

    def read_store(self) -> dimse.Command | None:
        """The command of the next C-STORE-RQ, its data set read to the end; None when something else comes."""
        command = None
        while True:
            kind, body = self.read()
            if kind != 0x04:
                return None
            for control, value in fragments(body):
                if control & 1:
                    command = dimse.decode_command(value)
                elif control & 2:
                    return command

    def _exactly(self, length: int) -> bytes:
        read = b""
        while len(read) < length:
            try:
                piece = self.sock.recv(length - len(read))
            except ConnectionError:
                piece = b""
            if not piece:
                break
            read += piece
        return read


@contextlib.contextmanager
def connected(port: int, source: str = "127.0.0.1") -> Iterator[Wire]:
    """A connection to a port of this machine from one of its loopback addresses."""
    with socket.create_connection(("127.0.0.1", port), 5, (source, 0)) as sock:
        yield Wire(sock)


@contextlib.contextmanager
def scripted_scp(serve: Callable[[Wire], None], tls=None) -> Iterator[int]:
    """A listener whose every connection is served by `serve` in a thread of its own; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), sock:
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                    try:
                        sock.do_handshake()
                    except ssl.SSLError:
                        socket.socket.recv(sock, 65536)  # unread data would reset the connection under the alert
                        raise
                sock.settimeout(10)
                serve(Wire(sock))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=one, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def acceptor(answer: bytes, take: Callable[[dimse.Command], bytes | None]) -> Callable[[Wire], None]:
    """Accepts with `answer`; then `take` gives for each C-STORE what is sent back, None ends the connection."""

    def serve(wire: Wire) -> None:
        kind, _ = wire.read()
        if kind != 0x01:
            return
        wire.send(answer)
        while command := wire.read_store():
            reply = take(command)
            if reply is None:
                return
            wire.send(reply)
        wire.send(RELEASE_RP)

    return serve
