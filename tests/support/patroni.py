"""PostgreSQL under Patroni and three etcd, each a machine of its own, by `deploy/patroni/patroni.yml`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import requests
import yaml

from tests.conftest import REPOSITORY, missing
from tests.support.network.namespaces import Host, Network, join, part
from tests.support.network.peers import program
from tests.support.until import until

SAMPLE = REPOSITORY / "deploy" / "patroni" / "patroni.yml"
USER, DATABASE = "postgres", "postgres"
_WITHIN_S = 180.0
_AS_POSTGRES = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--")
_ETCD, _REST, _POSTGRESQL = 2379, 8008, 5432  # each node has an address of its own


def _programs() -> Path:
    """Debian's PostgreSQL: the newest that its Patroni may not know is none for it."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        missing("PostgreSQL")
    return versions[-1].parent


class Node:
    """A machine with a PostgreSQL that Patroni starts, promotes and copies."""

    def __init__(self, folder: Path, host: Host, etcd: list[str], everybody: str) -> None:
        self.host, self.folder = host, folder
        self._process: subprocess.Popen | None = None
        settings = yaml.safe_load(SAMPLE.read_text())
        settings["name"] = folder.name
        for name, port in (("restapi", _REST), ("postgresql", _POSTGRESQL)):
            settings[name] |= {"listen": f"{host.address}:{port}", "connect_address": f"{host.address}:{port}"}
        settings["etcd3"]["hosts"] = etcd
        # what is changed of it: seconds instead of half minutes, and no passwords between the test's own addresses
        settings["bootstrap"]["dcs"] |= {"ttl": 10, "loop_wait": 1, "retry_timeout": 4}
        trust = ["local all all trust", f"host all all {everybody} trust", f"host replication all {everybody} trust"]
        own = {"data_dir": str(folder / "data"), "bin_dir": str(_programs()), "pg_hba": trust, "use_unix_socket": True}
        settings["postgresql"] |= own | {"parameters": {"unix_socket_directories": str(folder)}}
        settings["watchdog"] = {"mode": "off"}
        self._settings = yaml.safe_dump(settings)

    def start(self) -> None:
        """Start it over what it holds; with nothing, it becomes the first, or a copy of the primary."""
        self.folder.mkdir(exist_ok=True)
        shutil.chown(self.folder, "postgres", "postgres")
        (self.folder / "patroni.yml").write_text(self._settings)
        words = self.host.inside([*_AS_POSTGRES, program("patroni", script=True), self.folder / "patroni.yml"])
        plain = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}  # Debian's Python, not the tests' own
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(words, cwd="/", stdout=log, stderr=log, env=plain, start_new_session=True)

    def start_again(self) -> None:
        """Start it where it ended by itself, as systemd does: so does a Patroni that finds no etcd at its start."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def lose(self) -> None:
        """The machine is gone without a word, its disk with it."""
        self.host.unplug()
        self.stop()
        shutil.rmtree(self.folder)

    def stop(self) -> None:
        """End Patroni and PostgreSQL."""
        self.host.kill()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let its Patroni stand still: PostgreSQL goes on as what it is."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def ask(self, statement: str) -> list[tuple]:
        """What its PostgreSQL answers."""
        at = {"host": self.host.address, "port": _POSTGRESQL, "connect_timeout": 5}
        with psycopg.connect(**at, user=USER, dbname=DATABASE, autocommit=True) as link:
            return link.execute(statement).fetchall()

    def is_primary(self) -> bool:
        """Whether Patroni says so, as a balancer asks it."""
        return self._is("primary")

    def may_follow(self) -> bool:
        """Whether Patroni may promote it: it is written down where the etcd are, a moment after PostgreSQL names it."""
        return self._is("synchronous")

    def _is(self, what: str) -> bool:
        try:
            return requests.get(f"http://{self.host.address}:{_REST}/{what}", timeout=2).status_code == 200
        except requests.RequestException:
            return False


class _Etcd:
    """One of three that decide."""

    def __init__(self, folder: Path, host: Host, everybody: Mapping[str, Host]) -> None:
        self.host = host
        at, peers = (f"http://{host.address}:{port}" for port in (_ETCD, _ETCD + 1))
        of_all = ",".join(f"{name}=http://{one.address}:{_ETCD + 1}" for name, one in everybody.items())
        words = ["--name", folder.name, "--data-dir", folder, "--listen-client-urls", at]
        words += ["--advertise-client-urls", at, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        words += ["--initial-cluster", of_all, "--unsafe-no-fsync"]
        words += ["--heartbeat-interval", "200", "--election-timeout", "2000"]  # on a machine that is busy
        with open(folder.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(host.inside([program("etcd"), *words]), stdout=log, stderr=log)

    def leads(self) -> bool:
        """Whether the others follow it."""
        told = requests.post(f"http://{self.host.address}:{_ETCD}/v3/maintenance/status", json={}, timeout=10).json()
        return told["leader"] == told["header"]["member_id"]

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Patroni:
    """Two nodes, and three etcd that decide between them."""

    def __init__(self, network: Network) -> None:
        # pytest's own folders are closed to the user that PostgreSQL runs as
        self.folder = Path(tempfile.mkdtemp(prefix="miad-patroni-"))
        self.folder.chmod(0o755)
        hosts = {f"etcd{number}": network.host() for number in (1, 2, 3)}
        self._etcd = [_Etcd(self.folder / name, host, hosts) for name, host in hosts.items()]
        etcd = [f"{host.address}:{_ETCD}" for host in hosts.values()]
        self.nodes = [Node(self.folder / name, network.host(), etcd, network.range) for name in ("pg1", "pg2")]
        for node in self.nodes:
            node.start()

    @property
    def url(self) -> str:
        """Whichever of them takes what is written, as operations.md has it."""
        hosts = "&".join(f"host={one.host.address}:{_POSTGRESQL}" for one in self.nodes)
        waits = "target_session_attrs=read-write&connect_timeout=3&tcp_user_timeout=6000"
        return f"postgresql+psycopg://{USER}@/{DATABASE}?{hosts}&{waits}"

    def url_of(self, node: Node) -> str:
        """That one's, whatever it takes."""
        return f"postgresql+psycopg://{USER}@{node.host.address}:{_POSTGRESQL}/{DATABASE}"

    @contextmanager
    def parted(self, node: Node) -> Iterator[Node]:
        """While the network is in two parts: this node with the etcd that leads, and the rest. The gateway reaches all.

        Gives the node on the other side once it is the primary.
        """
        leader = next(one for one in self._etcd if one.leads())
        (other,) = (one for one in self.nodes if one is not node)
        here = (node.host, leader.host)
        there = (other.host, *(one.host for one in self._etcd if one is not leader))
        part(here, there)
        try:
            until("the other one reigns", other.is_primary, _WITHIN_S)
            yield other
        finally:
            join(here, there)

    @property
    def primary(self) -> Node:
        """Who is it now."""
        found: list[Node] = []

        def look() -> bool:
            found[:] = [one for one in self.nodes if one.is_primary()]
            return bool(found)

        until("there is a primary", look, _WITHIN_S)
        return found[0]

    def ask(self, statement: str) -> list[tuple]:
        """What the primary answers."""
        return self.primary.ask(statement)

    def wait(self) -> None:
        """Until the primary has a standby by name that its commits wait for, and that may take its place."""

        def named() -> bool:
            for one in self.nodes:
                one.start_again()
            try:
                (names,) = self.ask("SHOW synchronous_standby_names")[0]
                follows = self.ask("SELECT sync_state FROM pg_stat_replication WHERE application_name LIKE 'pg_'")
            except psycopg.Error:
                return False
            return names not in ("", "*") and follows == [("sync",)]

        until("a standby is named, and follows", named, _WITHIN_S)
        until("it may be promoted", lambda: any(one.may_follow() for one in self.nodes), _WITHIN_S)

    def close(self) -> None:
        """Nothing is left of it."""
        for node in self.nodes:
            node.stop()
        for one in self._etcd:
            one.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
