"""The simulation of a site's day, small: it counts what can be counted by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.benchmarks.capacity.__main__ import stations
from tests.benchmarks.capacity.costs import Costs
from tests.benchmarks.capacity.simulate import BATCH, INSTANCES, Station, arrivals, ceiling, delays, most_studies
from tests.benchmarks.facts import Facts
from tests.conftest import REPOSITORY

COSTS = Costs(0.2, 0.2, 6.0, 140.0, 0.2, 0.04, 5e5, 2e5, 5e5, 2000, 3000)  # of a slow machine: few events


def test_one_server_takes_one_study_after_the_other() -> None:
    one = [Station("mark", 1, 0.1)]
    assert delays(one, [0.0, 10.0, 1000.0]) == pytest.approx([30, 50, 30])
    first_out = BATCH * 0.1
    assert delays([*one, Station("next", 1, 0.1)], [0.0]) == pytest.approx([first_out + 30])  # a pipeline
    assert delays([Station("mark", 1000, 0.1)], [5.0]) == pytest.approx([first_out])  # all batches side by side


def test_all_studies_come_within_the_day_and_most_of_them_by_day() -> None:
    import random

    times = arrivals(1000, random.Random(1))
    assert len(times) == 1000 and 0 <= times[0] <= times[-1] < 86_400 and times == sorted(times)
    assert 0.7 < sum(7 * 3600 <= at < 18 * 3600 for at in times) / 1000 < 0.9


def test_twice_the_servers_take_twice_the_studies_until_something_shared_is_full() -> None:
    one, two = (most_studies([Station("mark", servers, 3)]) for servers in (8, 16))
    assert 1.7 < two / one < 2.3
    assert one < ceiling(Station("mark", 8, 3)) * 1.3
    by_hand = 86_400 * 8 / (INSTANCES * 3)
    assert 0.3 * by_hand < one < by_hand  # the busiest hours decide
    shared = [most_studies([Station("database", 1, 0.3), Station("mark", n, 3)]) for n in (64, 128)]
    assert shared[1] <= 1.1 * shared[0]


def test_marks_move_from_cores_to_devices() -> None:
    cores = {one.name: one.seconds for one in stations(COSTS, 8, COSTS.generator_s)}
    devices = {one.name: one.seconds for one in stations(COSTS, 8, 0.01, devices=2)}
    assert cores["worker"] == pytest.approx(6.4) and devices["worker"] == pytest.approx(0.4)
    assert devices["device"] == 0.01 and "device" not in cores


@pytest.mark.full
def test_it_prints_and_draws_from_costs_that_were_measured_before(tmp_path: Path) -> None:
    known, out, picture = tmp_path / "costs.json", tmp_path / "out.json", tmp_path / "a.png"
    told = Facts({"PostgreSQL": "15.1"}, 0.001, 8192, 64, "elsewhere", 0.5, "0123abc")
    known.write_text(json.dumps({"costs": asdict(COSTS), "facts": asdict(told)}))
    options = ["--costs", known, "--device-s", "1", "--json", out, "--picture", picture]
    command = [sys.executable, "-m", "tests.benchmarks.capacity", *map(str, options)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    by_kind = {row["kind"]: row["studies_a_day"] for row in found["studies"] if row["size"] == 64}
    assert by_kind["generator, cores"] > 5 * by_kind["strong, cores"]
    assert found["facts"] == asdict(told) and str(told) in done.stdout and picture.stat().st_size > 5000
    assert sum("an assumed 1 s a mark" in row["kind"] for row in found["studies"]) == 7
