"""The script for Orthanc's Python plug-in: what it lets through by itself, and all of it inside a real Orthanc."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.config.models import Tls
from plugins.orthanc import archive
from plugins.orthanc.archive import Archive, Settings
from tests.conftest import missing
from tests.network.conftest import audit, receiver, start_ingress  # noqa: F401  # fixtures
from tests.network.retrieve.conftest import (  # noqa: F401  # fixtures
    authority,
    bound,
    reading_tls,
    server_tls,
    site,
    start_scp,
)
from tests.support.network import peers
from tests.support.retrieve.samples import MR_SYNTAXES, data_set
from tests.support.retrieve.vaults import write_part10

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")
SCRIPT = Path(archive.__file__)
TABLE = {
    "Gateway": "gateway",
    "Restore": "restore",
    "Workstation": "READING1",
    "RestoreUsers": ["alice"],
    "Inside": ["backup"],
}
PASSWORDS = {"alice": "alice-says-open", "bob": "bob-says-hello"}


# -- by itself ---------------------------------------------------------------------------------------------------------


def test_it_is_a_script_of_the_standard_library_alone() -> None:
    """Nothing of the gateway is imported, so nothing of it can be loaded into Orthanc; no key is ever named."""
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"orthanc"}
    assert not any(word in SCRIPT.read_text() for word in ("private_key", "restore.private", ".pem"))


class Recorded:
    """Stands for the module `orthanc` where nothing is to reach it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def RestApiGet(self, uri: str) -> bytes:
        raise LookupError(uri)

    def RestApiPost(self, uri: str, body: bytes) -> bytes:
        raise AssertionError(uri)

    def LogWarning(self, text: str) -> None:
        self.said.append(text)


def settings(**more: object) -> dict:
    modalities = {name: ["X", "127.0.0.1", 1] for name in ("gateway", "restore", "outside", "backup")}
    return {"AuthenticationEnabled": True, "DicomModalities": modalities, "Miad": {**TABLE, **more}}


@pytest.mark.parametrize(
    ("method", "uri", "passes"),
    [
        ("GET", "/modalities/outside", True), ("GET", "/studies", True), ("POST", "/instances", True),
        ("POST", "/miad/protect", True), ("POST", "/modalities/backup/store", True),
        ("POST", "/modalities/outside/echo", True), ("POST", "/modalities/restore/query", True),
        ("POST", "/modalities/outside/store", False), ("POST", "/modalities/gateway/store", False),
        ("POST", "//modalities//outside//store", False), ("POST", "/./modalities/outside/./store", False),
        ("POST", "/modalities/outsid%65/store", False), ("POST", "/modalities/outside%2fstore", False),
        ("POST", "/x/../modalities/outside/store", False), ("POST", "/modalities/outside/store?a=b", False),
        ("POST", "/modalities/outside/store-straight", False), ("POST", "/peers/outside/store", False),
        ("POST", "/dicom-web/servers/outside/stow", False), ("POST", "/transfers/send", False),
        ("PUT", "/modalities/backup", False), ("DELETE", "/modalities/backup", False), ("PUT", "/peers/backup", False),
        ("PUT", "/dicom-web/servers/backup", False), ("POST", "/tools/execute-script", False),
        ("?", "/modalities/outside/store", False),
    ],
)  # fmt: skip
def test_originals_do_not_pass_the_gateway_by(method: str, uri: str, passes: bool) -> None:
    assert Archive(Settings.of(settings()), Recorded()).may_pass(method, uri) is passes


def header(user: str, password: str = "x") -> dict[str, str]:
    coded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {coded}", "content-type": "application/json"}


def test_who_may_not_restore_is_told_so_and_nothing_is_asked() -> None:
    orthanc = Recorded()
    ours = Archive(Settings.of(settings()), orthanc)
    body = json.dumps({"Studies": ["1.2.3"]}).encode()
    for headers in ({}, header("bob"), header("Alice"), header("alice "), {"authorization": "Bearer alice"},
                    {"authorization": "Basic !!"}, {"authorization": "Basic /////w=="}):  # fmt: skip
        assert ours.restore({"headers": headers, "body": body}).status == 403
    nobody = Archive(Settings.of(settings(Restore="")), orthanc)
    assert nobody.restore({"headers": header("alice"), "body": body}).status == 403
    assert ours.restore({"headers": header("eve\nmiad: restore: user alice"), "body": body}).status == 403
    assert "(unnamed)" in orthanc.said[-1] and "alice" not in orthanc.said[-1]


def test_bad_bodies_and_tables() -> None:
    ours = Archive(Settings.of(settings()), Recorded())
    for body in (b"", b"[]", b"null", b'{"Studies": []}', b'{"Studies": "1.2"}', b'{"Studies": ["1.2*"]}',
                 b'{"Studies": ["../x"]}', b'{"Resources": ["1.2.3"]}', b"\xff", b"x" * (2 << 20)):  # fmt: skip
        assert ours.restore({"headers": header("alice"), "body": body}).status == 400
        assert ours.protect({"headers": header("bob"), "body": body}).status == 400
    form = header("alice") | {"content-type": "text/plain"}  # what a form on another site's page can send
    assert ours.restore({"headers": form, "body": b'{"Studies": ["1.2.3"]}'}).status == 400
    unknown = json.dumps({"Studies": ["-".join(["0" * 8] * 5)]}).encode()
    assert ours.restore({"headers": header("alice"), "body": unknown}).status == 404
    for wrong in ({"Gateway": "nowhere"}, {"Restore": "nowhere"}, {"Typo": 1}):
        with pytest.raises(ValueError, match="Miad"):
            Settings.of(settings(**wrong))
    with pytest.raises(ValueError, match="AuthenticationEnabled"):
        Settings.of(settings() | {"AuthenticationEnabled": False})


# -- inside Orthanc ----------------------------------------------------------------------------------------------------


class Running:
    """An Orthanc that runs the script."""

    def __init__(self, http_port: int, pid: int) -> None:
        self.pid = pid
        self._url = f"http://127.0.0.1:{http_port}"

    def ask(self, user: str, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, header(user, PASSWORDS[user]), method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait(self, job: str) -> None:
        deadline = time.monotonic() + 50
        while (state := json.loads(self.ask("bob", "GET", f"/jobs/{job}")[1])["State"]) in ("Pending", "Running"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert state == "Success"

    def memory_holds(self, wanted: bytes) -> bool:
        """Whether bytes stand anywhere in the memory of the process."""
        with open(f"/proc/{self.pid}/maps") as maps, open(f"/proc/{self.pid}/mem", "rb", 0) as memory:
            for line in maps:
                area, rights, *_ = line.split()
                if "r" not in rights or "[v" in line:
                    continue
                first, last = (int(end, 16) for end in area.split("-"))
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(first)
                    if wanted in memory.read(last - first):
                        return True
        return False


@pytest.fixture
def running(reading_tls: Tls) -> Iterator[Callable[..., contextlib.AbstractContextManager[Running]]]:  # noqa: F811
    @contextlib.contextmanager
    def run(own_port: int, ingress_port: int, restore_port: int) -> Iterator[Running]:
        if not PLUGIN.exists():
            missing("orthanc-python")
        with tempfile.TemporaryDirectory() as folder:
            http_port = peers.free_port()
            modalities = {
                "gateway": {"AET": "GATEWAY", "Port": ingress_port, "UseDicomTls": False, "LocalAet": "ARCHIVE"},
                "restore": {"AET": "MIAD_RESTORE", "Port": restore_port, "UseDicomTls": True},
                "outside": {"AET": "OUTSIDE", "Port": 1},
                "backup": {"AET": "BACKUP", "Port": 1},
            }
            configuration = {
                "StorageDirectory": folder, "IndexDirectory": folder, "DicomAet": "READING1", "DicomPort": own_port,
                "HttpPort": http_port, "RemoteAccessAllowed": False, "DicomAlwaysAllowStore": True,
                "AuthenticationEnabled": True, "RegisteredUsers": PASSWORDS,
                "DicomTlsEnabled": True, "DicomTlsCertificate": str(reading_tls.certificate),
                "DicomTlsPrivateKey": str(reading_tls.private_key),
                "DicomTlsTrustedCertificates": str(reading_tls.trust),
                "DicomModalities": {name: {"Host": "127.0.0.1", **one} for name, one in modalities.items()},
                "Plugins": [str(PLUGIN)], "PythonScript": str(SCRIPT), "PythonVerbose": False, "Miad": TABLE,
            }  # fmt: skip
            path = Path(folder) / "orthanc.json"
            path.write_text(json.dumps(configuration))
            with peers.running("Orthanc", path, port=own_port, cwd=Path(folder)) as process:
                peers.wait_for_port(http_port, process)
                yield Running(http_port, process.pid)

    yield run


@pytest.mark.peers
def test_protect_and_restore_in_a_real_orthanc(
    running,
    start_scp,  # noqa: F811
    start_ingress,  # noqa: F811
    receiver,  # noqa: F811
    server_tls,  # noqa: F811
    reading_tls,  # noqa: F811
    site,  # noqa: F811
    tmp_path,
) -> None:
    own_port, ct = peers.free_port(), site.samples["ct"]
    scp = start_scp(bound(reading_tls, port=own_port), tls=server_tls)
    write_part10(tmp_path / "ct.dcm", ct.data, ct.transfer_syntax)
    study = site.samples["mr-implicit"].study
    with running(own_port, start_ingress().port, scp.tls_port) as orthanc:
        _, answer = orthanc.ask("bob", "POST", "/instances", (tmp_path / "ct.dcm").read_bytes())
        here = json.loads(answer)["ParentStudy"]
        # out: to the gateway by whom it may be, past it by nobody
        status, answer = orthanc.ask("bob", "POST", "/miad/protect", {"Resources": [here]})
        assert status == 200, answer
        orthanc.wait(json.loads(answer)["Job"])
        ((uid, data),) = receiver.committed.items()
        assert uid == ct.uid and ct.data.startswith(data)  # Orthanc leaves the trailing padding away
        for method, path in (
            ("POST", "/modalities/outside/store"), ("POST", "//modalities/outside//store"),
            ("POST", "/modalities/outsid%65/store"), ("POST", "/modalities/gateway/store"),
            ("PUT", "/modalities/backup"), ("POST", "/tools/execute-script"),
        ):  # fmt: skip
            assert orthanc.ask("alice", method, path, {"Resources": [here]})[0] == 403, path
        assert orthanc.ask("alice", "POST", "/modalities/backup/store", here.encode())[0] not in (200, 403)
        # back: for alice, and for nobody else
        assert orthanc.ask("bob", "POST", "/miad/restore", {"Studies": [study]})[0] == 403
        assert orthanc.ask("alice", "POST", "/miad/restore", {"Studies": ["1.2.3"]})[0] == 404
        assert orthanc.ask("alice", "GET", "/miad/restore")[0] == 405
        status, answer = orthanc.ask("alice", "POST", "/miad/restore", {"Studies": [study]})
        assert status == 200, answer
        for job in json.loads(answer)["Jobs"]:
            orthanc.wait(job)
        wanted = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
        found = json.loads(orthanc.ask("alice", "POST", "/tools/find", wanted)[1])
        brought = set()
        for instance in found:
            (tmp_path / "file").write_bytes(orthanc.ask("alice", "GET", f"/instances/{instance}/file")[1])
            brought.add(data_set(tmp_path / "file"))
        exact = [name for name in MR_SYNTAXES if name not in ("mr-jpeg-ls", "mr-j2k-lossless")]  # see test_orthanc
        assert len(found) == len(MR_SYNTAXES) and {site.samples[name].data for name in exact} <= brought
        assert b"miad" in orthanc.ask("bob", "GET", "/plugins/explorer.js")[1]
        # the key that opened them was never here
        key = site.payloads.parent / "keys" / "restore.private.pem"
        raw = load_pem_private_key(key.read_bytes(), None).private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        assert orthanc.memory_holds(PASSWORDS["alice"].encode())  # the search finds what is there
        assert not orthanc.memory_holds(raw)
        assert not orthanc.memory_holds(key.read_bytes().splitlines()[1])
