"""The port: silent, slow and malformed clients, limits, TLS."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import struct
import threading
import time

import pytest

from gateway.audit import events
from gateway.config.models import Peer
from gateway.errors import ConfigError, PermanentError, TransientError
from gateway.network.contexts import storage_contexts
from gateway.network.scu import ScuAssociation
from gateway.network.server import Listen, ScpServer
from gateway.network.tls import client_context, server_context
from tests.network.test_ingress import called, gateway_threads, until
from tests.support.network import peers
from tests.support.network.certificates import Authority
from tests.support.network.samples import CT, EXPLICIT, ct


@contextlib.contextmanager
def silent_clients(port: int, count: int):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(count)]


def closed_within(client: socket.socket, seconds: float) -> bool:
    client.settimeout(seconds)
    try:
        while client.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def supported(proposed, _caller):
    return storage_contexts(proposed)


@pytest.fixture
def tls_ingress(start_ingress, authority):
    return start_ingress(tls=authority.issue("gateway"))


@pytest.fixture
def archive_tls(authority):
    return client_context(authority.issue("archive"))


def test_silent_clients_on_the_tls_port_stall_nobody(start_ingress, authority, archive_tls, receiver):
    ingress = start_ingress(tls=authority.issue("gateway"), handshake_timeout_s=300)
    uid, data = ct()
    with silent_clients(ingress.port, 10):
        association = ScuAssociation(called(ingress, tls=archive_tls), [(CT, EXPLICIT)])
        assert association.store(CT, uid, EXPLICIT, io.BytesIO(data)).status == 0
        association.release()
        assert receiver.committed == {uid: data}


def test_silent_clients_on_the_tls_port_are_closed_in_time(start_ingress, authority, audit):
    ingress = start_ingress(tls=authority.issue("gateway"), handshake_timeout_s=1)
    with silent_clients(ingress.port, 10) as clients:
        assert all(closed_within(client, 60) for client in clients)
    assert until(lambda: not gateway_threads())
    assert {line["reason"] for line in audit.lines(events.NODE_REFUSED)} == {"tls-handshake-timeout"}


def test_a_silent_plain_client_is_closed_in_time(start_ingress):
    ingress = start_ingress(handshake_timeout_s=1)
    with silent_clients(ingress.port, 3) as clients:
        assert all(closed_within(client, 60) for client in clients)
    assert until(lambda: not gateway_threads())


def test_a_look_in_without_a_word_leaves_no_trace(start_ingress, audit):
    """Load balancers open and close a connection every few seconds."""
    ingress = start_ingress(handshake_timeout_s=300)
    for _ in range(20):
        socket.create_connection(("127.0.0.1", ingress.port)).close()
    assert until(lambda: not gateway_threads())
    assert not audit.lines()


@pytest.mark.parametrize(
    "start",
    [
        b"\x01\x00\x00\x00\x01\x00half an A-ASSOCIATE-RQ",
        b"\x01\x00\xff\xff\xff\xff4 GiB to come",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\x00\x00\x00\x50" + bytes(0x50),
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03xx",
        b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    ],
)
def test_what_is_no_association_request_is_closed(start_ingress, start):
    ingress = start_ingress(handshake_timeout_s=1)
    with socket.create_connection(("127.0.0.1", ingress.port)) as client:
        client.sendall(start)
        assert closed_within(client, 60)
    assert until(lambda: not gateway_threads())


@pytest.mark.parametrize("sent", [b"", b"\x04\x00\x00\x00\x10\x00\x00"])
def test_a_client_that_falls_silent_in_an_association_is_ended(start_ingress, sent):
    """Between PDUs and in the middle of one."""
    ingress = start_ingress(idle_timeout_s=0.5)
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    association._wire.send(sent)
    assert closed_within(association._wire._socket, 60)
    assert until(lambda: not gateway_threads())


def test_a_client_that_drips_a_pdu_byte_by_byte_is_ended(start_ingress):
    """Each byte is in time, the PDU as a whole is not."""
    ingress = start_ingress(idle_timeout_s=0.5)
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    with pytest.raises(TransientError):
        for byte in b"\x04\x00\x00\x00\x10\x00" + bytes(50):
            association._wire.send(bytes([byte]))
            time.sleep(0.1)
    assert until(lambda: not gateway_threads())


@pytest.mark.parametrize(
    "fragments",
    [
        struct.pack(">BBLLBB", 4, 0, 8, 6, 1, 3) + b"\xff\xff",  # an item longer than its PDU
        struct.pack(">BBLLBB", 4, 0, 10, 6, 1, 3) + b"\xff\xff\xff\xff",  # no command set
        struct.pack(">BBLLBB", 4, 0, 10, 6, 1, 2) + b"\xff\xff\xff\xff",  # a data set without a command
    ],
)
def test_malformed_data_ends_the_association_and_nothing_else(start_ingress, receiver, fragments):
    ingress = start_ingress()
    other = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    association._wire.send(fragments)
    assert closed_within(association._wire._socket, 60)
    assert other.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0
    other.release()
    assert until(lambda: not gateway_threads())


def test_connections_are_capped_before_any_association(start_ingress, audit):
    ingress = start_ingress(max_connections=3)
    with silent_clients(ingress.port, 3):
        time.sleep(0.1)
        with pytest.raises(TransientError):
            ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert until(lambda: audit.lines(events.NODE_REFUSED))
    assert audit.lines(events.NODE_REFUSED)[0]["reason"] == "too-many-connections"
    assert until(lambda: not gateway_threads())
    ScuAssociation(called(ingress), [(CT, EXPLICIT)]).release()


def test_associations_are_capped_with_a_transient_rejection(start_ingress, audit):
    ingress = start_ingress(max_associations=2)
    first, second = (ScuAssociation(called(ingress), [(CT, EXPLICIT)]) for _ in range(2))
    with pytest.raises(TransientError) as caught:
        ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert caught.value.code == "association-rejected-for-now"
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "too-many-associations"
    first.release()
    assert until(lambda: len(ingress._server.associations) == 1)
    ScuAssociation(called(ingress), [(CT, EXPLICIT)]).release()
    second.release()


def test_fifty_associations_open_and_close_without_leftovers(start_ingress):
    ingress = start_ingress()
    before = threading.active_count()
    for _ in range(50):
        ScuAssociation(called(ingress), [(CT, EXPLICIT)]).release()
    assert until(lambda: threading.active_count() <= before)
    assert ingress._server._counts.taken("connections") == 0 and not ingress._server._live


def test_an_error_in_the_decision_refuses(audit):
    """Pynetdicom goes on with the association when an EVT_REQUESTED handler raises; we do not."""

    def admit(caller):
        raise KeyError("DOE^JANE")

    server = ScpServer(
        Listen("127.0.0.1", 0, ("GATEWAY",)),
        audit=audit,
        admit=admit,
        contexts=supported,
    )
    server.start()
    try:
        with pytest.raises(TransientError, match="rejected"):
            ScuAssociation(called(server), [(CT, EXPLICIT)])
        assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
        assert audit.lines(events.ASSOCIATION_REFUSED)[0]["reason"] == "internal-error"
        assert "DOE" not in audit.path.read_text()
    finally:
        server.stop()


def test_a_taken_port_is_a_clear_error(start_ingress, audit):
    ingress = start_ingress()
    server = ScpServer(
        Listen("127.0.0.1", ingress.port, ("A",)), audit=audit, admit=lambda c: None, contexts=storage_contexts
    )
    with pytest.raises(ConfigError) as caught:
        server.start()
    assert caught.value.code == "cannot-listen"


@pytest.mark.parametrize("drain_s", [120, 0.1])
def test_stop_lets_associations_end_and_then_aborts(start_ingress, receiver, drain_s):
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    stopping = threading.Thread(target=ingress.stop, args=(drain_s,))
    stopping.start()
    if drain_s > 1:
        assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0
        association.release()
    stopping.join(60)
    assert not stopping.is_alive() and not association.alive()
    assert until(lambda: not gateway_threads())
    with pytest.raises(TransientError):
        ScuAssociation(called(ingress), [(CT, EXPLICIT)])


@pytest.mark.peers
def test_dcmtk_over_tls(tls_ingress, authority, receiver):
    archive = authority.issue("archive")
    tls = ("+tls", archive.private_key, archive.certificate, "+cf", archive.trust)
    sent = peers.run("echoscu", *tls, "-aet", "ARCHIVE", "-aec", "GATEWAY", "127.0.0.1", tls_ingress.port)
    assert sent.returncode == 0, sent.stderr


def test_certificates_of_others_get_no_association(tls_ingress, tmp_path, authority, audit):
    stranger = Authority(tmp_path / "other").issue("archive", trust=authority.trust)
    expired = authority.issue("archive", expired=True)
    without = ssl.create_default_context(cafile=str(authority.trust))
    for context in (client_context(stranger), client_context(expired), without):
        with pytest.raises((TransientError, PermanentError)):
            ScuAssociation(called(tls_ingress, tls=context), [(CT, EXPLICIT)])
    with pytest.raises(TransientError):
        ScuAssociation(called(tls_ingress), [(CT, EXPLICIT)])  # plain DICOM on the TLS port
    assert until(lambda: len(audit.lines(events.NODE_REFUSED)) == 4)
    reasons = [line["reason"] for line in audit.lines(events.NODE_REFUSED)]
    assert sorted(reasons) == ["tls-certificate-not-trusted"] * 2 + ["tls-handshake-failed"] * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_version_gets_no_association(tls_ingress, authority):
    context = client_context(authority.issue("archive"))
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # else the client's own OpenSSL refuses to speak it
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((TransientError, PermanentError)):
        ScuAssociation(called(tls_ingress, tls=context), [(CT, EXPLICIT)])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_decision_sees_the_peers_certificate(audit, authority, version):
    seen = []
    server = ScpServer(
        Listen("127.0.0.1", 0, ("GATEWAY",)),
        audit=audit,
        admit=seen.append,
        contexts=supported,
        tls=server_context(authority.issue("gateway")),
    )
    server.start()
    try:
        context = client_context(authority.issue("workstation-7"))
        context.maximum_version = version
        ScuAssociation(called(server, tls=context), [(CT, EXPLICIT)]).release()
    finally:
        server.stop()
    (caller,) = seen
    assert len(caller.certificate.key_sha256) == 64
    assert {"workstation-7", "dicom:workstation-7", "127.0.0.1"} <= set(caller.certificate.names)


def test_a_key_that_others_can_read_is_refused(authority):
    tls = authority.issue("gateway")
    tls.private_key.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        server_context(tls)
    assert caught.value.code == "secret-readable-by-others"


def test_a_trust_folder_holds_several_authorities(start_ingress, authority, tmp_path):
    other = Authority(tmp_path / "other", "other CA")
    folder = tmp_path / "trust"
    folder.mkdir()
    for number, path in enumerate((authority.trust, other.trust)):
        (folder / f"{number}.pem").write_bytes(path.read_bytes())
    ingress = start_ingress(tls=authority.issue("gateway", trust=folder))
    for one in (authority, other):
        context = client_context(one.issue("archive", trust=authority.trust))
        ScuAssociation(called(ingress, tls=context), [(CT, EXPLICIT)]).release()


def test_ipv6(start_ingress, receiver):
    with socket.socket(socket.AF_INET6) as probe:  # asked of the system, so that our own failure to listen stays red
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    ingress = start_ingress(host="::1", peers=(Peer(ae_title="ARCHIVE", addresses=("::1",)),))
    from dataclasses import replace

    association = ScuAssociation(replace(called(ingress), host="::1"), [(CT, EXPLICIT)])
    assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0
    association.release()
    assert receiver.kept[0].facts.peer_address == "::1"
