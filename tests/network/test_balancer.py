"""The ingress behind TCP balancers: HAProxy itself, and those who would like to pass for one."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import struct
from functools import partial

import pytest

from gateway.audit import events
from gateway.config.models import Ingress, Peer, Route
from gateway.network.admission import Counts
from gateway.network.scu import ScuAssociation
from gateway.network.stow import IngressWeb
from gateway.network.tls import client_context
from tests.network.retrieve.conftest import key_of
from tests.network.retrieve.test_dicomweb import session_of
from tests.network.test_ingress import called, gateway_threads
from tests.network.test_ingress import until as soon
from tests.support.network import peers, raw
from tests.support.network.balancer import ADDRESS, HEADERS, balancer
from tests.support.network.samples import CT, EXPLICIT, ct, pydicom_file

BEHIND = {"balancers": (ADDRESS,)}
until = partial(soon, within_s=60)  # a busy machine takes long over a flood
FAR = Peer(ae_title="ARCHIVE", addresses=("192.0.2.7",))


def version_1(client: str = "192.0.2.7") -> bytes:
    return f"PROXY TCP4 {client} 192.0.2.1 40000 104\r\n".encode()


def version_2(client: str = "192.0.2.7") -> bytes:
    ends = socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 40000, 104)
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x11, len(ends)) + ends


def accepted(port: int, *before: bytes, source: str = ADDRESS) -> tuple[int, bytes]:
    """Type and body of the answer to an A-ASSOCIATE-RQ behind these bytes."""
    with raw.connected(port, source) as wire:
        for piece in (*before, raw.associate()):
            wire.send(piece)
        answer = wire.read()
        if answer[0] == 0x02:
            wire.send(raw.RELEASE_RQ)
            wire.read()
        return answer


# -- HAProxy -----------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("header", HEADERS)
def test_two_replicas_behind_haproxy_see_the_client(start_ingress, receiver, audit, tmp_path, header):
    """Its looks at the ports are no associations and leave no line; when one replica goes, the other has all."""
    first, second = start_ingress(**BEHIND), start_ingress(**BEHIND)
    file = pydicom_file("CT_small.dcm")
    with balancer(tmp_path, [first.port, second.port], header) as port:

        def send() -> None:
            sent = peers.run("storescu", "-R", "-xe", "-aet", "ARCHIVE", "-aec", "GATEWAY", "127.0.0.1", port, file)
            assert sent.returncode == 0, sent.stderr

        send()
        send()
        first.stop(0.5)
        send()
    assert [kept.state for kept in receiver.kept] == ["committed"] * 3
    assert {kept.facts.peer_address for kept in receiver.kept} == {"127.0.0.1"}
    assert len({kept.data for kept in receiver.kept}) == 1
    closed = audit.lines(events.ASSOCIATION_CLOSED)
    assert {(line["peer_address"], line["balancer_address"]) for line in closed} == {("127.0.0.1", ADDRESS)}
    assert audit.lines(events.NODE_REFUSED) == []


@pytest.mark.peers
def test_tls_goes_through_haproxy_to_the_ingress(start_ingress, authority, receiver, audit, tmp_path):
    """The balancer hands on what it cannot read: the certificate that counts is the archive's."""
    archive = authority.issue("archive")
    peer = Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), key_sha256=(key_of(archive.certificate),))
    ingress = start_ingress(tls=authority.issue("gateway"), peers=(peer,), handshake_timeout_s=10, **BEHIND)
    uid, data = ct()
    with balancer(tmp_path, [ingress.port]) as port:
        to = called(ingress, tls=client_context(archive))
        association = ScuAssociation(type(to)(**{**vars(to), "port": port}), [(CT, EXPLICIT)])
        assert association.store(CT, uid, EXPLICIT, io.BytesIO(data)).status == 0
        association.release()
    assert receiver.committed == {uid: data}
    assert receiver.kept[0].facts.peer_address == "127.0.0.1"


@pytest.mark.peers
def test_haproxy_without_its_header_gets_nobody_in(start_ingress, receiver, audit, tmp_path):
    ingress = start_ingress(**BEHIND)
    with balancer(tmp_path, [ingress.port], header="") as port:
        sent = peers.run("echoscu", "-aet", "ARCHIVE", "-aec", "GATEWAY", "127.0.0.1", port)
    assert sent.returncode != 0

    def found() -> list[dict]:
        return [line for line in audit.lines(events.NODE_REFUSED) if line["reason"] == "proxy-header-missing"]

    assert soon(found)  # echoscu may hear of it first
    assert {line["peer_address"] for line in found()} == {ADDRESS}


@pytest.mark.peers
@pytest.mark.parametrize("header", HEADERS)
def test_stow_behind_haproxy_knows_client_and_certificate(authority, receiver, audit, tmp_path, header):
    archive = authority.issue("archive")
    peer = Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), key_sha256=(key_of(archive.certificate),))
    config = Ingress(peers=(peer,), tls=authority.issue("ingress"), dicomweb_port=1, **BEHIND)
    route = Route(name="main", called_ae="MAIN", destinations=("outside",))
    web = IngressWeb(config.model_copy(update={"dicomweb_port": 0}), [route], receiver, audit, Counts())
    web.start()
    body = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + pydicom_file("CT_small.dcm").read_bytes() + b"\r\n--B--"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'}
    try:
        with balancer(tmp_path, [web.port], header) as port:
            answer = session_of(archive).post(f"https://localhost:{port}/dicomweb/main/studies", body, headers=kind)
        assert answer.status_code == 200, answer.text
        assert receiver.kept[0].facts.peer_address == "127.0.0.1"
        (line,) = audit.lines(events.STORE_REQUEST)
        assert (line["peer_address"], line["balancer_address"]) == ("127.0.0.1", ADDRESS)
        with pytest.raises(ssl.SSLError), raw.connected(web.port) as wire:  # not from the balancer: no header is read
            wire.send(version_2())
            client_context(archive).wrap_socket(wire.sock, server_hostname="localhost")
        with raw.connected(web.port, ADDRESS) as wire:  # from the balancer: one is demanded
            wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wire.read() == (0, b"")
        assert until(lambda: len(audit.lines(events.NODE_REFUSED)) == 2)
        told = {(line["peer_address"], line["reason"]) for line in audit.lines(events.NODE_REFUSED)}
        assert told == {("127.0.0.1", "tls-handshake-failed"), (ADDRESS, "proxy-header-missing")}
    finally:
        web.stop(0.2)


# -- rules by address --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [version_1, version_2])
def test_the_carried_address_is_what_is_listed(start_ingress, audit, header):
    ingress = start_ingress(peers=(FAR,), **BEHIND)
    assert accepted(ingress.port, header())[0] == 0x02
    kind, body = accepted(ingress.port, header("192.0.2.8"))
    assert (kind, body[1:4]) == (0x03, b"\x01\x01\x03")
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    (line,) = audit.lines(events.ASSOCIATION_REFUSED)
    told = (line["reason"], line["peer_address"], line["balancer_address"])
    assert told == ("address-not-listed", "192.0.2.8", ADDRESS)


def test_the_balancers_own_address_is_nobody(start_ingress, audit):
    """LOCAL is the balancer itself: it may look in, and is in no list."""
    ingress = start_ingress(peers=(FAR,), **BEHIND)
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    for word in (local, b"PROXY UNKNOWN\r\n"):
        kind, _ = accepted(ingress.port, word)
        assert kind == 0x03
    assert {line["peer_address"] for line in audit.lines(events.ASSOCIATION_REFUSED)} == {ADDRESS}


def test_caps_count_the_carried_address(start_ingress, audit):
    ingress = start_ingress(
        peers=(FAR, Peer(ae_title="MODALITY", addresses=("192.0.2.9",))),
        max_connections=40,
        max_connections_per_address=6,
        handshake_timeout_s=20,
        **BEHIND,
    )
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            wire = stack.enter_context(raw.connected(ingress.port, ADDRESS))
            wire.send(version_2("192.0.2.9"))
        assert until(lambda: len(audit.lines(events.NODE_REFUSED)) >= 10)  # the first of a flood are written whole
        assert accepted(ingress.port, version_2())[0] == 0x02
    (kind,) = {(line["reason"], line["peer_address"]) for line in audit.lines(events.NODE_REFUSED)}
    assert kind == ("too-many-connections-of-this-address", "192.0.2.9")


def test_who_awaits_a_header_takes_no_place_of_the_others(start_ingress, audit):
    ingress = start_ingress(max_connections=4, handshake_timeout_s=20, **BEHIND)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(raw.connected(ingress.port, ADDRESS))
        assert until(lambda: len(audit.lines(events.NODE_REFUSED)) == 4)
        assert accepted(ingress.port, source="127.0.0.1")[0] == 0x02
    assert {line["reason"] for line in audit.lines(events.NODE_REFUSED)} == {"too-many-connections"}


# -- who would like to pass for a balancer -----------------------------------------------------------------------------


@pytest.mark.parametrize("header", [version_1, version_2])
def test_a_header_of_anybody_else_is_no_header(start_ingress, audit, header):
    ingress = start_ingress(peers=(FAR, Peer(ae_title="OTHER", addresses=("127.0.0.1",))), **BEHIND)
    assert accepted(ingress.port, header(), source="127.0.0.1")[0] in (0x00, 0x07)
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    (line,) = audit.lines(events.NODE_REFUSED)
    assert (line["reason"], line["peer_address"]) == ("proxy-header-not-expected", "127.0.0.1")
    assert "balancer_address" not in line


def test_a_second_header_is_the_clients_own_and_is_refused(start_ingress, audit):
    """A client behind a balancer that writes a header as well: only the first one, the balancer's, is believed."""
    ingress = start_ingress(peers=(FAR,), **BEHIND)
    assert accepted(ingress.port, version_2("192.0.2.66"), version_1())[0] in (0x00, 0x07)
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    (line,) = audit.lines(events.NODE_REFUSED)
    told = (line["reason"], line["peer_address"], line["balancer_address"])
    assert told == ("proxy-header-not-expected", "192.0.2.66", ADDRESS)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "proxy-header-timeout"),
        (b"PROXY TCP4 192.0", "proxy-header-timeout"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(100), "proxy-header-too-long"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n", "proxy-header-malformed"),
        (raw.associate(), "proxy-header-missing"),
        (bytes(200), "proxy-header-missing"),
    ],
)
def test_what_a_balancer_says_wrong_is_closed_and_told(start_ingress, receiver, audit, said, reason):
    ingress = start_ingress(handshake_timeout_s=0.3, **BEHIND)
    with raw.connected(ingress.port, ADDRESS) as wire:
        wire.send(said)
        assert wire.read() == (0, b"")
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    (line,) = audit.lines(events.NODE_REFUSED)
    assert (line["reason"], line["peer_address"]) == (reason, ADDRESS)
    assert until(lambda: not gateway_threads())


def test_without_balancers_nothing_is_demanded_and_no_header_read(start_ingress, audit):
    ingress = start_ingress()
    assert accepted(ingress.port, source="127.0.0.1")[0] == 0x02
    assert accepted(ingress.port, version_1("127.0.0.1"), source="127.0.0.1")[0] in (0x00, 0x07)
    assert until(lambda: audit.lines(events.NODE_REFUSED))
