"""The PROXY header: what is read, what is refused, and that nothing behind it is touched."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.network.proxy_protocol import LONGEST_BODY, LONGEST_LINE, Client, HeaderError, receive, receive_async

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"\x01\0what comes next"


def version_2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


def four(source: str = "192.0.2.7", port: int = 40000) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack(">HH", port, 104)


def six(source: str = "2001:db8::7", port: int = 40000) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    return ends + struct.pack(">HH", port, 104)


def read(data: bytes, *, ends: bool = True, seconds: float = 20) -> tuple[Client | None, bytes]:
    """What `receive` makes of these bytes, and what it leaves; both ways of reading have to agree."""
    results = []
    for way in ("blocking", "asyncio"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            if ends:
                theirs.shutdown(socket.SHUT_WR)
            if way == "blocking":
                got: object = outcome(lambda sock=ours: receive(sock, seconds))
            else:
                ours.setblocking(False)
                got = outcome(lambda sock=ours: asyncio.run(receive_async(sock, seconds)))
            ours.settimeout(20)
            results.append((got, ours.recv(65536) if ends else b""))
    assert results[0] == results[1]
    got, left = results[0]
    if isinstance(got, str):
        raise HeaderError(got)
    assert got is None or isinstance(got, Client)
    return got, left


def outcome(call) -> object:
    try:
        return call()
    except HeaderError as error:
        return error.reason


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 104\r\n", Client("192.0.2.7", 40000)),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 0 65535\r\n", Client("1.1.1.1", 0)),
        (b"PROXY TCP6 2001:db8::7 ::1 40000 104\r\n", Client("2001:db8::7", 40000)),
        (b"PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 ::1 1 104\r\n", Client("2001:db8::7", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n", None),
        (version_2(0x21, 0x11, four()), Client("192.0.2.7", 40000)),
        (version_2(0x21, 0x21, six()), Client("2001:db8::7", 40000)),
        (version_2(0x21, 0x11, four() + b"\x04\0\x02ab"), Client("192.0.2.7", 40000)),  # a TLV
        (version_2(0x21, 0x11, four() + bytes(LONGEST_BODY - 12)), Client("192.0.2.7", 40000)),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x20, 0x11, four()), None),  # LOCAL: its addresses are to be ignored
    ],
)
def test_a_header_names_the_client_and_what_follows_stays(header: bytes, client: Client | None):
    assert read(header + BEHIND) == (client, BEHIND)


MALFORMED = "proxy-header-malformed"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x01\0\0\0\0\xcd" + bytes(20), "proxy-header-missing"),  # an A-ASSOCIATE-RQ
        (b"\x16\x03\x01\x02\0\x01" + bytes(20), "proxy-header-missing"),  # a ClientHello
        (b"GET / HTTP/1.1\r\n\r\n", "proxy-header-missing"),
        (b"proxy tcp4 192.0.2.7 192.0.2.1 1 2\r\n", "proxy-header-missing"),
        (b"PROXY  TCP4 192.0.2.7 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7  192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 \r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n", MALFORMED),
        (b"PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", MALFORMED),
        (b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.0/24 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.02.7 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 localhost 192.0.2.1 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.300 1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 007 2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 \xb2\r\n", MALFORMED),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n" + bytes(LONGEST_LINE), "proxy-header-too-long"),
        (b"PROXY TCP4 " + b"1" * LONGEST_LINE + b"\r\n", "proxy-header-too-long"),
        (b"PROXY UNKNOWN " + b"x" * LONGEST_LINE + b"\r\n", "proxy-header-too-long"),
        (version_2(0x11, 0x11, four()), MALFORMED),  # no version that there is
        (version_2(0x22, 0x11, four()), MALFORMED),  # no command that there is
        (version_2(0x21, 0x11, four()[:11]), MALFORMED),
        (version_2(0x21, 0x21, four()), MALFORMED),
        (version_2(0x21, 0x00, b""), "proxy-header-without-client"),
        (version_2(0x21, 0x12, four()), "proxy-header-without-client"),  # over UDP
        (version_2(0x21, 0x31, bytes(216)), "proxy-header-without-client"),  # over a socket of the system
        (version_2(0x21, 0x11, four(), LONGEST_BODY + 1), "proxy-header-too-long"),
        (version_2(0x21, 0x11, four(), 0xFFFF), "proxy-header-too-long"),
        (version_2(0x21, 0x11, four(), 200), MALFORMED),  # cut short
        (SIGNATURE[:9], MALFORMED),
        (b"PROXY TCP4 192.0.2.7", MALFORMED),
    ],
)
def test_what_is_no_header_is_refused_with_a_word(header: bytes, reason: str):
    with pytest.raises(HeaderError) as caught:
        read(header)
    assert caught.value.reason == reason


@pytest.mark.parametrize("begin", [b"", b"PROXY TCP4 192.", SIGNATURE + b"\x21\x11\0\x0c\xc0"])
def test_half_a_header_has_its_time_and_no_more(begin: bytes):
    with pytest.raises(HeaderError) as caught:
        read(begin, ends=False, seconds=0.05)
    assert caught.value.reason == "proxy-header-timeout"


def test_a_look_in_without_a_word_is_no_header_error():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(ConnectionError):
            receive(ours, 20)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda more: SIGNATURE + more),
        st.binary().map(lambda more: b"PROXY TCP4 " + more),
    )
)
def test_any_bytes_give_a_client_or_a_word(data: bytes):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            receive(ours, 20)
        except HeaderError as error:
            assert error.reason.startswith("proxy-header-")
        except ConnectionError:
            assert not data
