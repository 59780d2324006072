"""Orthanc as a workstation: query and C-MOVE over TLS, received over TLS."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from gateway.audit import events
from gateway.config.models import Tls
from tests.network.retrieve.conftest import bound
from tests.support.network import peers
from tests.support.retrieve.samples import MR_SYNTAXES, data_set

pytestmark = pytest.mark.peers


class Workstation:
    """An Orthanc with the restore SCP as its modality "restore"."""

    def __init__(self, port: int, http_port: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{http_port}"

    def post(self, path: str, body: object) -> dict:
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            return answer.read()

    def files(self) -> dict[str, bytes]:
        """SOP Instance UID to the file as it was received."""
        found = {}
        for instance in json.loads(self.get("/instances")):
            file = self.get(f"/instances/{instance}/file")
            found[str(pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)] = file
        return found


@contextlib.contextmanager
def workstation(tls: Tls, restore_port: int, own_port: int) -> Iterator[Workstation]:
    """Orthanc that listens with TLS and calls with the same certificate."""
    with tempfile.TemporaryDirectory() as folder:
        http_port = peers.free_port()
        configuration = {
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "DicomAet": "READING1",
            "DicomPort": own_port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(tls.certificate),
            "DicomTlsPrivateKey": str(tls.private_key),
            "DicomTlsTrustedCertificates": str(tls.trust),
            "DicomModalities": {
                "restore": {"AET": "MIAD_RESTORE", "Host": "127.0.0.1", "Port": restore_port, "UseDicomTls": True}
            },
            "Plugins": [],
        }
        path = Path(folder) / "orthanc.json"
        path.write_text(json.dumps(configuration))
        with peers.running("Orthanc", path, port=own_port, cwd=Path(folder)) as process:
            peers.wait_for_port(http_port, process)
            yield Workstation(own_port, http_port)


def test_query_and_move_over_tls(start_scp, server_tls, reading_tls, site, audit, tmp_path):
    own_port = peers.free_port()
    scp = start_scp(bound(reading_tls, port=own_port), tls=server_tls)
    study = site.samples["mr-implicit"].study
    with workstation(reading_tls, scp.tls_port, own_port) as orthanc:
        orthanc.post("/modalities/restore/echo", {})
        found = orthanc.post("/modalities/restore/query", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
        answers = json.loads(orthanc.get(f"/queries/{found['ID']}/answers?expand&simplify"))
        assert [answer["StudyInstanceUID"] for answer in answers] == [study]
        orthanc.post(f"/queries/{found['ID']}/retrieve", {"TargetAet": "READING1", "Synchronous": True})
        files = orthanc.files()
    assert files.keys() == {site.samples[name].uid for name in MR_SYNTAXES}
    for name in MR_SYNTAXES:
        sample = site.samples[name]
        (tmp_path / "file").write_bytes(files[sample.uid])
        kept = data_set(tmp_path / "file")
        if name in ("mr-jpeg-ls", "mr-j2k-lossless"):
            # These two name VR OW for their encapsulated pixel data; Orthanc writes OB, as PS3.5 A.4 has it.
            assert kept == sample.data.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00OB") != sample.data
        else:
            assert kept == sample.data
    assert {line["tls"] for line in audit.lines(events.ORIGINAL_RESTORED)} == {True}
