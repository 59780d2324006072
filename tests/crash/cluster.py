"""Machines of one site under durability `cluster`: a role each, with a state folder of its own that can be lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from gateway.config import Config, load_config
from tests.crash.launch import ARM_VARIABLE
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
port = {port}
peers = [{{ ae_title = "STORESCU", addresses = ["127.0.0.1"] }}]
min_free_mib = 0
[worker]
batch = 4
poll_s = 0.1
lease_s = 10
device = "cpu"
[[destinations]]
name = "sink"
type = "research"
ae_title = "OUTSIDE"
host = "127.0.0.1"
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
tls_port = false
plain_port = {restore_port}
[[restore.workstations]]
ae_title = "READER"
addresses = ["127.0.0.1"]
plain = true
"""


class Machine:
    """One machine with one role.

    Parameters
    ----------
    store
        The ``[store]`` table of the site's object store.
    """

    def __init__(self, folder: Path, role: str, keys: Path, database_url: str, store: object, sink_port: int) -> None:
        folder.mkdir()
        self.role, self.folder = role, folder
        self.port, self.restore_port = free_port(), free_port()
        self.log = folder.with_suffix(".log")  # what is looked at when a test fails outlives the machine
        self._arm = folder.with_suffix(".arm")
        self._environment = {**os.environ, "MIAD_DATABASE_URL": database_url, "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen | None = None
        (folder / "keys").symlink_to(keys)
        ports = {"port": self.port, "restore_port": self.restore_port, "sink_port": sink_port}
        (folder / "gateway.toml").write_text(_TOML.format(store=store, **ports))

    @property
    def config(self) -> Config:
        return load_config(self.folder / "gateway.toml")

    def start(self, *, wait: bool = True) -> None:
        """Start the role; `wait`: until it listens."""
        file = str(self.folder / "gateway.toml")
        command = [sys.executable, "-m", "tests.crash.launch", "serve", "--role", self.role, "--config", file]
        environment = {**self._environment, ARM_VARIABLE: str(self._arm)}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            wait_for_port(self.port if self.role == "ingress" else self.restore_port, self._process, within_s=180)

    def arm(self, point: str) -> None:
        """Let the role kill itself at a named point (`tests.crash.points`)."""
        self._arm.write_text(json.dumps({"point": point, "call": 1, "at": time.time()}))

    def died(self) -> bool:
        """Whether it has."""
        return self._process is not None and self._process.poll() is not None

    def lose(self) -> None:
        """Kill it at this instant, and its disk with it."""
        self.destroy()
        shutil.rmtree(self.folder)

    def destroy(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
