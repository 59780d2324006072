"""Progress on standard error: a bar on a terminal, lines in a log, nothing in a pipe; and that work has ended."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.commands import progress
from gateway.commands.progress import Shown, showing_progress
from tests.cli.conftest import REPOSITORY

SCRIPT = """
from gateway.commands.progress import showing_progress
with showing_progress("counting") as moved:
    for done in range(1, 4):
        print("result", done)
        moved(done, 3)
"""
RESULT = "result 1\nresult 2\nresult 3\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test moves it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What came on standard error."""
    return capsys.readouterr().err.splitlines()


def test_lines_come_more_seldom_the_longer_it_takes(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress("marking", Shown.LINES) as moved:
        for done in range(1, 2001):
            clock[0] += 1
            moved(done, 2000)
    told = lines_of(capsys)
    assert told[0] == "marking: 10 of 2000, 10 s, about 33 min left"
    assert told[-1] == "marking: 2000 of 2000, ended after 33 min"
    assert 20 < len(told) < 60


def test_short_work_has_one_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with showing_progress("recovering", Shown.LINES, unit="MiB") as moved:
        moved(3, 3)
        clock[0] += 2
    assert lines_of(capsys) == ["recovering: 3 of 3 MiB, ended after 2.0 s"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_what_does_not_end_well_says_where_it_stopped(
    clock: list[float], capsys: pytest.CaptureFixture[str], fault: type[BaseException]
) -> None:
    with pytest.raises(fault), showing_progress("marking", Shown.LINES) as moved:
        moved(4, 9)
        clock[0] = 200.0
        raise fault
    assert lines_of(capsys) == ["marking: stopped at 4 of 9 after 3 min"]


def _script(stderr: int | Path) -> str:
    """Standard output of a small program whose standard error goes there."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "80"}
    given = {"capture_output": False, "stdout": subprocess.PIPE, "text": True, "env": environment, "timeout": 120}
    if isinstance(stderr, Path):
        with stderr.open("w") as file:
            return subprocess.run([sys.executable, "-c", SCRIPT], stderr=file, check=True, **given).stdout
    return subprocess.run([sys.executable, "-c", SCRIPT], stderr=stderr, check=True, **given).stdout


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux says so where the other side is closed
            return
        if not piece:
            return
        yield piece


def test_a_terminal_gets_a_bar_and_its_end() -> None:
    ours, theirs = pty.openpty()
    assert _script(theirs) == RESULT  # a bar on a terminal takes no results away from where they go
    os.close(theirs)
    shown = b"".join(_read(ours)).decode()
    os.close(ours)
    assert "━" in shown
    assert re.search(r"counting: 3 of 3, ended after [\d.]+ s", shown)


def test_a_log_file_gets_lines(tmp_path: Path) -> None:
    assert _script(tmp_path / "log") == RESULT
    assert re.fullmatch(r"counting: 3 of 3, ended after [\d.]+ s\n", (tmp_path / "log").read_text())


def test_a_pipe_gets_nothing_unless_asked(run, tmp_path: Path) -> None:
    """`run` with PYTHONPATH is a process of its own, whose standard error is a pipe."""
    piped = {"PYTHONPATH": str(REPOSITORY), "MIAD_GATEWAY_PROGRESS": "auto"}
    np.savez(tmp_path / "in.npz", images=np.random.default_rng(0).integers(0, 200, (2, 64, 64)).astype(np.uint8))
    marking = ("mark", "in.npz", "--profile", "brain-mr", "--steps", "0", "--seed", "1")
    assert "ended after" not in run(*marking, "--out", "a.npz", **piped).err
    assert "marking: 2 of 2, ended after" in run(*marking, "--out", "b.npz", "--progress", "lines").err
    assert "marking: 2 of 2, ended after" in run(*marking, "--out", "c.npz", MIAD_GATEWAY_PROGRESS="lines").err
    done = run(*marking, "--out", "d.npz", "--progress", "lines", "--json")
    assert "marking: 2 of 2" in done.err and len(done.rows) == 2


@pytest.mark.parametrize(
    "command",
    [
        "protect",
        "restore",
        "mark",
        "train-mark",
        "simulate",
        "surrogates train",
        "vault backup",
        "vault verify",
        "vault recover",
        "database upgrade",
    ],
)
def test_all_long_work_takes_the_option(command: str) -> None:
    from gateway.cli import app

    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert "--progress" in shown.output


def test_a_site_is_backed_up_and_comes_back_with_progress(run, sample: Path, tmp_path: Path) -> None:
    import shutil

    from pydicom.data import get_testdata_file

    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "ct.dcm")
    sample.write_text(sample.read_text().replace("[routes.mark]", "[routes.mark]\nsteps = 0"))
    lines = ("--progress", "lines")
    told = run("database", "upgrade", "--config", sample, *lines).err
    assert (found := re.search(r"revisions of the schema: (\d+) of (\d+), ended", told)), told
    assert found[1] == found[2] != "0"
    assert "revisions of the schema: ended" in run("database", "upgrade", "--config", sample, *lines).err  # none to do
    told = run("protect", "ct.dcm", "--out", "marked", "--config", sample, *lines).err
    assert "protecting: 1 of 1, ended" in told
    assert "reading: 1 of 1, ended" in run("simulate", "ct.dcm", "--config", sample, *lines).err
    assert "verifying: 1 of 1, ended" in run("vault", "verify", "--config", sample, *lines).err
    words = {"MIAD_GATEWAY_PASSPHRASE": "four words that differ"}
    told = run("vault", "backup", "--out", "site.backup", "--config", sample, *lines, **words).err
    assert "backing up originals: 1 of 1, ended" in told
    told = run("vault", "recover", "site.backup", "--into", "new", *lines, **words).err
    assert re.search(r"recovering: (\d+) of \1 MiB, ended", told)
    told = run("restore", "marked", "--out", "back", "--config", "new/recovered.toml", *lines).err
    assert "restoring: 1 of 1, ended" in told


@pytest.mark.parametrize("more", ["", ", Shown.BAR"])
def test_work_goes_on_where_standard_streams_are_closed(tmp_path: Path, more: str) -> None:
    """As under a scheduler that closes them: `2>&-`."""
    script = f"""
import sys
from gateway.commands.progress import Shown, showing_progress
with showing_progress("counting"{more}) as moved:
    moved(1, 1)
open(sys.argv[1], "w").write("done")
"""
    command = 'exec "$0" -c "$1" "$2" >&- 2>&-'
    subprocess.run(["sh", "-c", command, sys.executable, script, str(tmp_path / "end")], cwd=REPOSITORY, check=False)
    assert (tmp_path / "end").exists()
