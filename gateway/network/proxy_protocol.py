"""The PROXY protocol, versions 1 and 2: who a connection is from, said by a TCP balancer before its first byte.

A balancer opens a connection of its own to us, so its address is all that the system knows. What it writes before
anything else names the client. It is believed of listed balancers only, and of these it is demanded: without it every
client would pass for the balancer. Nothing is read past the header, since TLS or DICOM follows at once.

Source: the PROXY protocol, versions 1 & 2 (HAProxy, doc/proxy-protocol.txt). Its extensions (TLVs) are read over; of
the addresses only that of the client is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import Generator
from dataclasses import dataclass

LONGEST_LINE = 107  # bytes of a header of version 1, its end included
LONGEST_BODY = 4096  # bytes behind the sixteen of a header of version 2; those seen have some hundred

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
_SHORTEST = 15  # bytes of the shortest header, "PROXY UNKNOWN" and its end
_FAMILIES = {b"TCP4": 4, b"TCP6": 6}
_OVER_TCP = {0x11: (4, ">4s4sHH"), 0x21: (6, ">16s16sHH")}  # address family and transport of version 2
FIRST_BYTES = (ord("P"), 0x0D)  # no PDU and no TLS record begins with one


class HeaderError(Exception):
    """What a balancer wrote is no header that names a client.

    Parameters
    ----------
    reason
        The audit's word.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Client:
    """The client that a balancer speaks for."""

    address: str
    port: int


def reading() -> Generator[int, bytes, Client | None]:
    """Read a header: yields how many bytes it needs next, is sent exactly these, and returns the client.

    None: the balancer speaks for nobody but itself, as when it looks whether we are there (LOCAL, UNKNOWN).

    Raises
    ------
    HeaderError
        ``proxy-header-missing``, ``proxy-header-malformed``, ``proxy-header-too-long`` or
        ``proxy-header-without-client``.
    """
    begin = yield _SHORTEST
    if begin.startswith(_SIGNATURE):
        return (yield from _version_2(begin))
    if begin.startswith(b"PROXY "):
        return (yield from _version_1(begin))
    raise HeaderError("proxy-header-missing")


def receive(connection: socket.socket, seconds: float) -> Client | None:
    """Read the header of a connection, as `reading` says, within `seconds`; the timeout of the socket is changed.

    Raises
    ------
    HeaderError
        As `reading`, and ``proxy-header-timeout``.
    OSError
        The connection was lost, or opened and closed without a word.
    """
    deadline = time.monotonic() + seconds
    header = reading()
    wanted = next(header)
    got = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise HeaderError("proxy-header-timeout")
            connection.settimeout(left)
            got = _more(got, connection.recv(wanted - len(got)), begun=wanted != _SHORTEST)
            if len(got) == wanted:
                wanted, got = header.send(got), b""
    except StopIteration as ended:
        return ended.value
    except TimeoutError:
        raise HeaderError("proxy-header-timeout") from None


async def receive_async(connection: socket.socket, seconds: float) -> Client | None:
    """As `receive`, for a socket that does not block."""
    loop, header = asyncio.get_running_loop(), reading()
    wanted = next(header)
    got = b""
    try:
        async with asyncio.timeout(seconds):
            while True:
                got = _more(got, await loop.sock_recv(connection, wanted - len(got)), begun=wanted != _SHORTEST)
                if len(got) == wanted:
                    try:
                        wanted, got = header.send(got), b""
                    except StopIteration as ended:  # it must not leave a coroutine
                        return ended.value
    except TimeoutError:
        raise HeaderError("proxy-header-timeout") from None


def _more(got: bytes, data: bytes, *, begun: bool) -> bytes:
    if not data:
        if got or begun:
            raise HeaderError("proxy-header-malformed")
        raise ConnectionError("closed without a word")
    return got + data


def _version_1(line: bytes) -> Generator[int, bytes, Client | None]:
    while not line.endswith(b"\r\n"):  # byte by byte: what follows the line is not ours
        if len(line) == LONGEST_LINE:
            raise HeaderError("proxy-header-too-long")
        line += yield 1
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in _FAMILIES:
        raise HeaderError("proxy-header-malformed")
    _, family, source, destination, source_port, destination_port = words
    _address_in_words(destination, _FAMILIES[family])
    _port_in_words(destination_port)
    return Client(_address_in_words(source, _FAMILIES[family]), _port_in_words(source_port))


def _version_2(begin: bytes) -> Generator[int, bytes, Client | None]:
    begin += yield 1
    version_and_command, family, length = struct.unpack_from(">BBH", begin, len(_SIGNATURE))
    if length > LONGEST_BODY:
        raise HeaderError("proxy-header-too-long")
    body = (yield length) if length else b""
    if version_and_command == 0x20:  # LOCAL
        return None
    if version_and_command != 0x21:  # PROXY
        raise HeaderError("proxy-header-malformed")
    if family not in _OVER_TCP:  # unspecified, datagrams, sockets of the system
        raise HeaderError("proxy-header-without-client")
    number, layout = _OVER_TCP[family]
    if length < struct.calcsize(layout):
        raise HeaderError("proxy-header-malformed")
    source, _, port, _ = struct.unpack_from(layout, body)
    return Client(str(ipaddress.IPv4Address(source) if number == 4 else ipaddress.IPv6Address(source)), port)


def _address_in_words(text: bytes, family: int) -> str:
    """An address as version 1 writes it: in full or shortened, without zone or network."""
    try:
        words = text.decode("ascii")
        ip = ipaddress.IPv4Address(words) if family == 4 else ipaddress.IPv6Address(words)
    except ValueError:
        raise HeaderError("proxy-header-malformed") from None
    if "%" in words:
        raise HeaderError("proxy-header-malformed")
    return str(ip)


def _port_in_words(text: bytes) -> int:
    if not text.isdigit() or len(text) > 5 or (text.startswith(b"0") and text != b"0") or int(text) > 0xFFFF:
        raise HeaderError("proxy-header-malformed")
    return int(text)
