"""Runs the command as a user does: as a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.keys.generate import make_keys
from tests.support.ports import free_port
from tests.support.warm import Warm

REPOSITORY = Path(__file__).parent.parent.parent
QUIET = {"MIAD_GATEWAY_PROGRESS": "none"}  # the warm process writes into files, where progress is told in lines


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """The process that commands are forks of."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def run(tmp_path: Path, warm: Warm) -> Run:
    """`run("config", "check", ..., NAME="value")`: arguments, and variables of the environment."""
    home = tmp_path / "home"
    home.mkdir()

    def run_command(*arguments: str | Path, timeout: float = 120, **variables: str) -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIAD_", "XDG_"))}
        environment = {**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **QUIET, **variables}
        words = [*map(str, arguments)]
        if "PYTHONPATH" not in variables:
            return Done(*warm.run(words, tmp_path, environment, timeout))
        command = [sys.executable, "-m", "gateway.cli", *words]  # what it imports is the matter
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=timeout)
        return Done(done.returncode, done.stdout, done.stderr)

    return run_command


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    return [free_port() for _ in range(count)]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """deploy/gateway.toml in a folder of its own, its keys and certificates made, on ports that are free."""
    from tests.support.cli_certificates import make_certificate

    file = tmp_path / "site" / "gateway.toml"
    file.parent.mkdir()
    text = (REPOSITORY / "deploy" / "gateway.toml").read_text("utf-8")
    for written, free in zip(("port = 11112", "port = 11113", "tls_port = 2762"), free_ports(3), strict=True):
        text, count = re.subn(rf"^{written}\b", f"{written.rpartition(' ')[0]} {free}", text, flags=re.MULTILINE)
        assert count == 1
    file.write_text(text, "utf-8")
    make_keys(file.parent / "keys")
    make_certificate(file.parent / "tls")
    return file
