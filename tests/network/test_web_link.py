"""STOW-RS out: to Orthanc's plug-in to our own ingress over mutual TLS, and to services that answer badly."""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import json
import select
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.audit import events
from gateway.config.models import Destination, Tls
from gateway.errors import DeliveryError, DicomError, PermanentError, TransientError
from gateway.flow.failures import kind_of
from gateway.network.egress import Egress
from tests.conftest import missing
from tests.network.conftest import ReadableAudit
from tests.network.test_stow import archive_tls, authority, server_tls, start  # noqa: F401  # fixtures
from tests.support.network import peers
from tests.support.network.samples import EXPLICIT, JPEG_LS, ct, outgoing
from tests.support.retrieve.samples import data_set

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def egress(audit: ReadableAudit) -> Iterator[Callable[..., Egress]]:
    """An egress with one destination "web"; keyword arguments go into its configuration."""
    made: list[Egress] = []

    def make(url: str, tls: Tls | None = None, **more: object) -> Egress:
        settings = {"connect_timeout_s": 60, "response_timeout_s": 60, **more}
        made.append(
            Egress([Destination(name="web", kind="dicomweb", type="research", url=url, tls=tls, **settings)], audit)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextlib.contextmanager
def orthanc_service() -> Iterator[int]:
    """Orthanc's DICOMweb server without TLS (Debian's dies of the first request over TLS): its port."""
    if not PLUGIN.exists():
        missing("orthanc-dicomweb")
    with tempfile.TemporaryDirectory() as folder:
        port, own = peers.free_port(), peers.free_port()
        configuration = {
            "StorageDirectory": folder, "IndexDirectory": folder, "DicomPort": own, "HttpPort": port,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)],
        }  # fmt: skip
        path = Path(folder) / "orthanc.json"
        path.write_text(json.dumps(configuration))
        with peers.running("Orthanc", path, port=own, cwd=Path(folder)) as process:
            peers.wait_for_port(port, process)
            yield port


@pytest.mark.peers
def test_orthanc_stores(egress, audit, tmp_path):
    uid, data = ct()
    with orthanc_service() as port:
        out = egress(f"http://127.0.0.1:{port}/dicom-web")
        out.echo("web")
        assert out.send("web", outgoing(data, uid)) == 0x0000
        assert out.send("web", outgoing(data, uid)) == 0x0000  # again: it has it already
        (instance,) = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/instances").read())
        file = urllib.request.urlopen(f"http://127.0.0.1:{port}/instances/{instance}/file").read()
    (tmp_path / "file").write_bytes(file)
    assert data_set(tmp_path / "file") == data
    first, *_ = audit.lines(events.DELIVERY)
    assert (first["outcome"], first["destination"], first["status"], first["transfer_syntax_uid"]) == (
        "success", "web", "0x0000", EXPLICIT,
    )  # fmt: skip


def test_our_own_ingress_stores_it_byte_for_byte(egress, start, receiver, archive_tls):  # noqa: F811
    """Three at a time over connections that are kept, with and without a length known before."""
    out = egress(f"https://localhost:{start(routes=('main',)).port}/dicomweb", archive_tls, connections=3)
    several = [ct() for _ in range(12)]
    failures: list[Exception] = []

    def send(some: list[tuple[str, bytes]]) -> None:
        try:
            for uid, data in some:
                assert out.send("web", outgoing(data, uid)) == 0x0000
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(several[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and receiver.committed == dict(several)
    uid, data = several[0]
    port = start().port
    with pytest.raises(TransientError) as other:  # the certificate names localhost and 127.0.0.1
        egress(f"https://127.0.0.2:{port}/dicomweb", archive_tls).send("web", outgoing(data, uid))
    assert other.value.code in ("certificate-not-trusted", "unreachable")


def test_a_refused_instance_is_sorted_as_a_c_store_is(egress, start, receiver, archive_tls, audit):  # noqa: F811
    out = egress(f"https://localhost:{start(routes=('main',)).port}/dicomweb", archive_tls)
    uid, data = ct()
    receiver.fail_commit = DicomError("already-marked", "no")
    with pytest.raises(PermanentError) as caught:
        out.send("web", outgoing(data, uid))
    assert caught.value.code == "status-c010"
    receiver.fail_commit = OSError(28, "no room")
    with pytest.raises(TransientError) as told:
        out.send("web", outgoing(data, uid))
    assert (told.value.code, kind_of(told.value)) == ("service-unavailable", "refused-for-now")
    with pytest.raises(PermanentError) as nowhere:
        egress(f"https://localhost:{start().port}/elsewhere", archive_tls).send("web", outgoing(data, uid))
    assert nowhere.value.code == "service-refused"


class Service:
    """An HTTP service that answers as it is told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 0.2  # a connection without a request is closed then, as Orthanc does after a second

            def do_POST(self) -> None:
                service.paths.append(self.path)
                service.bodies.append(self._body())
                status, body = service.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/web"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def module(uid: str, sequence: str, **more: int) -> bytes:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    item |= {tag.removeprefix("t"): {"vr": "US", "Value": [value]} for tag, value in more.items()}
    return json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()


def test_what_a_service_says_is_not_taken_for_more(egress, service, audit):
    """Only what names the instance, or a 200 without a word, counts as stored."""
    uid, data = ct()
    out = egress(service.url)
    for status, body, expected in (
        (200, b"", 0x0000),
        (200, module(uid, "00081199"), 0x0000),
        (202, module(uid, "00081199", t00081196=0xB000), 0xB000),
        (409, module(uid, "00081198", t00081197=0x0111), 0x0111),
        (409, module(uid, "00081198", t00081197=0xA700), "status-a700"),
        (409, module(uid, "00081198", t00081197=0xC122), "context-refused"),
        (409, module(uid, "00081198"), "status-0110"),
        (202, module("1.2.3", "00081199"), "unexpected-answer"),
        (200, module("1.2.3", "00081199"), "unexpected-answer"),
        (200, b'{"0008119A": {"Value": [{"00081197": {"Value": [49152]}}]}}', "status-c000"),
        (200, b"[" * 100_000, "unexpected-answer"),
        (200, b" " * (2 << 20), "unexpected-answer"),
        (200, b'{"00081199": 5}', "unexpected-answer"),
        (409, b'{"0008119A": {"Value": [{"00081197": {"Value": [Infinity]}}]}}', "unexpected-answer"),
        (409, b'{"0008119A": {"Value": [{"00081197": {"Value": {"a": 1}}}]}}', "unexpected-answer"),
        (200, b'{"0008119A": {"Value": {"a": 1}}}', "unexpected-answer"),
        (200, module(uid, "00081199").replace(b'["%s"]' % uid.encode(), b'"%s.1"' % uid.encode()), "unexpected-answer"),
        (409, module(uid, "00081199"), "unexpected-answer"),  # none is stored, and this one is
        (202, b"", "unexpected-answer"),
        (302, b"", "service-refused"),  # copies go where the configuration says
        (401, b"", "service-refused"),
        (415, b"", "context-refused"),
        (503, b"", "service-unavailable"),
        (500, b"", "service-unavailable"),
    ):
        service.answers.append((status, body))
        try:
            got: object = out.send("web", outgoing(data, uid))
        except DeliveryError as error:
            got = error.code
        assert got == expected, (status, body[:80], got)
    assert set(service.paths) == {"/web/studies"}
    head, _, rest = service.bodies[0].partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nContent-Type: application/dicom") and data in rest
    assert EXPLICIT.encode() in rest


def test_a_connection_that_the_service_closed_is_not_used_again(egress, service, audit):
    out = egress(service.url)
    for _ in range(2):
        uid, data = ct()
        service.answers.append((200, module(uid, "00081199")))
        assert out.send("web", outgoing(data, uid)) == 0x0000
        select.select([out._pools["web"]._links[0]._connection.sock], [], [], 10)
    assert {line["outcome"] for line in audit.lines(events.DELIVERY)} == {"success"}


def test_the_next_syntax_is_tried_where_one_is_not_supported(egress, service):
    uid, data = ct()
    item = outgoing(data, uid, in_syntax=lambda _: io.BytesIO(b"jpeg" * 10), marked=True)
    out = egress(service.url, transfer_syntaxes=("jpeg-ls", "explicit", "implicit"))
    service.answers += [(409, module(uid, "00081198", t00081197=0xC122)), (200, module(uid, "00081199"))]
    assert out.send("web", item) == 0x0000
    assert JPEG_LS.encode() in service.bodies[0] and b"jpeg" * 10 in service.bodies[0]
    assert data in service.bodies[1]


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", b"1\r\nx\r\n"]
)
def test_an_answer_that_does_not_end_is_waited_for_only_so_long(egress, piece):
    """Each of them comes within the time of one read, and so for ever."""
    begin = b"HTTP/1.1 200 OK\r\n" if piece.startswith(b"X") else b""
    begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if piece.startswith(b"1") else begin
    ended = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 20)
            connection.sendall(begin)
            for byte in itertools.cycle(piece):
                if ended.wait(0.05):
                    return
                connection.sendall(bytes([byte]))

    uid, data = ct()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = threading.Thread(target=drip, args=(listening,), daemon=True)
        dripping.start()
        out = egress(f"http://127.0.0.1:{listening.getsockname()[1]}/web", response_timeout_s=0.4)
        with pytest.raises(TransientError) as caught:
            out.send("web", outgoing(data, uid))
        ended.set()
        dripping.join(50)
    assert caught.value.code == "no-answer"


def test_a_service_that_refuses_before_it_has_read_all_is_heard(egress):
    """As a proxy does with what is too long for it: else the instance would be tried again for ever."""

    def refuse(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            told.wait(50)

    told = threading.Event()
    uid, data = ct(1024)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        threading.Thread(target=refuse, args=(listening,), daemon=True).start()
        out = egress(f"http://127.0.0.1:{listening.getsockname()[1]}/web", response_timeout_s=0.5)
        with pytest.raises(PermanentError) as caught:
            out.send("web", outgoing(data, uid))
        told.set()
    assert caught.value.code == "service-refused"


def test_a_service_that_goes_away(egress):
    uid, data = ct()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        out = egress(f"http://127.0.0.1:{listening.getsockname()[1]}/web", response_timeout_s=0.3)
        with pytest.raises(TransientError) as silent:
            out.send("web", outgoing(data, uid))
        assert silent.value.code in ("no-answer", "connection-lost")
    with pytest.raises(TransientError) as gone:
        out.send("web", outgoing(data, uid))
    assert gone.value.code == "unreachable"
