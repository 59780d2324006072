"""Foreign programs for benchmarks: found, started, waited for, stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def program(name: str) -> str:
    """Path of a program; SystemExit with its name when it is not installed.

    Never from a virtual environment: pynetdicom installs scripts named as DCMTK's programs.
    """
    beside_python = str(Path(sys.executable).parent)
    folders = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part and part != beside_python]
    found = shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port: int) -> Callable[[], bool]:
    """A check whether somebody listens on the port."""

    def check() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return check


@contextmanager
def running(
    command: Sequence, environment: dict, ready: Callable[[], bool], log: Path | None = None, wait_s: float = 60
) -> Iterator[subprocess.Popen]:
    """Run a program for the length of the block; it must become ready, and is asked to end, then killed."""
    with open(log or "/dev/null", "ab") as output:
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + wait_s
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start, see {log}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
