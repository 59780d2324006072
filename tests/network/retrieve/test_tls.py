"""TLS: a certificate is bound to its AE title, on the way in and on the way out."""

from __future__ import annotations

import contextlib
import io
import socket

import pytest

from gateway.audit import events
from gateway.config.models import Tls
from gateway.network.contexts import EXPLICIT_LITTLE, VERIFICATION
from gateway.network.scu import Peer, ScuAssociation
from gateway.network.tls import client_context
from tests.network.retrieve.conftest import bound, lines_soon, plain
from tests.network.retrieve.test_dcmtk import keys
from tests.support.network import peers
from tests.support.network.certificates import Authority
from tests.support.retrieve.samples import received

pytestmark = pytest.mark.peers


def with_tls(tls: Tls) -> list[object]:
    """DCMTK's options for a client with a certificate."""
    return ["+tls", tls.private_key, tls.certificate, "+cf", tls.trust]


def at(scp, calling: str = "READING1") -> list[object]:
    return ["-aet", calling, "-aec", "MIAD_RESTORE", "127.0.0.1", scp.tls_port]


def echo(scp, *options: object, calling: str = "READING1"):
    return peers.run("echoscu", *options, *at(scp, calling))


@pytest.fixture
def start(start_scp, server_tls):
    def start_with_tls(*workstations, **settings):
        return start_scp(*workstations, tls=server_tls, **settings)

    return start_with_tls


def test_the_right_certificate_gets_in(start, reading_tls, audit):
    scp = start(bound(reading_tls))
    assert echo(scp, *with_tls(reading_tls)).returncode == 0
    (line,) = lines_soon(audit, events.ASSOCIATION_OPENED)
    assert line["tls"] is True
    assert line["key_sha256"] == bound(reading_tls).key_sha256[0]


@pytest.mark.parametrize("name", ["reading1", "dicom:reading1"])
def test_a_subject_alternative_name_binds(start, reading_tls, name):
    scp = start(bound(reading_tls, key_sha256=(), san=(name,)))
    assert echo(scp, *with_tls(reading_tls)).returncode == 0


def test_find_over_tls(start, reading_tls, site):
    scp = start(bound(reading_tls))
    asked = keys("STUDY", StudyInstanceUID=site.samples["ct"].study)
    done = peers.run("findscu", "-v", "-S", *with_tls(reading_tls), *asked, *at(scp))
    assert (done.stdout + done.stderr).count("(Pending)") == 1


def test_the_right_certificate_with_another_title_is_rejected(start, authority, reading_tls, audit):
    """READING2 exists and its address is listed; the caller's certificate is good, but READING1's."""
    scp = start(bound(reading_tls), bound(authority.issue("reading2"), "READING2"))
    done = echo(scp, *with_tls(reading_tls), calling="READING2")
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr
    (line,) = lines_soon(audit, events.ASSOCIATION_REFUSED)
    assert (line["reason"], line["calling_ae"]) == ("certificate-not-bound-to-ae", "READING2")


def test_another_certificate_of_the_same_authority_is_rejected(start, authority, reading_tls, audit):
    scp = start(bound(reading_tls))
    done = echo(scp, *with_tls(authority.issue("somebody")))
    assert "Calling AE Title Not Recognized" in done.stderr
    assert lines_soon(audit, events.ASSOCIATION_REFUSED)[0]["reason"] == "certificate-not-bound-to-ae"


def test_a_plain_workstation_does_not_get_in_by_any_certificate(start, authority, reading_tls):
    scp = start(bound(reading_tls), plain("OLD1"))
    done = echo(scp, *with_tls(authority.issue("somebody")), calling="OLD1")
    assert "Calling AE Title Not Recognized" in done.stderr


def test_a_certificate_of_a_foreign_authority_ends_in_the_handshake(start, reading_tls, authority, audit, tmp_path):
    scp = start(bound(reading_tls))
    foreign = Authority(tmp_path / "foreign", "foreign CA").issue("reading1", trust=authority.trust)
    assert echo(scp, *with_tls(foreign)).returncode != 0
    (line,) = lines_soon(audit, events.NODE_REFUSED)
    assert line["reason"] == "tls-certificate-not-trusted"


def test_no_certificate_ends_in_the_handshake(start, reading_tls, audit):
    scp = start(bound(reading_tls))
    assert echo(scp, "+tla", "+cf", reading_tls.trust).returncode != 0
    assert lines_soon(audit, events.NODE_REFUSED)
    assert not audit.lines(events.ASSOCIATION_OPENED)


def test_no_tls_on_the_tls_port_gets_nothing(start, reading_tls, audit):
    scp = start(bound(reading_tls))
    assert echo(scp).returncode != 0
    assert lines_soon(audit, events.NODE_REFUSED)


def test_silent_clients_stall_nobody(start, reading_tls):
    scp = start(bound(reading_tls), handshake_timeout_s=300)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", scp.tls_port), 5))
        peer = Peer("127.0.0.1", scp.tls_port, "MIAD_RESTORE", "READING1", client_context(reading_tls))
        association = ScuAssociation(peer, [(VERIFICATION, EXPLICIT_LITTLE)])
        assert association.echo().status == 0
        association.release()


def test_silent_clients_are_closed(start, reading_tls, audit):
    scp = start(bound(reading_tls), handshake_timeout_s=1)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", scp.tls_port), 5)) for _ in range(5)]
        for client in silent:
            client.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
    lines = lines_soon(audit, events.NODE_REFUSED)
    assert {line["reason"] for line in lines} == {"tls-handshake-timeout"}


# --- on the way out: a C-STORE of a marked copy makes the SCP call the workstation -----------------------------------


def ask_by_store(scp, tls: Tls, site, name: str):
    """Send the marked copy of a sample, as DCMTK storescu does; returns the response."""
    sample = site.samples[name]
    peer = Peer("127.0.0.1", scp.tls_port, "MIAD_RESTORE", "READING1", client_context(tls))
    association = ScuAssociation(peer, [(sample.sop_class, EXPLICIT_LITTLE)])
    uid = site.records[name].derived_sop_uid
    response = association.store(sample.sop_class, uid, EXPLICIT_LITTLE, io.BytesIO(site.marked(name)))
    association.release()
    return response


def test_originals_go_out_over_tls_to_the_workstations_own_certificate(start, authority, reading_tls, site, tmp_path):
    options = [*with_tls(reading_tls), "+xa"]
    with peers.storescp(tmp_path / "store", *options) as port:
        scp = start(bound(reading_tls, port=port))
        assert ask_by_store(scp, reading_tls, site, "mr").status == 0
    sample = site.samples["mr"]
    assert received(tmp_path / "store") == {sample.uid: sample.data}


def test_originals_do_not_go_to_another_certificate_at_that_address(
    start, authority, reading_tls, site, tmp_path, audit
):
    """The impostor's certificate is of the same authority and names 127.0.0.1."""
    with peers.storescp(tmp_path / "store", *with_tls(authority.issue("impostor")), "+xa") as port:
        scp = start(bound(reading_tls, port=port))
        assert ask_by_store(scp, reading_tls, site, "mr").status == 0xC002
    assert received(tmp_path / "store") == {}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert line["reason"] == "certificate-not-bound"


def test_originals_do_not_go_out_in_clear_unless_the_entry_says_so(start, reading_tls, site, tmp_path, audit):
    with peers.storescp(tmp_path / "store", "+xa") as port:
        scp = start(bound(reading_tls, port=port))
        assert ask_by_store(scp, reading_tls, site, "mr").status != 0
    assert received(tmp_path / "store") == {}
