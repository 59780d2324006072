"""Machines of one site under durability `cluster`: a role each, with a network namespace and a state folder of its own.

Each can be cut off, stopped at a named point, killed, and lost with its disk.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.crash.launch import ARM_VARIABLE
from tests.support.network.namespaces import Network
from tests.support.network.peers import free_port, wait_for_port

REPOSITORY = Path(__file__).parent.parent.parent

_TOML = """version = 1
durability = "cluster"
[site]
name = "cluster"
[database]
url = "env:MIAD_DATABASE_URL"
[store]
url = "s3://vault/site"
endpoint = "{store.endpoint}"
access_key_id = "{store.access_key_id}"
secret_access_key = "{store.secret_access_key}"
timeout_s = 3
[ingress]
host = "{address}"
port = {port}
peers = [{{ ae_title = "STORESCU", addresses = ["{outside}"] }}]
min_free_mib = 0
[worker]
batch = 8
poll_s = 0.1
lease_s = 10
device = "cpu"
[[destinations]]
name = "sink"
type = "research"
ae_title = "OUTSIDE"
host = "{outside}"
port = {sink_port}
retry_first_s = 0.5
retry_longest_s = 2
[[routes]]
name = "relay"
called_ae = "RELAY"
destinations = ["sink"]
source_reference = false
mark = {{ steps = 0 }}
[restore]
host = "{address}"
tls_port = false
plain_port = {restore_port}
[[restore.workstations]]
ae_title = "READER"
addresses = ["{outside}"]
plain = true
"""


@dataclass(frozen=True)
class Site:
    """What its machines have in common: network, keys, URL of the database, ``[store]`` table, and the sink."""

    network: Network
    keys: Path
    database_url: str
    store: object
    sink_port: int


class Machine:
    """One machine with one role."""

    def __init__(self, folder: Path, role: str, site: Site) -> None:
        folder.mkdir()
        self.role, self.folder, self.host = role, folder, site.network.host()
        self.address = self.host.address
        self.port, self.restore_port = free_port(), free_port()
        self.log = folder.with_suffix(".log")  # what is looked at when a test fails outlives the machine
        self._arm = folder.with_suffix(".arm")
        self._environment = {**os.environ, "MIAD_DATABASE_URL": site.database_url, "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen | None = None
        (folder / "keys").symlink_to(site.keys)
        given = {"port": self.port, "restore_port": self.restore_port, "sink_port": site.sink_port}
        given |= {"address": self.address, "outside": site.network.address, "store": site.store}
        (folder / "gateway.toml").write_text(_TOML.format(**given))

    def start(self) -> None:
        """Start the role."""
        file = str(self.folder / "gateway.toml")
        command = [sys.executable, "-m", "tests.crash.launch", "serve", "--role", self.role, "--config", file]
        environment = {**self._environment, ARM_VARIABLE: str(self._arm)}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.host.inside(command),
                env=environment,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it listens."""
        assert self._process is not None
        wait_for_port(self.port if self.role == "ingress" else self.restore_port, self._process, within_s=180)

    def arm(self, point: str, signal_name: str = "SIGKILL", call: int = 1) -> None:
        """Let the role send itself a signal at a named point (`tests.crash.points`), at the `call`-th time."""
        self._arm.write_text(json.dumps({"point": point, "call": call, "at": time.time(), "signal": signal_name}))

    def fired(self) -> bool:
        """Whether it has."""
        return Path(f"{self._arm}.fired").exists()

    def thaw(self) -> None:
        """Let what stopped at a point go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def lose(self) -> None:
        """It is gone at this instant without a word, and its disk with it."""
        self.host.unplug()
        self.host.kill()
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self.folder)
