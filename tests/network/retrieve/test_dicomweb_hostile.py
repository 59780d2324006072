"""DICOMweb asked by those who may not, by those who ask badly, and by those who want it to fall over."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import pytest
import requests

from gateway.audit import events
from gateway.config.models import Tls
from gateway.network.http.exchange import Answered
from gateway.network.http.media import accepted
from gateway.network.retrieve.dicomweb.originals import Wanted
from gateway.network.retrieve.suboperations import Planned
from tests.network.retrieve.conftest import bound, lines_soon
from tests.network.retrieve.test_dicomweb import RELATED, parts_of, session_of
from tests.support.retrieve.samples import MANY_STUDY, samples
from tests.support.retrieve.vaults import build_site

ANY = {"Accept": f"{RELATED}; transfer-syntax=*"}


@contextlib.contextmanager
def connected(tls: Tls, port: int, timeout_s: float = 20):
    """A TLS connection of a client that may say anything."""
    context = ssl.create_default_context(cafile=str(tls.trust))
    context.load_cert_chain(tls.certificate, tls.private_key)
    plain_one = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    with context.wrap_socket(plain_one, server_hostname="localhost") as connection:
        yield connection


def said(tls: Tls, port: int, text: bytes) -> bytes:
    """Everything that comes back for these bytes, up to the end of the connection."""
    with connected(tls, port) as connection:
        connection.sendall(text)
        answer = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def asked(
    tls: Tls, port: int, path: bytes, more: bytes = b"", method: bytes = b"GET", host: bytes = b"localhost"
) -> bytes:
    head = method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + more + b"\r\n"
    return said(tls, port, head)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# -- who may not -------------------------------------------------------------------------------------------------------


def test_a_caller_is_its_certificate(start_web, authority, reading_tls, site, audit):
    stranger, twice = authority.issue("stranger"), authority.issue("twice")
    web = start_web(
        bound(reading_tls),
        bound(twice, "TWICE1", studies=(MANY_STUDY,)),
        bound(twice, "TWICE2"),
        bound(authority.issue("far"), "FAR", addresses=("192.0.2.1",)),
    )
    url = f"https://localhost:{web.port}/dicomweb/studies"
    for tls, reason in (
        (stranger, "certificate-not-bound-to-ae"),
        (twice, "certificate-bound-to-several"),  # two scopes: nobody can tell which one is meant
        (Tls(certificate=authority.folder / "far.pem", private_key=authority.folder / "far.key", trust=authority.trust),
         "address-not-listed"),
    ):  # fmt: skip
        answer = session_of(tls).get(url)
        assert (answer.status_code, answer.text) == (403, "not authorised\n")
        assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == reason
    nobody = requests.Session()
    nobody.trust_env = False
    with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
        nobody.get(url, verify=str(authority.trust))
    assert lines_soon(audit, events.NODE_REFUSED)
    assert not audit.lines(events.QUERY)


def test_what_is_out_of_scope_is_not_there(start_web, reading_tls, site, audit):
    """Another's study and one that nobody has are answered alike, in whatever way they are asked for."""
    rle, ct = site.samples["mr-rle"], site.samples["ct"]
    url = f"https://localhost:{start_web(bound(reading_tls, studies=(rle.study,))).port}/dicomweb"
    session = session_of(reading_tls)
    assert [one["0020000D"]["Value"] for one in session.get(f"{url}/studies").json()] == [[rle.study]]
    assert session.get(f"{url}/instances", params={"SOPInstanceUID": ct.uid}).json() == []
    for below in ("", "/metadata", "/instances/{uid}", "/instances/{uid}/metadata", "/instances/{uid}/rendered",
                  "/instances/{uid}/bulkdata/7FE00010"):  # fmt: skip
        answers = [
            session.get(f"{url}/studies/{study}/series/{series}{below.format(uid=uid)}")
            for study, series, uid in (
                (ct.study, ct.series, ct.uid),
                ("1.2.3", "1.2.4", "1.2.5"),
                (rle.study, ct.series, ct.uid),
            )
        ]
        assert {(one.status_code, one.text) for one in answers} == {(404, "there is no such original\n")}
    assert not audit.lines(events.RESTORE_INTENDED) and not audit.lines(events.ORIGINAL_RESTORED)


def test_an_index_that_lies_about_the_study_gives_nothing(start_web, reading_tls, site, audit, monkeypatch):
    """The scope is held against the signed record once more before anything leaves."""
    ct = site.samples["ct"]
    web = start_web(bound(reading_tls, studies=("1.2.3",)))
    monkeypatch.setattr(site.index, "select", lambda *_: [site.records["ct"].locator])
    answer = session_of(reading_tls).get(f"https://localhost:{web.port}/dicomweb/studies/1.2.3", headers=ANY)
    assert answer.status_code == 500 and ct.data[:64] not in answer.content
    assert audit.lines(events.RESTORE_REFUSED)[0]["reason"] == "study-not-in-scope"


# -- asked badly -------------------------------------------------------------------------------------------------------

BAD = {
    "upwards": (b"/dicomweb/studies/../../../etc/passwd", b"", b"GET", 404),
    "upwards, quoted": (b"/dicomweb/studies/%2e%2e%2f%2e%2e%2fetc", b"", b"GET", 404),
    "a header in a UID": (b"/dicomweb/studies/1.2%0d%0aSet-Cookie:%20a=b", b"", b"GET", 404),
    "a UID too long": (b"/dicomweb/studies/" + b"1." * 33, b"", b"GET", 404),
    "frame 0": (b"/dicomweb/studies/1/series/2/instances/3/frames/0/rendered", b"", b"GET", 404),
    "nothing of ours": (b"/", b"", b"GET", 404),
    "HEAD": (b"/dicomweb/studies", b"", b"HEAD", 405),
    "POST": (b"/dicomweb/studies", b"Content-Length: 0\r\n", b"POST", 405),
    "a body": (b"/dicomweb/studies", b"Content-Length: 5\r\n\r\nhello", b"GET", 400),
    "chunks": (b"/dicomweb/studies", b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"GET", 400),
    "a coding": (b"/dicomweb/studies", b"Content-Encoding: gzip\r\n", b"GET", 415),
    "two lengths": (b"/dicomweb/studies", b"Content-Length: 0\r\nContent-Length: 5\r\n", b"GET", 400),
    "no type": (b"/dicomweb/studies", b"Accept: nonsense\r\n", b"GET", 400),
    "a quote left open": (b"/dicomweb/studies", b'Accept: a/b; c="d\r\n', b"GET", 400),
    "ranges without end": (b"/dicomweb/studies", b"Accept: " + b"a/b," * 500 + b"a/b\r\n", b"GET", 400),
    "another type": (b"/dicomweb/studies", b"Accept: text/html\r\n", b"GET", 406),
    "refused by its quality": (b"/dicomweb/studies", b"Accept: application/dicom+json;q=0\r\n", b"GET", 406),
    "no pair": (b"/dicomweb/studies?what", b"", b"GET", 400),
    "no UTF-8": (b"/dicomweb/studies?PatientName=%ff", b"", b"GET", 400),
    "no attribute": (b"/dicomweb/studies?Whatever=1", b"", b"GET", 400),
    "in a sequence": (b"/dicomweb/studies?RequestAttributesSequence.StudyID=1", b"", b"GET", 400),
    "pixels": (b"/dicomweb/studies?PixelData=1", b"", b"GET", 400),
    "twice": (b"/dicomweb/studies?PatientID=1&00100020=2", b"", b"GET", 400),
    "a wild UID": (b"/dicomweb/studies?StudyInstanceUID=1.*", b"", b"GET", 400),
    "two UIDs": (b"/dicomweb/studies/1.2/series?StudyInstanceUID=1.3", b"", b"GET", 400),
    "no number": (b"/dicomweb/studies?limit=-1", b"", b"GET", 400),
    "rows that are none": (b"/dicomweb/instances?Rows=x", b"", b"GET", 400),
    "a key too long": (b"/dicomweb/studies?PatientName=" + b"a" * 1025, b"", b"GET", 400),
    "parameters without end": (b"/dicomweb/studies?" + b"&".join([b"includefield=StudyID"] * 200), b"", b"GET", 400),
    "a window that is none": (b"/dicomweb/studies/1/series/2/instances/3/rendered?window=1,0,linear", b"", b"GET", 400),
    "a viewport too large": (b"/dicomweb/studies/1/series/2/instances/3/rendered?viewport=9999,9999", b"", b"GET", 400),
}  # fmt: skip


def test_bad_requests_are_refused_by_name(start_web, reading_tls, audit):
    port = start_web(bound(reading_tls)).port
    for name, (path, more, method, status) in BAD.items():
        answer = asked(reading_tls, port, path, more, method)
        assert status_of(answer) == status, (name, answer)
        assert b"set-cookie" not in answer.lower() and b"Traceback" not in answer
    for host in (b'evil"><script>', b"a b", b"a/../b"):
        answer = asked(reading_tls, port, b"/dicomweb/studies?limit=1", host=host)
        assert status_of(answer) == 400 and b"script" not in answer
    assert status_of(asked(reading_tls, port, b"/dicomweb/studies", b"X: " + b"a" * 20_000 + b"\r\n")) == 431
    assert not audit.lines(events.RESTORE_INTENDED)


def test_a_range_is_not_taken_for_the_whole(start_web, reading_tls, site):
    ct = site.samples["ct"]
    url = f"https://localhost:{start_web(bound(reading_tls)).port}/dicomweb/studies/{ct.study}"
    answer = session_of(reading_tls).get(url, headers=ANY | {"Range": "bytes=0-99"})
    assert (answer.status_code, answer.headers["Accept-Ranges"]) == (200, "none") and ct.data in answer.content
    assert answer.headers["Cache-Control"] == "no-store"


def test_accept_is_read_in_time_that_grows_with_its_length():
    begun = time.process_time()
    for text in ('a/b; c="' + "\\" * 16_000, "a/b" + ";a=b" * 4_000, "a/b" + " " * 16_000 + "x", "," * 16_000):
        with pytest.raises(Answered):
            accepted(text)
    assert time.process_time() - begun < 1
    planned = Planned("l", "1.2", "1.3", "1.2.840.10008.1.2.4.80")
    for text, allowed, single in (
        ("*/*", True, False), (RELATED, False, False), (f"{RELATED}; transfer-syntax=*", True, False),
        (f'{RELATED}; transfer-syntax="1.2.840.10008.1.2.4.80"', True, False),
        ("application/dicom; transfer-syntax=*", True, True), ("application/dicom", False, False),
        (f"{RELATED};q=0.1;transfer-syntax=*, application/dicom;q=0.9;transfer-syntax=*", True, True),
        ("image/jpeg", False, False),
    ):  # fmt: skip
        wanted = Wanted(text)
        assert (wanted.allows(planned, several=False), wanted.single(planned)) == (allowed, single), text
    assert not Wanted("application/dicom; transfer-syntax=*").allows(planned, several=True)


def test_a_cut_list_does_not_look_whole(start_web, reading_tls):
    url = f"https://localhost:{start_web(bound(reading_tls), max_matches=10).port}/dicomweb"
    session = session_of(reading_tls)
    assert session.get(f"{url}/studies/{MANY_STUDY}/instances").status_code == 413
    some = session.get(f"{url}/studies/{MANY_STUDY}/instances?limit=7&offset=3")
    assert len(some.json()) == 7 and "additional results" in some.headers["Warning"]
    unknown = session.get(f"{url}/studies?OperatorsName=X&fuzzymatching=true&limit=1").headers["Warning"]
    assert "were not matched" in unknown and "literal matching" in unknown


# -- to make it fall over ----------------------------------------------------------------------------------------------


def test_who_says_nothing_or_half_of_it_is_let_go(start_web, reading_tls, audit):
    web = start_web(bound(reading_tls), handshake_timeout_s=3, max_connections=4, max_connections_per_address=4)
    silent = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(2)]  # before any handshake
    with connected(reading_tls, web.port) as dumb, connected(reading_tls, web.port) as slow:
        slow.sendall(b"GET /dicomweb/studies HTTP/1.1\r\nHost: loc")
        with pytest.raises((ConnectionError, ssl.SSLError, OSError)), connected(reading_tls, web.port):
            pass  # one too many
        begun = time.monotonic()
        for connection in (dumb, slow, *silent):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while connection.recv(1024):
                    pass
        assert time.monotonic() - begun < 40
    for one in silent:
        one.close()
    reasons = {line["reason"] for line in audit.lines(events.NODE_REFUSED)}
    assert reasons == {"too-many-connections", "tls-handshake-timeout"}
    assert session_of(reading_tls).get(f"https://localhost:{web.port}/dicomweb/studies?limit=1").status_code == 200


def test_who_does_not_read_is_let_go_and_others_are_told_to_wait(start_web, reading_tls, site, audit, monkeypatch):
    web = start_web(bound(reading_tls), idle_timeout_s=1, max_associations=1)
    original = site.restorer.by_locator(site.records["ct"].locator)
    endless = type(original)
    monkeypatch.setattr(endless, "stream", lambda self: (b"\0" * (1 << 20) for _ in range(256)))
    request = b"GET /dicomweb/studies/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % site.samples["ct"].study.encode()
    with connected(reading_tls, web.port) as deaf:
        deaf.sendall(request)
        assert deaf.recv(9) == b"HTTP/1.1 "
        session, url = session_of(reading_tls), f"https://localhost:{web.port}/dicomweb/studies?limit=1"
        busy = session.get(url)
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "2")
        deadline = time.monotonic() + 50
        while session.get(url).status_code == 503:
            assert time.monotonic() < deadline
        assert audit.lines(events.RETRIEVE)[-1]["outcome"] == "failure"
        assert not audit.lines(events.ORIGINAL_RESTORED)


def test_a_tampered_original_never_looks_whole(start_web, reading_tls, audit, tmp_path):
    site = build_site(
        tmp_path / "site", [one for one in samples() if one.name in ("ct", *(f"many-{n}" for n in range(3)))]
    )
    names = sorted((name for name in site.samples if name != "ct"), key=lambda name: site.records[name].locator)
    session, url = session_of(reading_tls), f"https://localhost:{start_web(bound(reading_tls), of=site).port}/dicomweb"
    payload = site.payload("ct")
    payload.write_bytes(payload.read_bytes()[:-5] + b"bad!!")
    ct = site.samples["ct"]
    alone = session.get(f"{url}/studies/{ct.study}", headers=ANY)
    assert (alone.status_code, alone.text) == (500, "cannot be restored for certain\n")
    assert session.get(f"{url}/studies/{ct.study}/metadata").status_code == 500
    assert audit.lines(events.RESTORE_REFUSED)[0]["reason"] == "payload-tampered"
    whole = session.get(f"{url}/studies/{MANY_STUDY}", headers=ANY)
    assert len(parts_of(whole)) == len(names)
    last = site.payload(site_order(whole, site)[-1])
    last.write_bytes(last.read_bytes()[:-5] + b"bad!!")
    with pytest.raises(requests.exceptions.RequestException):  # it breaks off: 200 was said already
        session.get(f"{url}/studies/{MANY_STUDY}", headers=ANY)
    first = site.payload(site_order(whole, site)[0])
    first.unlink()  # known before: 206, and then it breaks off all the same
    with session.get(f"{url}/studies/{MANY_STUDY}", headers=ANY, stream=True) as answer:
        assert answer.status_code == 206


def site_order(answer: requests.Response, site) -> list[str]:
    """The samples' names in the order of an answer."""
    found = []
    for part in parts_of(answer):
        found += [name for name, sample in site.samples.items() if sample.data in part]
    return found


def test_nothing_leaves_without_a_line_in_the_audit(start_web, reading_tls, site, audit, monkeypatch):
    url = f"https://localhost:{start_web(bound(reading_tls)).port}/dicomweb"
    ct = site.samples["ct"]

    def full(event: str, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "write", full)
    for below in ("", "/metadata"):
        answer = session_of(reading_tls).get(f"{url}/studies/{ct.study}{below}", headers={"Accept": "*/*"})
        assert answer.status_code == 503 and ct.data[:100] not in answer.content


def test_a_reload_hands_the_port_on(start_web, reading_tls, audit):
    web = start_web(bound(reading_tls))
    follower = start_web(bound(reading_tls, studies=()), after=web)
    web.pause()
    web.finish()
    answer = session_of(reading_tls).get(f"https://localhost:{web.port}/dicomweb/studies")
    assert follower.port == web.port and answer.json() == []
