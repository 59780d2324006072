"""A gateway as a site runs it: configuration, supervisor and roles as processes, and the ways to kill them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, func, select

from gateway.config import Config, load_config
from gateway.database import InstanceRow, reading
from gateway.keys.generate import make_keys
from gateway.service import database, places
from tests.crash.launch import ARM_VARIABLE
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port

REPOSITORY = Path(__file__).parent.parent.parent
ROLES = ("ingress", "worker", "restore")
STOP_S = 100.0  # the supervisor gives its roles 40; a machine may be busy with other work

_TOML = """version = 1
[site]
name = "kills"
[ingress]
port = {port}
peers = [{{ ae_title = "STORESCU", addresses = ["127.0.0.1"] }}]
segment_mib = 1
[worker]
batch = {batch}
poll_s = 0.1
lease_s = 15
device = "cpu"
[[destinations]]
name = "sink"
type = "research"
ae_title = "OUTSIDE"
host = "127.0.0.1"
port = {sink_port}
retry_first_s = 0.5
retry_longest_s = 2
[destinations.commitment]
after_s = 0
retry_first_s = 0.5
retry_longest_s = 2
report_within_s = 5
[[routes]]
name = "relay"
called_ae = "RELAY"
destinations = ["sink"]
source_reference = false
mark = {{ steps = 0 }}
[restore]
tls_port = {restore_port}
[restore.tls]
certificate = "{tls.certificate}"
private_key = "{tls.private_key}"
trust = "{tls.trust}"
"""


class KillSite:
    """One site in one folder.

    Parameters
    ----------
    folder
        Gets keys, configuration, state and log.
    keys
        Keys of another site, to be shared; None makes new ones.
    """

    MODULE = "tests.crash.launch"
    """What is run: the command line with points at which a process can be told to kill itself."""

    def __init__(self, folder: Path, sink_port: int, batch: int = 8, keys: Path | None = None) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self.log = folder / "log"
        self._file = folder / "gateway.toml"
        self._arm = folder / "arm"
        self._process: subprocess.Popen | None = None
        if keys is None:
            make_keys(folder / "keys")
        else:
            (folder / "keys").symlink_to(keys)
        # The restore role is here to be killed only: no workstation may use it.
        tls = Authority(folder / "tls").issue("restore")
        self._file.write_text(
            _TOML.format(port=self.port, sink_port=sink_port, batch=batch, restore_port=free_port(), tls=tls)
        )

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the supervisor, which starts the roles. Does not wait."""
        command = [sys.executable, "-m", self.MODULE, "serve", "--role", "all", "--config", str(self._file)]
        # Each thread pool of torch wants every processor; with several roles and peers on few of them that only waits.
        environment = {**os.environ, ARM_VARIABLE: str(self._arm), "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)

    def check_alive(self) -> None:
        """AssertionError when the supervisor has ended by itself."""
        code = self._process.poll()
        assert code is None, f"the gateway ended with {code}, see {self.log}"

    def stop(self) -> int:
        """End it in order; returns the supervisor's exit code.

        AssertionError with the log's end, and in it where every thread of every process stood, when it does not end.
        """
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in (self._process.pid, *self._children().values()):
                os.kill(pid, signal.SIGUSR2)
            time.sleep(2)
            raise AssertionError(f"not ended after {STOP_S:.0f} s:\n{self.log.read_text()[-6000:]}") from None

    def destroy(self) -> None:
        """Leave no process behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self.kill_tree()

    # -- killing ---------------------------------------------------------------------------------------------------

    def kill_role(self, role: str, within_s: float = 180) -> None:
        """SIGKILL one role's process; the supervisor will start it again."""
        deadline = time.monotonic() + within_s
        while not (pid := self._children().get(role)):
            self.check_alive()
            if time.monotonic() > deadline:
                raise AssertionError(f"role {role} was not started again within {within_s} s, see {self.log}")
            time.sleep(0.05)
        _kill(pid)

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor alone; its roles find out by themselves."""
        self._process.kill()
        self._process.wait()

    def kill_tree(self) -> None:
        """SIGKILL supervisor and roles."""
        roles = self._children()
        self.kill_supervisor()
        for pid in roles.values():
            _kill(pid)

    def arm(self, point: str, call: int) -> None:
        """Let the process that reaches `point` for the `call`-th time from now on kill itself."""
        Path(f"{self._arm}.fired").unlink(missing_ok=True)
        fresh = Path(f"{self._arm}.new")
        fresh.write_text(json.dumps({"point": point, "call": call, "at": time.time()}))
        fresh.rename(self._arm)

    def fired(self) -> bool:
        """Whether the armed point was reached."""
        return Path(f"{self._arm}.fired").exists()

    def disarm(self) -> bool:
        """Take the order back; False when it was carried out already."""
        try:
            self._arm.unlink()
        except FileNotFoundError:
            return False
        return True

    def _children(self) -> dict[str, int]:
        """Role -> process of the supervisor."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent != self._process.pid:
                    continue
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except (OSError, ValueError):
                continue  # it has just ended
            if "--role" in words:
                found[words[words.index("--role") + 1]] = int(entry.name)
        return found

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The site's configuration."""
        return load_config(self._file)

    @property
    def state(self) -> Path:
        """The site's state folder."""
        return places(self.config).state

    @cached_property
    def _engine(self) -> Engine:
        return database(self.config)

    def counts(self) -> dict[str, int]:
        """State -> number of instances."""
        with reading(self._engine) as session:
            return dict(session.execute(select(InstanceRow.state, func.count()).group_by(InstanceRow.state)).all())

    def moved(self) -> tuple[int, ...]:
        """A figure of the worker's progress: how many instances are in each state but the first."""
        counts = self.counts()
        return tuple(counts.get(state, 0) for state in ("sealed", "marked", "delivered"))

    def wait_until_idle(self, stalled_s: float = 120) -> None:
        """Wait until nothing is on its way; AssertionError when nothing moves for `stalled_s`."""
        before, moved_at = None, time.monotonic()
        while True:
            counts = self.counts()
            if not any(counts.get(state) for state in ("received", "sealed", "marked")):
                return
            if counts != before:
                before, moved_at = counts, time.monotonic()
            if time.monotonic() - moved_at > stalled_s:
                raise AssertionError(f"nothing moves any more: {counts}, see {self.log}")
            time.sleep(0.3)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
