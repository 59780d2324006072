"""A PostgreSQL of the test's own, with a second one as its synchronous standby: started, stopped and killed at will."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.conftest import missing
from tests.support import postgresql
from tests.support.network.peers import free_port

USER = "miad"


def _programs() -> Path:
    found = postgresql.programs()
    if found is None:
        missing("PostgreSQL")
    return found


class Server:
    """One PostgreSQL on a free port, its data in a folder; `stop` as a power cut does, `start` over what it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.programs = _programs()
        self._as: dict = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: object) -> None:
        words = [str(self.programs / program), *map(str, arguments)]
        with open(self.folder / "output", "ab") as out:
            done = subprocess.run(words, cwd="/", stdout=out, stderr=out, check=False, **self._as)
        assert done.returncode == 0, (self.folder / "output").read_text()[-2000:]

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c wal_level=replica -c max_wal_senders=4"
        data, log = self.folder / "data", self.folder / "log"
        self.run("pg_ctl", "-D", data, "-o", options, "-l", log, "-w", "-t", "120", "start")

    def stop(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-t", "120", "stop")

    def ask(self, statement: str) -> list[tuple]:
        with psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres", autocommit=True) as link:
            found = link.execute(statement)
            return found.fetchall() if found.description else []


class Pair:
    """A server and its standby. Without one that is named, commits are the server's own: `name` and `unname` it."""

    def __init__(self) -> None:
        # pytest's own folders are closed to the user that PostgreSQL runs as
        self.folder = Path(tempfile.mkdtemp(prefix="miad-pair-"))
        names = ("first", "second", "third")
        for name in names:
            (self.folder / name).mkdir()
        if os.getuid() == 0:
            for folder in (self.folder, *(self.folder / name for name in names)):
                shutil.chown(folder, "postgres", "postgres")
        self.servers = [Server(self.folder / name) for name in names]
        self.primary, self.standby = self.servers[:2]
        self.primary.run("initdb", "-D", self.primary.folder / "data", "-U", USER, "--auth=trust", "-N")
        self.primary.start()

    @property
    def url(self) -> str:
        """Whichever of them takes what is written."""
        hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in self.servers)
        return f"postgresql+psycopg://{USER}@/postgres?{hosts}&target_session_attrs=read-write"

    def fail_over(self) -> None:
        """The server is lost with its disk, its standby takes its place, and a third one that of the standby."""
        self.primary.stop()
        shutil.rmtree(self.primary.folder / "data")
        self.promote()
        self.primary, self.standby = self.standby, self.servers[2]
        self.add_standby()

    def add_standby(self) -> None:
        """Copy the server, start the copy, and have every commit wait for it."""
        data, port = self.standby.folder / "data", self.primary.port
        link = f"host=127.0.0.1 port={port} user={USER} application_name=second"
        self.primary.run("pg_basebackup", "-D", data, "-d", link, "-R", "-X", "stream", "-c", "fast", "-N")
        self.standby.start()
        self.name()
        self.wait()

    @contextmanager
    def copying(self) -> Iterator[None]:
        """While a copy is being made, which takes the log as it is written, and is thrown away."""
        words = [self.primary.programs / "pg_basebackup", "-D", self.standby.folder / "copy", "-X", "stream", "-N"]
        words += ["-d", f"host=127.0.0.1 port={self.primary.port} user={USER}", "-c", "fast", "-r", "1M"]
        copy = subprocess.Popen(
            [*map(str, words)], cwd="/", stderr=subprocess.DEVNULL, start_new_session=True, **self.primary._as
        )
        deadline = time.monotonic() + 60
        while ("streaming",) not in self.primary.ask("SELECT state FROM pg_stat_replication"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        os.killpg(copy.pid, signal.SIGKILL)  # it is two processes
        copy.wait()

    def name(self, names: str = "second") -> None:
        """Whom commits wait for."""
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while self.primary.ask("SHOW synchronous_standby_names") != [(names,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait(self) -> None:
        """Until the standby follows."""
        deadline = time.monotonic() + 120
        while self.primary.ask("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < deadline, (self.standby.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def promote(self) -> None:
        """The standby is the server from now on."""
        self.standby.run("pg_ctl", "-D", self.standby.folder / "data", "-w", "-t", "120", "promote")

    def close(self) -> None:
        """Stop both and forget what they held."""
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
