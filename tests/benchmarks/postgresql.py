"""A PostgreSQL cluster in its default settings, durable, in a folder where it may stay for a later run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.programs import free_port
from tests.support.postgresql import programs


class Cluster:
    """Started on a free loopback port, anew where it lies in the folder already; `url` leads to its first database."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            raise SystemExit("PostgreSQL is not installed (Debian: postgresql)")
        self._programs, self._at, port = found, folder / "postgresql", free_port()
        self._as_user: dict = {"cwd": "/", "stdout": subprocess.DEVNULL, "check": True}
        if os.getuid() == 0:  # it refuses to run as root
            self._as_user |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        if not self._at.exists():
            self._at.mkdir()
            if os.getuid() == 0:
                folder.chmod(0o711)
                shutil.chown(self._at, "postgres", "postgres")
            initdb = [found / "initdb", "-D", self._at / "data", "-U", "miad", "--auth=trust"]
            subprocess.run(initdb, **self._as_user)
        self._start = ["-o", f"-p {port} -h 127.0.0.1 -k {self._at}", "-l", str(self._at / "log")]
        self._control("start")
        self.url = f"postgresql+psycopg://miad@127.0.0.1:{port}/postgres"

    def _control(self, word: str, *options: str) -> None:
        start = [] if word == "stop" else self._start
        command = [self._programs / "pg_ctl", "-D", self._at / "data", "-w", *options, *start, word]
        subprocess.run(command, **self._as_user)

    def restart(self) -> None:
        """As after a crash of the server: nobody is waited for."""
        self._control("restart", "-m", "immediate")

    def stop(self) -> None:
        """In order."""
        self._control("stop", "-m", "fast")


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a cluster in the folder, stopped in order afterwards."""
    cluster = Cluster(folder)
    try:
        yield cluster.url
    finally:
        cluster.stop()
