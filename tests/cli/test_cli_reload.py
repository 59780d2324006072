"""`reload`: the running gateway takes a configuration over, or says why not; exit codes for scripts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import load_config
from tests.cli.test_cli_serve import REPOSITORY, wait_until_it_listens


@pytest.fixture
def serving(sample: Path, tmp_path: Path) -> Iterator[Path]:
    """The sample site, its role ingress running."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", "ingress"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, cwd=tmp_path, env=environment)
    try:
        wait_until_it_listens(process, load_config(sample).ingress.port)
        yield sample
        process.terminate()
        assert process.wait(50) == 0
        assert not list((sample.parent / "state" / "audit").glob("*.control"))
    finally:
        process.kill()
        process.wait()


def test_the_command_says_who_took_it_over_or_what_is_wrong(run, serving: Path) -> None:
    done = run("reload", "--config", serving)
    assert (done.code, done.out) == (0, "") and f"ingress: took {serving} over" in done.err
    (row,) = run("reload", "--config", serving, "--json").rows
    assert (row["role"], row["reloaded"], len(row["configuration_sha256"])) == ("ingress", True, 64)
    text = serving.read_text()
    # what the file alone shows is told without asking anybody
    serving.write_text(text.replace("called_ae", "caled_ae", 1))
    done = run("reload", "--config", serving)
    assert done.code == 2 and "the old configuration stays in force" in done.err
    assert "routes[0].caled_ae: unknown key (did you mean called_ae?)" in done.err
    # and what only the role can say
    serving.write_text(text.replace('spool_key = "file:keys/spool.key"', 'spool_key = "file:keys/none.key"'))
    done = run("reload", "--config", serving)
    assert done.code == 2 and "error: ingress: line" in done.err and "keys.spool_key: cannot read" in done.err
    (row,) = run("reload", "--config", serving, "--json").rows
    assert (row["role"], row["reloaded"], row["code"]) == ("ingress", False, "check-failed")
    assert row["problems"][0]["path"] == "keys.spool_key"


def test_what_a_reload_would_change(run, serving: Path) -> None:
    done = run("config", "diff", "--config", serving)
    assert (done.code, done.out) == (0, "") and "the same as the running ingress" in done.err
    text = serving.read_text()
    serving.write_text(text.replace('institution = ""', 'institution = "Klinik"'))
    done = run("config", "diff", "--config", serving)
    assert (done.code, done.out) == (3, "site.institution:  -> Klinik\n")
    other = serving.with_name("other.toml")
    other.write_text(text)
    (row,) = run("config", "diff", other, "--config", serving, "--json").rows
    assert row == {"compared_with": str(other), "path": "site.institution", "before": "", "after": "Klinik"}
    line = 1 + serving.read_text()[: serving.read_text().index("institution =")].count("\n")
    done = run("config", "explain", "site.inst", "--config", serving)
    assert done.out == f"site.institution = Klinik  # {serving}:{line}\n"
    (row,) = run("config", "explain", "ingress.max_pdu", "--config", serving, "--json").rows
    assert (row["value"], row["origin"]) == ("131072", "default")
    assert '"properties"' in run("config", "schema").out


def test_nobody_is_there_to_reload(run, sample: Path) -> None:
    stale = sample.parent / "state" / "audit" / "ingress.1.control"
    stale.parent.mkdir(parents=True)
    with contextlib.chdir(stale.parent), socket.socket(socket.AF_UNIX) as left:
        left.bind(stale.name)  # a socket's path is short, a test's folder may not be
    done = run("reload", "--config", sample)
    assert done.code == 4 and "is running" in done.err and "code: not-running" in done.err
    assert not stale.exists()
