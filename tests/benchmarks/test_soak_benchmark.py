"""Half a minute of the soak, and that it would see what does not add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.soak.ground import Sample, growth
from tests.conftest import REPOSITORY


def test_growth_is_told_of_the_longest_life_by_a_fitted_line() -> None:
    steady = [Sample("restore", 7, 10.0 * n, 100.0, 9, 4) for n in range(20)]
    grows = [Sample("worker", 8, 10.0 * n, 100 + n, 9 + n % 2, 4) for n in range(20)]
    found = growth([*steady, *grows, Sample("worker", 9, 500.0, 1.0, 1, 1)])
    assert found["restore"]["memory_mib"] == [100, 100, 0, 0]
    first, last, slope, error = found["worker"]["memory_mib"]
    assert (first, last, slope, error) == (104, 119, 360, 0)
    assert abs(found["worker"]["files"][2]) < 2 * found["worker"]["files"][3] + 40


def soak(folder: Path, *options: str) -> tuple[int, dict]:
    """Run it; its exit code and what it printed."""
    command = [sys.executable, "-m", "tests.benchmarks.soak", "--database", "sqlite", "--waiting", "40"]
    command += ["--folder", str(folder), "--picture", str(folder / "soak.png"), *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert "{" in done.stdout, done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.mark.full
@pytest.mark.peers
@pytest.mark.timeout(2500)
def test_half_a_minute_with_faults_adds_up_goes_on_later_and_a_loss_is_seen(tmp_path: Path) -> None:
    code, found = soak(tmp_path, "--minutes", "0.5", "--every", "6", "--seed", "3")
    assert (code, found["problems"]) == (0, []) and found["faults"]
    assert found["acknowledged"] == found["sent"] > 0
    assert found["facts"]["flush_s"] > 0 and (tmp_path / "soak.png").stat().st_size > 5000
    # one that the first destination had is lost there, every time that it came
    book = tmp_path / "first.jsonl"
    lines = book.read_text("utf-8").splitlines(keepends=True)
    lost = json.loads(lines[0])["uid"]
    book.write_text("".join(line for line in lines if json.loads(line)["uid"] != lost), "utf-8")
    code, again = soak(tmp_path, "--minutes", "0.2", "--calm", "1")
    assert again["sent"] >= found["sent"] and again["acknowledged"] == again["sent"]
    assert code == 1 and [one.partition(":")[0] for one in again["problems"]] == ["lost"]
