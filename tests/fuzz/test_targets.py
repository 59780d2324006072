"""Every target of the fuzzer runs over its seeds, whole and damaged; the commands fuzz, and tell what they found."""

from __future__ import annotations

import random
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import GatewayError
from tests.fuzz.every import read_log, run_every
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import SYNTAXES, TARGETS

DAMAGED = 8  # seeds of each target


def damaged(seed: bytes, number: int) -> bytes:
    """The seed with a few bytes changed, taken out or put in, the same each time."""
    chance, data = random.Random(number), bytearray(seed)
    for _ in range(3):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.choice((0, 1, 1, 40))] = chance.randbytes(chance.choice((0, 1, 1, 8)))
    return bytes(data)


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds(name: str) -> None:
    seeds = list(SEEDS[name]())
    assert len(seeds) >= 2
    for seed in seeds:
        TARGETS[name](seed)
    for number, seed in enumerate(seeds[:: -(-len(seeds) // DAMAGED)]):
        TARGETS[name](seed[: len(seed) // 2])
        TARGETS[name](damaged(seed, number))


def test_the_seeds_reach_every_decoder() -> None:
    decoded: Counter[str] = Counter()
    for seed in SEEDS["pixels"]():
        try:
            decode_pixels(seed[1:], SYNTAXES[seed[0]])
        except GatewayError:
            continue
        decoded[SYNTAXES[seed[0]]] += 1
    assert set(decoded) == set(SYNTAXES)


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


def test_all_targets_are_run_whatever_becomes_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="the extra `fuzz` is not installed")
    bounds = Namespace(seconds=1, timeout=60, memory=40, longest=1000, jobs=1)  # Python alone has more than 40 MiB
    assert not run_every(["no-such-target", "command"], tmp_path, bounds)
    [unknown, command, last] = capsys.readouterr().out.splitlines()[2:]
    assert unknown.split() == ["no-such-target", "-", "-", "-", "-", "1", "ended", "with", "1"]
    [kept] = (tmp_path / "findings").iterdir()
    assert kept.name.startswith("command-oom-")
    assert command.split()[0] == "command" and command.split()[5:] == ["1", kept.name]
    assert last.startswith("2 targets, ") and last.endswith(" 2 findings")


LOG = """#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 80Mb
#4096\tpulse  cov: 57 ft: 90 corp: 40/2Kb lim: 11 exec/s: 2048 rss: 90Mb
"""
FINAL = """Done 5000 runs in 3 second(s)
stat::number_of_executed_units: 5000
stat::average_exec_per_sec:     1666
stat::peak_rss_mb:              95
"""


def test_the_numbers_of_a_run_come_from_its_log() -> None:
    whole = read_log("command", LOG + FINAL, [])
    assert (whole.executions, whole.speed, whole.coverage, whole.peak, whole.findings) == (5000, 1666, 57, 95, ())
    killed = read_log("command", LOG, ["did not end"])
    assert (killed.executions, killed.speed, killed.coverage, killed.peak) == (4096, None, 57, None)
    assert str(killed).split() == ["command", "4096", "-", "57", "-", "1", "did", "not", "end"]
