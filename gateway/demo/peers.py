"""Two foreign programs: an archive inside and a PACS outside, each an Orthanc process of its own.

They are told what to do over their REST API, as an administrator would; images travel over DICOM.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from gateway.demo.processes import Programs
from gateway.demo.site import ARCHIVE_AE, GATEWAY_AE, LOOPBACK, OUTSIDE_AE, WORKSTATION_AE, Site
from gateway.errors import GatewayError

GATEWAY = "gateway"  # the name under which the archive knows the gateway
START_S = 60.0
REQUEST_S = 120.0


def find_orthanc() -> str:
    """The path of the Orthanc program.

    Raises
    ------
    GatewayError
        Code ``demo-no-orthanc``.
    """
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise GatewayError("demo-no-orthanc", "the demo needs Orthanc", "as root: apt-get install orthanc")
    return found


class Orthanc:
    """One Orthanc server with an empty storage of its own.

    Parameters
    ----------
    site
        Its folder is there, named as its AE title: emptied at every start, so that what it holds came in this run.
    title
        Its AE title.
    modalities
        Its other settings of DicomModalities, by name.
    """

    def __init__(
        self, programs: Programs, site: Site, title: str, port: int, http_port: int, modalities: dict[str, Any]
    ) -> None:
        self.title = title
        self.port = port
        self.url = f"http://{LOOPBACK}:{http_port}"
        # A proxy of the environment is not asked for this machine's own addresses.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        folder = site.folder / title.lower()
        if folder.exists():
            shutil.rmtree(folder)
        storage = folder / "storage"
        storage.mkdir(mode=0o700, parents=True)
        settings = {
            "Name": title,
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "TemporaryDirectory": str(storage),
            "Plugins": [],
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": title,
            "DicomPort": port,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": modalities,
            "TranscodeDicomProtocol": False,  # what it holds is sent as it is
            "SaveJobs": False,
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(settings, indent=1))
        log = site.logs / f"{title.lower()}.log"
        self._hint = f"why, say {log} and, beside it, gateway.log"
        self._program = programs.start(f"Orthanc {title}", [find_orthanc(), str(path)], log)

    def wait_until_ready(self) -> None:
        """Wait until it answers (`Program.wait_for`)."""
        self._program.wait_for("its REST API answers", self._answers, START_S)

    def upload(self, path: Path) -> str:
        """Give it a DICOM file; returns its own identifier of the instance."""
        return json.loads(self._ask("/instances", path.read_bytes()))["ID"]

    def send(self, identifiers: list[str], modality: str) -> None:
        """Have it send instances to a modality by C-STORE, and wait for the answers.

        Raises
        ------
        GatewayError
            Code ``demo-send-failed``: the peer did not take all of them.
        """
        order = {"Resources": identifiers, "Synchronous": True, "Permissive": True}
        answer = json.loads(self._ask(f"/modalities/{modality}/store", json.dumps(order).encode()))
        if answer.get("FailedInstancesCount"):
            raise GatewayError(
                "demo-send-failed",
                f"{self.title}: {answer['FailedInstancesCount']} instances were not taken",
                self._hint,
            )

    def instances(self) -> list[str]:
        """Its own identifiers of everything it holds."""
        return json.loads(self._ask("/instances"))

    def file(self, identifier: str) -> bytes:
        """An instance as a DICOM file (PS3.10)."""
        return self._ask(f"/instances/{identifier}/file")

    def _answers(self) -> bool:
        try:
            return json.loads(self._ask("/system"))["DicomAet"] == self.title
        except (OSError, GatewayError):
            return False

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        try:
            with self._opener.open(self.url + path, body, REQUEST_S) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            where = path.split("/")[1]
            raise GatewayError(
                "demo-peer-refused", f"{self.title} answered HTTP {error.code} to /{where}", self._hint
            ) from None


def start_archive(programs: Programs, site: Site) -> Orthanc:
    """The hospital's archive: it knows the gateway as one more destination."""
    modalities = {
        GATEWAY: {"AET": GATEWAY_AE, "Host": LOOPBACK, "Port": site.ports.gateway},
        # C-GET only: it never connects to a workstation, so the port means nothing.
        "workstation": {"AET": WORKSTATION_AE, "Host": LOOPBACK, "Port": 104, "AllowStore": False, "AllowMove": False},
    }
    return Orthanc(programs, site, ARCHIVE_AE, site.ports.archive, site.ports.archive_http, modalities)


def start_outside(programs: Programs, site: Site) -> Orthanc:
    """The PACS outside: it takes what the gateway sends."""
    modalities = {GATEWAY: {"AET": GATEWAY_AE, "Host": LOOPBACK, "Port": site.ports.gateway, "AllowGet": False}}
    return Orthanc(programs, site, OUTSIDE_AE, site.ports.outside, site.ports.outside_http, modalities)
