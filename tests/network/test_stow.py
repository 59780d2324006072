"""STOW-RS into the ingress: by real clients, and by those who want it to fall over."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
import requests

from gateway.audit import events
from gateway.config.models import Ingress, Peer, Route, Tls
from gateway.errors import CapacityError
from gateway.network.admission import Counts
from gateway.network.http import Exchange
from gateway.network.stow import IngressWeb
from gateway.network.stow.parts import Body, Wanted
from tests.conftest import needed
from tests.network.conftest import MemoryReceiver, ReadableAudit
from tests.network.retrieve.conftest import key_of
from tests.network.retrieve.test_dicomweb import orthanc_with_plugin, session_of
from tests.network.retrieve.test_dicomweb_hostile import connected, status_of
from tests.support.network.certificates import Authority
from tests.support.retrieve.samples import Sample, samples
from tests.support.retrieve.vaults import write_part10

web_client = needed("dicomweb_client")
RELATED = 'multipart/related; type="application/dicom"; boundary=B'
TYPE = b"Content-Type: application/dicom\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> Tls:
    return authority.issue("ingress")


@pytest.fixture(scope="module")
def archive_tls(authority: Authority) -> Tls:
    return authority.issue("archive")


@pytest.fixture(scope="module")
def originals() -> dict[str, Sample]:
    return {one.name: one for one in samples()}


@pytest.fixture
def start(
    audit: ReadableAudit, receiver: MemoryReceiver, server_tls: Tls, archive_tls: Tls
) -> Iterator[Callable[..., IngressWeb]]:
    """Start the port on a free one; keyword arguments go into its configuration."""
    started: list[IngressWeb] = []

    def begin(*more: Peer, routes: tuple[str, ...] = ("main", "other"), **settings: object) -> IngressWeb:
        archive = Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), key_sha256=(key_of(archive_tls.certificate),))
        settings = {"idle_timeout_s": 5, "handshake_timeout_s": 5, "tls": server_tls, "dicomweb_port": 1, **settings}
        config = Ingress(peers=(archive, *more), **settings).model_copy(update={"dicomweb_port": 0})
        made = [Route(name=name, called_ae=name.upper(), destinations=("outside",)) for name in routes]
        web = IngressWeb(config, made, receiver, audit, Counts())
        web.start()
        started.append(web)
        return web

    yield begin
    for web in started:
        web.stop(drain_s=0.2)


def file_of(sample: Sample, tmp_path: Path) -> bytes:
    write_part10(tmp_path / "file.dcm", sample.data, sample.transfer_syntax)
    return (tmp_path / "file.dcm").read_bytes()


def body_of(*files: bytes, head: bytes = TYPE, end: bytes = b"\r\n--B--\r\n") -> bytes:
    return b"".join(b"\r\n--B\r\n" + head + b"\r\n" + file for file in files) + end


def post(tls: Tls, web: IngressWeb, body: bytes, route: str = "main", **headers: str) -> requests.Response:
    url = f"https://localhost:{web.port}/dicomweb/{route}/studies"
    return session_of(tls).post(url, body, headers={"Content-Type": RELATED, **headers}, timeout=30)


def reasons(answer: requests.Response, tag: str = "00081198") -> list[int]:
    return [one["00081197"]["Value"][0] for one in answer.json().get(tag, {"Value": []})["Value"]]


# -- what an archive does ----------------------------------------------------------------------------------------------


def test_instances_of_every_syntax_by_dicomweb_client(start, receiver, archive_tls, originals, audit, tmp_path):
    few = [one for name, one in originals.items() if not name.startswith("many")]
    client = web_client.DICOMwebClient(
        f"https://localhost:{start(routes=('main',)).port}/dicomweb", session=session_of(archive_tls)
    )
    client.set_http_retry_params(retry=False)
    datasets = []
    for sample in few:
        write_part10(tmp_path / "file.dcm", sample.data, sample.transfer_syntax)
        datasets.append(pydicom.dcmread(tmp_path / "file.dcm"))
    answer = client.store_instances(datasets)
    assert [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence] == [one.uid for one in few]
    assert "FailedSOPSequence" not in answer
    assert receiver.committed.keys() == {one.uid for one in few}
    facts = receiver.kept[0].facts
    assert (facts.calling_ae, facts.called_ae, facts.transfer_syntax_uid) == ("ARCHIVE", "MAIN", few[0].transfer_syntax)
    (line,) = audit.lines(events.STORE_REQUEST)
    assert (line["received"], line["failed"], line["statuses"]) == (len(few), 0, {"0x0000": len(few)})


def test_bytes_arrive_as_they_are(start, receiver, archive_tls, originals, tmp_path):
    """Whatever their syntax, their length, or how the body is cut on its way."""
    web = start()
    several = [originals[name] for name in ("ct", "mr-rle", "mr-big-endian", "sc-deflated", "plan-implicit")]
    answer = post(archive_tls, web, body_of(*(file_of(one, tmp_path) for one in several)))
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/dicom+json"
    assert receiver.committed == {one.uid: one.data for one in several}
    file = file_of(originals["ct"], tmp_path)
    tail = b"\r\n--" + b"\r\n--A"
    for size in (7, 131, 4096):
        kept = _Kept()
        reader = Body("B", Wanted(lambda *_, kept=kept: kept.next(), lambda _: None))
        body = body_of(file + tail, file)
        for at in range(0, len(body), size):
            reader.write(body[at : at + size])
        reader.finish()
        assert kept.data == [originals["ct"].data + tail, originals["ct"].data]


class _Kept:
    """An `Incoming` for one part after the other."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def next(self) -> _Kept:
        self.data.append(b"")
        return self

    def write(self, data: bytes | memoryview) -> None:
        self.data[-1] += bytes(data)

    def commit(self) -> str:
        return ""

    def abort(self) -> None:
        raise AssertionError("nothing is wrong with it")


@pytest.mark.peers
def test_orthanc_stores(start, receiver, archive_tls, originals, tmp_path):
    web = start(routes=("main",))
    with orthanc_with_plugin(archive_tls, web.port) as orthanc:
        for name in ("ct", "mr-rle"):
            request = urllib.request.Request(orthanc._url + "/instances", file_of(originals[name], tmp_path))
            urllib.request.urlopen(request, timeout=20).read()
        ids = json.loads(orthanc.get("/instances"))
        orthanc.post("/dicom-web/servers/restore/stow", {"Resources": ids, "Synchronous": True})
    assert receiver.committed == {originals[name].uid: originals[name].data for name in ("ct", "mr-rle")}


# -- what is refused, and how it is told -------------------------------------------------------------------------------


def test_each_part_is_told_of_by_itself(start, receiver, archive_tls, originals, audit, tmp_path):
    web = start()
    ct, mr, rle = (file_of(originals[name], tmp_path) for name in ("ct", "mr", "mr-rle"))
    foreign = mr.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.94".ljust(20)[:20])
    class_of = originals["mr-rle"].sop_class.encode()
    unknown = rle.replace(class_of, b"9" * len(class_of), 1)
    answer = post(
        archive_tls, web, body_of(ct, b"no DICOM at all, and longer than a preamble is" * 9, unknown, foreign, b"")
    )
    assert answer.status_code == 202
    assert [one["00081155"]["Value"][0] for one in answer.json()["00081199"]["Value"]] == [originals["ct"].uid]
    assert reasons(answer) == [0x0122, 0xC122]
    assert reasons(answer, "0008119A") == [0xC001, 0xC001]
    assert receiver.committed == {originals["ct"].uid: originals["ct"].data}
    assert {line["reason"] for line in audit.lines(events.INSTANCE_REFUSED)} == {
        "not-dicom", "sop-class-not-negotiated", "transfer-syntax-unknown",
    }  # fmt: skip
    assert b"no DICOM at all" not in audit.path.read_bytes()


def test_a_full_disk_is_503_and_some_of_it_202(start, receiver, archive_tls, originals, tmp_path):
    web, ct = start(), file_of(originals["ct"], tmp_path)
    receiver.fail_admit = CapacityError("disk-low", "no room")
    answer = post(archive_tls, web, body_of(ct))
    assert (answer.status_code, reasons(answer), answer.headers["Retry-After"]) == (503, [0xA700], "10")
    receiver.fail_admit, receiver.fail_commit = None, CapacityError("disk-full", "no room")
    assert post(archive_tls, web, body_of(ct)).status_code == 503
    receiver.fail_commit = OSError(5, "boom")
    answer = post(archive_tls, web, body_of(ct))
    assert (answer.status_code, reasons(answer)) == (409, [0x0110])
    assert not receiver.committed and {one.state for one in receiver.kept} == {"aborted"}


def test_success_only_after_the_commit(start, receiver, archive_tls, originals, tmp_path, monkeypatch):
    """Not one byte of an answer before the last instance is durable."""
    web, ct = start(), file_of(originals["ct"], tmp_path)
    order: list[str] = []
    begin = receiver.begin

    def watched(facts):
        incoming = begin(facts)
        commit = incoming.commit
        incoming.commit = lambda: (order.append("commit"), commit())[1]
        return incoming

    monkeypatch.setattr(receiver, "begin", watched)
    start_answer = Exchange.start
    monkeypatch.setattr(Exchange, "start", lambda self, *a: (order.append("answer"), start_answer(self, *a))[1])
    post(archive_tls, web, body_of(ct, ct))
    assert order == ["commit", "commit", "answer"]


def test_a_sender_is_its_certificate(start, receiver, authority, archive_tls, originals, audit, tmp_path):
    stranger, far = authority.issue("stranger"), authority.issue("far")
    web = start(
        Peer(ae_title="PLAIN", addresses=("127.0.0.1",)),  # one that C-STORE would take by its name
        Peer(ae_title="FAR", addresses=("192.0.2.1",), key_sha256=(key_of(far.certificate),)),
    )
    body = body_of(file_of(originals["ct"], tmp_path))
    for tls, reason in ((stranger, "certificate-not-bound-to-ae"), (far, "address-not-listed")):
        assert post(tls, web, body).status_code == 403
        assert audit.lines(events.REQUEST_REFUSED)[-1]["reason"] == reason
    with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
        requests.post(f"https://localhost:{web.port}/dicomweb/main/studies", body, verify=str(authority.trust))
    assert not receiver.kept
    assert post(archive_tls, web, body, "other").status_code == 200
    assert receiver.kept[0].facts.called_ae == "OTHER"
    for route in ("nowhere", "..", "main/studies/1.2.3", "MAIN"):
        assert post(archive_tls, web, body, route).status_code == 404


BAD = {
    "no type": ({"Content-Type": ""}, 415),
    "not related": ({"Content-Type": "application/dicom"}, 415),
    "metadata": ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=B'}, 415),
    "no boundary": ({"Content-Type": 'multipart/related; type="application/dicom"'}, 415),
    "a long boundary": ({"Content-Type": RELATED + "B" * 128}, 415),
    "a strange boundary": ({"Content-Type": 'multipart/related; type="application/dicom"; boundary="a\\\\b"'}, 415),
    "a coding": ({"Content-Encoding": "gzip"}, 415),
    "another answer": ({"Accept": "application/dicom+xml"}, 406),
}


def test_bad_requests_are_refused_by_their_head(start, receiver, archive_tls, originals, tmp_path):
    web, body = start(), body_of(file_of(originals["ct"], tmp_path))
    for name, (headers, status) in BAD.items():
        assert post(archive_tls, web, body, **headers).status_code == status, name
    head = b"POST /dicomweb/main/studies HTTP/1.1\r\nHost: h\r\nContent-Type: " + RELATED.encode() + b"\r\n"
    for more, status in (
        (b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n", 413),  # told before the body is sent
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ):
        with connected(archive_tls, web.port) as connection:
            connection.sendall(head + more + b"\r\n")
            answer = connection.recv(4096)
            assert status_of(answer) == status and b"100 Continue" not in answer
    assert not receiver.kept


ENDLESS_META = b"\x02\0\x02\0UI\x40\0" + b"1" * 64 + b"\x02\0\x10\0UN\0\0\xff\xff\xff\xff"
NESTED = b"Content-Type: multipart/related; boundary=B\r\n"


def test_broken_bodies(start, receiver, archive_tls, originals, audit, tmp_path):
    """What came whole before the break is stored, and said so."""
    web, ct = start(), file_of(originals["ct"], tmp_path)
    for name, body, status in (
        ("empty", b"", 400),
        ("none of it", b"hello world", 400),
        ("no part", b"--B--\r\n", 400),
        ("cut", body_of(ct)[:-200], 400),
        ("cut after one", body_of(ct, ct)[:-200], 202),
        ("nested", body_of(b"--B\r\n" + TYPE + b"\r\n" + ct, head=NESTED), 409),
        ("a header without end", b"--B\r\n" + b"X" * 20_000, 400),
        ("headers without end", b"--B\r\n" + b"X: y\r\n" * 500 + b"\r\n", 400),
        ("a coding inside", body_of(ct, head=TYPE + b"Content-Encoding: gzip\r\n"), 409),
        ("another type inside", body_of(ct, head=b"Content-Type: text/html\r\n"), 409),
        ("a File Meta without end", body_of(ct[:132] + ENDLESS_META), 409),
    ):  # fmt: skip
        answer = post(archive_tls, web, body)
        assert answer.status_code == status, (name, answer.text)
        assert len(receiver.committed) == (status == 202), name
        assert {one.state for one in receiver.kept} <= {"committed", "aborted"}, name
        receiver.kept.clear()
    many = post(archive_tls, web, b"".join([b"\r\n--B\r\n" + TYPE + b"\r\nx"] * 10_001) + b"\r\n--B--\r\n")
    assert many.status_code == 400 and not receiver.committed  # the answer lists what was read


def test_a_request_has_an_end(start, receiver, archive_tls, originals, tmp_path):
    """Chunks without end are cut at the limit, and an instance at its own."""
    web = start(dicomweb_max_mib=1)
    ct = file_of(originals["ct"], tmp_path)

    def endless() -> Iterator[bytes]:
        yield body_of(ct, end=b"") + b"\r\n--B\r\n" + TYPE + b"\r\n" + ct
        for _ in range(64):
            yield bytes(1 << 16)

    with contextlib.suppress(requests.ConnectionError):  # answered before all was sent
        answer = session_of(archive_tls).post(
            f"https://localhost:{web.port}/dicomweb/main/studies", endless(), headers={"Content-Type": RELATED}
        )
        assert answer.status_code == 202
    assert [one.state for one in receiver.kept] == ["committed", "aborted"]


def test_who_sends_slowly_is_let_go(start, receiver, archive_tls, originals, audit, tmp_path):
    web = start(idle_timeout_s=1)
    ct = file_of(originals["ct"], tmp_path)
    head = b"POST /dicomweb/main/studies HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\nContent-Type: "
    with connected(archive_tls, web.port) as connection:
        connection.sendall(head + RELATED.encode() + b"\r\n\r\n" + body_of(ct, end=b""))
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.settimeout(0.2)
            while time.monotonic() - begun < 120:
                connection.sendall(b"x")  # a byte now and then is no progress
                with contextlib.suppress(socket.timeout):
                    if not connection.recv(1024):
                        break
        assert time.monotonic() - begun < 120
    deadline = time.monotonic() + 50
    while not audit.lines(events.STORE_REQUEST) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert audit.lines(events.STORE_REQUEST)[0]["reason"] == "aborted-mid-object"
    assert not receiver.committed
