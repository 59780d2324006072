"""PostgreSQL under Patroni and etcd, each node a machine of its own, by `deploy/patroni/patroni.yml`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import requests
import yaml

from tests.conftest import REPOSITORY, missing
from tests.support.network.namespaces import Host, Network
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

    def __init__(self, folder: Path, host: Host, etcd: str, everybody: str) -> None:
        self.host, self.folder = host, folder
        self._process: subprocess.Popen | None = None
        settings = yaml.safe_load(SAMPLE.read_text())
        settings["name"] = folder.name
        for part, port in (("restapi", _REST), ("postgresql", _POSTGRESQL)):
            settings[part] |= {"listen": f"{host.address}:{port}", "connect_address": f"{host.address}:{port}"}
        settings["etcd3"]["hosts"] = [etcd]
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

    def is_primary(self) -> bool:
        """Whether Patroni says so, as a balancer asks it."""
        try:
            return requests.get(f"http://{self.host.address}:{_REST}/primary", timeout=2).status_code == 200
        except requests.RequestException:
            return False


class Patroni:
    """Two nodes, and an etcd that decides between them."""

    def __init__(self, network: Network) -> None:
        # pytest's own folders are closed to the user that PostgreSQL runs as
        self.folder = Path(tempfile.mkdtemp(prefix="miad-patroni-"))
        self.folder.chmod(0o755)
        at, peers = (f"http://{network.address}:{port}" for port in (_ETCD, _ETCD + 1))
        words = ["--data-dir", self.folder / "etcd", "--listen-client-urls", at, "--advertise-client-urls", at]
        words += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        words += ["--initial-cluster", f"default={peers}", "--unsafe-no-fsync"]
        with open(self.folder / "etcd.log", "ab") as log:
            self._etcd = subprocess.Popen([program("etcd"), *map(str, words)], stdout=log, stderr=log)
        self.nodes = [
            Node(self.folder / name, network.host(), f"{network.address}:{_ETCD}", network.range)
            for name in ("pg1", "pg2")
        ]
        for node in self.nodes:
            node.start()

    @property
    def url(self) -> str:
        """Whichever of them takes what is written, as operations.md has it."""
        hosts = "&".join(f"host={one.host.address}:{_POSTGRESQL}" for one in self.nodes)
        waits = "target_session_attrs=read-write&connect_timeout=3&tcp_user_timeout=6000"
        return f"postgresql+psycopg://{USER}@/{DATABASE}?{hosts}&{waits}"

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
        at = self.primary.host.address
        with psycopg.connect(host=at, port=_POSTGRESQL, user=USER, dbname=DATABASE, autocommit=True) as link:
            return link.execute(statement).fetchall()

    def wait(self) -> None:
        """Until the primary has a standby by name that its commits wait for."""

        def named() -> bool:
            try:
                (names,) = self.ask("SHOW synchronous_standby_names")[0]
                follows = self.ask("SELECT sync_state FROM pg_stat_replication WHERE application_name LIKE 'pg_'")
            except psycopg.Error:
                return False
            return names not in ("", "*") and follows == [("sync",)]

        until("a standby is named, and follows", named, _WITHIN_S)

    def close(self) -> None:
        """Nothing is left of it."""
        for node in self.nodes:
            node.stop()
        self._etcd.kill()
        self._etcd.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
