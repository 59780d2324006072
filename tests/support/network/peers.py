"""Real DICOM programs as peers: found, started on free ports, and ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.conftest import missing
from tests.support.ports import free_port

__all__ = ["Orthanc", "free_port", "orthanc", "program", "run", "running", "storescp", "wait_for_port"]


def program(name: str, script: bool = False) -> str:
    """Path of a DCMTK program or of Orthanc; pynetdicom installs scripts of the same names, which do not count.

    script: it is one that Debian installs.
    """
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/sbin", "/usr/local/bin"]
    for folder in folders:
        path = shutil.which(name, path=folder)
        if path and _is_script(path) == script:
            return path
    missing(name)


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def run(name: str, *arguments: object, timeout_s: float = 30) -> subprocess.CompletedProcess:
    """Run a peer program to its end; TCP_NODELAY=1 is DCMTK's switch for what every modern peer does."""
    command = [program(name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, "TCP_NODELAY": "1"}
    )


@contextlib.contextmanager
def running(name: str, *arguments: object, port: int, cwd: Path | None = None) -> Iterator[subprocess.Popen]:
    """A peer program that listens on `port`; killed at the end."""
    # A session of its own: `storescp --fork` leaves children, and they have to go as well.
    process = subprocess.Popen(
        [program(name), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        wait_for_port(port, process)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen, within_s: float = 50) -> None:
    """Wait until `port` is listened on, without connecting to it: some peers count that as an association."""
    deadline = time.monotonic() + within_s
    wanted = f":{port:04X}"
    while time.monotonic() < deadline:
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):  # it has just ended
                # of its own network namespace, where it has one
                for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[1].endswith(wanted) and fields[3] == "0A":  # LISTEN
                        return
        if process.poll() is not None:
            raise AssertionError(f"{process.args[0]} ended with {process.returncode}")
        time.sleep(0.02)
    raise AssertionError(f"{process.args[0]} does not listen on {port}")


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK `storescp` that stores bit-preserving into `folder`; yields its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with running("storescp", "-aet", "OUTSIDE", "-od", folder, "+B", *options, port, port=port):
        yield port


class Orthanc:
    """A running Orthanc: its DICOM port and its REST API."""

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.port = dicom_port
        self._url = f"http://127.0.0.1:{http_port}"

    def instances(self) -> list[str]:
        return json.loads(self._get("/instances"))

    def file(self, instance: str) -> bytes:
        return self._get(f"/instances/{instance}/file")

    def frame(self, instance: str, number: int) -> bytes:
        """One frame as it lies in the pixel data; `number` from 0."""
        return self._get(f"/instances/{instance}/frames/{number}/raw")

    def values(self, instance: str, number: int) -> np.ndarray:
        """Stored values of one frame as Orthanc's own decoder gives them: (H, W, samples)."""
        return np.load(io.BytesIO(self._get(f"/instances/{instance}/frames/{number}/numpy?rescale=false")))

    def upload(self, file: bytes) -> str:
        """Put a DICOM file into the archive; returns Orthanc's id of the instance."""
        return json.loads(self._post("/instances", file))["ID"]

    def send(self, instances: list[str], modality: str) -> dict:
        """C-STORE instances to a configured modality; returns Orthanc's account of it."""
        return json.loads(self._post(f"/modalities/{modality}/store", json.dumps(instances).encode()))

    def _post(self, path: str, body: bytes) -> bytes:
        with urllib.request.urlopen(self._url + path, data=body, timeout=20) as answer:
            return answer.read()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            return answer.read()


@contextlib.contextmanager
def orthanc(ae_title: str = "OUTSIDE", modalities: dict | None = None) -> Iterator[Orthanc]:
    """Orthanc with an empty storage and no plug-ins; `modalities` as in its configuration (name: [AE, host, port])."""
    with tempfile.TemporaryDirectory() as folder:
        dicom_port, http_port = free_port(), free_port()
        configuration = {
            "Name": "outside",
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "DicomAet": ae_title,
            "DicomModalities": modalities or {},
            "DicomPort": dicom_port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "Plugins": [],
        }
        path = Path(folder) / "orthanc.json"
        path.write_text(json.dumps(configuration))
        with running("Orthanc", path, port=dicom_port, cwd=Path(folder)):
            yield Orthanc(dicom_port, http_port)
