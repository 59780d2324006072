"""What a soak runs on: a gateway with all its roles, a small disk, and samples."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.keys.generate import make_keys
from tests.crash.site import KillSite
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port

_TOML = """version = 1
[site]
name = "soak"
[database]
url = "{database}"
[ingress]
port = {port}
peers = [{{ ae_title = "STORESCU", addresses = ["127.0.0.1"] }}]
segment_mib = 8
min_free_mib = 48
[worker]
poll_s = 0.5
lease_s = 20
device = "cpu"
[commitment]
port = {report_port}
[[destinations]]
name = "first"
type = "research"
ae_title = "OUTSIDE"
host = "127.0.0.1"
port = {first}
retry_first_s = 0.5
retry_longest_s = 4
retry_attempts = 100000
[destinations.commitment]
after_s = 2
wait_s = 0
retry_first_s = 1
retry_longest_s = 4
report_within_s = 15
deliver_again = 1000
[[destinations]]
name = "second"
type = "research"
ae_title = "OUTSIDE"
host = "127.0.0.1"
port = {second}
retry_first_s = 0.5
retry_longest_s = 4
retry_attempts = 100000
[[routes]]
name = "relay"
called_ae = "RELAY"
destinations = ["first", "second"]
source_reference = false
mark = {{ steps = 0 }}
[restore]
tls_port = {restore_port}
[restore.tls]
certificate = "{tls.certificate}"
private_key = "{tls.private_key}"
trust = "{tls.trust}"
"""


class SoakSite(KillSite):
    """One site in a folder that may be there already: then what lies in it goes on."""

    MODULE = "gateway.cli"  # processes die from outside alone, and hold what the product's hold

    def __init__(self, folder: Path, database: str, first: int, second: int, report_port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = folder / "log"
        self._file = folder / "gateway.toml"
        self._arm = folder / "arm"
        self._process = None
        if not (folder / "keys").exists():
            make_keys(folder / "keys")
        shutil.rmtree(folder / "tls", ignore_errors=True)
        tls = Authority(folder / "tls").issue("restore")
        given = {"port": self.port, "first": first, "second": second, "report_port": report_port}
        self._file.write_text(_TOML.format(**given, database=database, restore_port=free_port(), tls=tls))

    def processes(self) -> dict[str, int]:
        """Role -> process, of those that run."""
        return self._children()


class SmallDisk:
    """A tmpfs under the state folder that can be filled; needs root and the right to mount."""

    def __init__(self, at: Path, mib: int) -> None:
        at.mkdir(parents=True, exist_ok=True)
        self._filler = at / "filler"
        self._at = at
        if not at.is_mount():
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(at)], check=True)

    def fill(self) -> None:
        """Leave next to nothing."""
        there = os.statvfs(self._at)
        size = max(1, there.f_bavail * there.f_frsize - (1 << 20))
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def empty(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        """For good, with what lies on it."""
        subprocess.run(["umount", "--lazy", str(self._at)], check=False)


@dataclass(frozen=True)
class Sample:
    """One look at one process: seconds since the start, MiB of memory, open files, threads."""

    role: str
    pid: int
    at: float
    memory_mib: float
    files: int
    threads: int


def look(processes: dict[str, int], at: float) -> list[Sample]:
    """A sample of each process that is there."""
    samples = []
    for role, pid in processes.items():
        try:
            status = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
            )
            files = len(os.listdir(f"/proc/{pid}/fd"))
            memory = int(status["VmRSS"].split()[0]) / 1024
            samples.append(Sample(role, pid, at, memory, files, int(status["Threads"])))
        except (OSError, KeyError):
            continue  # it has just ended
    return samples


def _lives(samples: list[Sample]) -> dict[str, list[Sample]]:
    """Role -> samples of its longest life, without its beginning."""
    found = {}
    for role in sorted({one.role for one in samples}):
        lives: dict[int, list[Sample]] = {}
        for one in samples:
            if one.role == role:
                lives.setdefault(one.pid, []).append(one)
        life = max(lives.values(), key=len)
        found[role] = life[len(life) // 5 :]  # a process that has just started still loads its parts
    return found


def curves(samples: list[Sample]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Panel -> role -> minutes since the start, and what it held then, in its longest life."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for role, life in _lives(samples).items():
        minutes = [one.at / 60 for one in life]
        for panel, values in (
            ("memory, MiB", [one.memory_mib for one in life]),
            ("more than at first, MiB", [one.memory_mib - life[0].memory_mib for one in life]),
            ("open files", [float(one.files) for one in life]),
            ("threads", [float(one.threads) for one in life]),
        ):
            panels.setdefault(panel, {})[role] = (minutes, values)
    return panels


def growth(samples: list[Sample]) -> dict[str, dict[str, list[float]]]:
    """Role -> quantity -> [at first, at last, by the fitted line an hour, its standard error], of its longest life."""
    found: dict[str, dict[str, list[float]]] = {}
    for role, life in _lives(samples).items():
        if len(life) < 5:
            continue
        hours = np.array([one.at for one in life]) / 3600
        found[role] = {}
        for name in ("memory_mib", "files", "threads"):
            values = np.array([getattr(one, name) for one in life], float)
            slope, first = np.polyfit(hours, values, 1)
            left = values - (slope * hours + first)
            error = np.sqrt((left**2).sum() / (len(life) - 2) / ((hours - hours.mean()) ** 2).sum())
            found[role][name] = [round(float(one), 2) for one in (values[0], values[-1], slope, error)]
    return found
