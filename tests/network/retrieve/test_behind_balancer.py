"""The restore role behind HAProxy: plain, over TLS and over HTTPS, the workstation is who the balancer says."""

from __future__ import annotations

import pytest

from gateway.audit import events
from tests.network.retrieve.conftest import bound, lines_soon, plain
from tests.network.retrieve.test_dcmtk import keys
from tests.network.retrieve.test_dicomweb import session_of
from tests.network.retrieve.test_tls import with_tls
from tests.support.network import peers
from tests.support.network.balancer import ADDRESS, HEADERS, balancer

pytestmark = pytest.mark.peers

BEHIND = {"balancers": (ADDRESS,), "handshake_timeout_s": 10}


def pending(port: int, study: str, *options: object) -> int:
    """Matches of a C-FIND."""
    at = ["-aet", "READING1", "-aec", "MIAD_RESTORE", "127.0.0.1", port]
    done = peers.run("findscu", "-v", "-S", *options, *keys("STUDY", StudyInstanceUID=study), *at)
    return (done.stdout + done.stderr).count("(Pending)")


@pytest.mark.parametrize("header", HEADERS)
def test_find_over_tls_and_plain_through_haproxy(start_scp, server_tls, reading_tls, site, audit, tmp_path, header):
    study = site.samples["ct"].study
    secured = start_scp(bound(reading_tls), tls=server_tls, **BEHIND)
    open_one = start_scp(plain(), **BEHIND)
    with balancer(tmp_path, [secured.tls_port], header) as port:
        assert pending(port, study, *with_tls(reading_tls)) == 1
    with balancer(tmp_path, [open_one.plain_port], header) as port:
        assert pending(port, study) == 1
    for event in (events.ASSOCIATION_OPENED, events.PLAIN_CONNECTION):
        (line,) = lines_soon(audit, event)
        assert (line["peer_address"], line["balancer_address"]) == ("127.0.0.1", ADDRESS)
    assert audit.lines(events.NODE_REFUSED) == []


def test_a_workstation_somewhere_else_stays_out_behind_haproxy(
    start_scp, server_tls, reading_tls, site, audit, tmp_path
):
    """The balancer's address is listed for it, and its own is not: what counts is its own."""
    scp = start_scp(bound(reading_tls, addresses=(ADDRESS,)), tls=server_tls, **BEHIND)
    with balancer(tmp_path, [scp.tls_port]) as port:
        assert pending(port, site.samples["ct"].study, *with_tls(reading_tls)) == 0
    (line,) = lines_soon(audit, events.ASSOCIATION_REFUSED)
    assert (line["reason"], line["peer_address"]) == ("address-not-listed", "127.0.0.1")


def test_qido_through_haproxy(start_web, reading_tls, site, audit, tmp_path):
    web = start_web(bound(reading_tls), **BEHIND)
    with balancer(tmp_path, [web.port]) as port:
        answer = session_of(reading_tls).get(f"https://localhost:{port}/dicomweb/studies", timeout=30)
    assert answer.status_code == 200 and answer.json()
    (line,) = lines_soon(audit, events.QUERY)
    assert (line["peer_address"], line["balancer_address"]) == ("127.0.0.1", ADDRESS)
