"""A large object goes through and back in memory that does not follow its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, missing

OBJECT_MIB = 192
BOUND_MIB = 288  # above what the gateway takes without any object; in memory it would be several times the object


@pytest.mark.full
def test_memory_does_not_follow_the_size_of_the_object(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        missing("/proc/self/clear_refs, which resets the high-water mark")
    options = ["--gib", str(OBJECT_MIB / 1024), "--stand-in", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "tests.benchmarks.frames", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert found["exact"]
    assert found["object_mib"] > OBJECT_MIB
    for name, stage in found["stages"].items():
        assert stage["peak_mib"] - found["baseline_mib"] < BOUND_MIB, name
