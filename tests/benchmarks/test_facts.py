"""What stands beside every figure is true, and every picture shows its rows."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks import facts as module
from tests.benchmarks.facts import Facts, commit, cpu_model, facts, version
from tests.benchmarks.pictures import add_outputs, bars, lines
from tests.benchmarks.soak.ground import Sample, curves

TOLD = Facts({"DCMTK": "3.6.7", "Python": "3.11.2"}, 0.00063, 4096, 2, "Some CPU", 4.125, "0123abc-dirty")


def test_one_line_holds_all_of_it() -> None:
    expected = "DCMTK 3.6.7, Python 3.11.2; a flush of 4 KiB 0.63 ms; 2 cores, Some CPU, load 4.1 before; commit "
    assert str(TOLD) == f"{expected}0123abc-dirty"
    assert Facts(**json.loads(json.dumps(asdict(TOLD)))) == TOLD


def test_a_flush_is_of_the_folder_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, int]] = []

    def flush(fd: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))

    monkeypatch.setattr(os, "fdatasync", flush)
    found = facts(tmp_path, flush_bytes=1000)
    assert flushed == [(str(tmp_path / "flush"), 1000 * (1 + n)) for n in range(40)]
    assert list(tmp_path.iterdir()) == [] and found.flush_s > 0 and list(found.versions) == ["Python"]


def test_the_versions_are_told_by_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in {
        "storescp": "$dcmtk: storescp v3.6.7 2022-04-22 $",
        "Orthanc": "Orthanc 1.10.1\nCopyright (C) 2012-2016 Somebody",
        "postgres": "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "programs", lambda: tmp_path)
    found = facts(tmp_path, "DCMTK", "Orthanc", "PostgreSQL").versions
    assert [*found.items()][:3] == [("DCMTK", "3.6.7"), ("Orthanc", "1.10.1"), ("PostgreSQL", "15.14")]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="storescp is not installed"):
        version("DCMTK")


def test_the_processor_is_named_by_the_system_where_it_does(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n")
    assert cpu_model(told) == "Some CPU @ 2 GHz"
    told.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_model(told) == cpu_model(tmp_path / "none") == os.uname().machine


def test_a_commit_is_told_with_what_differs_from_it_and_no_tag(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    short = git("rev-parse", "--short", "HEAD")
    assert commit(tmp_path) == short
    (tmp_path / "other").write_text("not tracked")
    assert commit(tmp_path) == short
    (tmp_path / "file").write_text("b")
    assert commit(tmp_path) == f"{short}-dirty"


def test_a_picture_is_saved_where_git_looks_away_unless_a_place_is_given(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_outputs(parser, "some")
    assert parser.parse_args(["--picture", "a.png"]).picture == Path("a.png")
    chosen = parser.parse_args([]).picture
    ignored = subprocess.run(["git", "check-ignore", chosen], cwd=module.REPOSITORY, capture_output=True, text=True)
    assert (ignored.stdout.strip() or str(chosen)) == str(chosen) == "build/benchmarks/some.png"
    assert ignored.returncode in (0, 128), "git would add it"  # 128: an archive of the sources


def pixels(path: Path) -> bytes:
    """The picture's pixels; not its metadata."""
    with Image.open(path) as image:
        assert min(image.size) > 100
        return image.convert("RGB").tobytes()


def test_bars_show_values_names_and_facts(tmp_path: Path) -> None:
    series = {"one": {"storescp": 1179.0, "gateway": 156.8}, "eight": {"storescp": 796.0}}
    drawn = []
    for number, (given, told) in enumerate(
        [
            (series, TOLD),
            ({**series, "eight": {"storescp": 400.0}}, TOLD),
            ({"one": {"storescp": 1179.0, "Orthanc": 156.8}, "eight": {"storescp": 796.0}}, TOLD),
            (series, replace(TOLD, commit="fedcba9")),
        ]
    ):
        bars(tmp_path / "new folder" / f"{number}.png", given, "images/s", told, log=True)
        drawn.append(pixels(tmp_path / "new folder" / f"{number}.png"))
    assert len(set(drawn)) == 4


def test_curves_of_a_soak_tell_of_the_longest_life_of_each_role_and_are_drawn(tmp_path: Path) -> None:
    samples = [Sample("worker", 8, 60.0 * n, 100.0 + n, 9 + n % 2, 4) for n in range(5)]
    samples += [Sample("worker", 7, 900.0, 1.0, 1, 1)]
    samples += [Sample("ingress", 9, 60.0 * n, 50.0, 7, 3) for n in range(5)]
    panels = curves(samples)
    assert panels["memory, MiB"]["worker"] == ([1, 2, 3, 4], [101, 102, 103, 104])  # the first fifth is its start
    assert panels["more than at first, MiB"] == {
        "ingress": ([1, 2, 3, 4], [0, 0, 0, 0]),
        "worker": ([1, 2, 3, 4], [0, 1, 2, 3]),
    }
    assert panels["open files"]["worker"][1] == [10, 9, 10, 9] and panels["threads"]["ingress"][1] == [3] * 4
    lines(tmp_path / "a.png", panels, "minutes", TOLD)
    lines(tmp_path / "b.png", {**panels, "threads": panels["open files"]}, "minutes", TOLD)
    assert pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")
