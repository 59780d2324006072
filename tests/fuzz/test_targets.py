"""Every target of the fuzzer runs over its seeds, and over the inputs that were found with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds(name: str) -> None:
    seeds = list(SEEDS[name]())
    assert len(seeds) >= 2
    for seed in seeds:
        TARGETS[name](seed)
        TARGETS[name](seed[: len(seed) // 2])


def test_the_command_fuzzes(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    corpus = tmp_path / "corpus"
    command = [sys.executable, "-m", "tests.fuzz", "command", "--seconds", "2", "--corpus", corpus]
    done = subprocess.run(
        [*command, "--findings", str(tmp_path / "found")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "INFO: Instrumenting gateway.network.command" in done.stderr
    assert len(list(corpus.iterdir())) > len(list(SEEDS["command"]()))  # inputs that reached something new were kept
    assert not list((tmp_path / "found").iterdir())
