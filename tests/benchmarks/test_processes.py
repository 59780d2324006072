"""CPU seconds and memory of a gateway's processes are those of its roles and their children, and of nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.processes import cpu_of, memory_of

CHILD = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD!r}])\nprint('done', flush=True)\ninput()"
)


def test_a_role_s_seconds_hold_those_of_its_children(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    command = [sys.executable, "-c", PARENT, "serve", "--role", "worker", "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        assert role.stdout.readline() == "done\n"
        found = cpu_of(config)
        role.communicate("\n")
    assert list(found) == ["worker"]
    assert found["worker"] >= 0.3
    assert cpu_of(config) == {}


def test_a_role_s_memory_is_what_it_holds_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    holds = "held = bytearray(64 << 20)\nheld[::4096] = b'x' * (len(held) // 4096)\nprint('done', flush=True)\ninput()"
    command = [sys.executable, "-c", holds, "serve", "--role", "ingress", "--config", str(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        assert role.stdout.readline() == "done\n"
        found = memory_of(config)
        role.communicate("\n")
    assert list(found) == ["ingress"]
    assert 64 << 20 < found["ingress"] < 96 << 20
