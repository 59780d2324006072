"""CPU seconds and memory of a gateway's processes are those of its roles and their children, and of nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import cpu_of, memory_of

CHILD = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD!r}])\nprint('done', flush=True)\ninput()"
)
HOLDS = "held = bytearray(64 << 20)\nheld[::4096] = b'x' * (len(held) // 4096)\nprint('done', flush=True)\ninput()"


@contextmanager
def role(name: str, script: str, config: Path) -> Iterator[None]:
    """A process that looks like a role of this configuration, from when its script has said `done` on."""
    command = [sys.executable, "-c", script, "serve", "--role", name, "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield
        process.communicate("\n")


def test_a_role_s_seconds_hold_those_of_its_children(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with role("worker", PARENT, config):
        found = cpu_of(config)
    assert list(found) == ["worker"]
    assert found["worker"] >= 0.3
    assert cpu_of(config) == {}


def test_a_role_s_memory_is_what_it_holds_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    with role("ingress", HOLDS, config):
        found = memory_of(config)
    assert list(found) == ["ingress"]
    assert 64 << 20 < found["ingress"] < 96 << 20
