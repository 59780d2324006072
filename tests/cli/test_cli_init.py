"""`init`: a new site from a few answers, that passes the check and overwrites nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import load_config
from tests.cli.conftest import REPOSITORY, free_ports

NODES = ["--archive", "PACS@10.1.0.5", "--destination", "VENDOR@vendor.example:104", "--host", "gw.example,10.1.0.9"]


@pytest.fixture
def ports() -> list[str]:
    one, two, three = free_ports(3)
    return ["--port", str(one), "--restore-port", str(two), "--page-port", str(three)]


@pytest.mark.parametrize(
    "options",
    [
        [],
        [*NODES, "--workstation", "READING ROOM@10.1.2.3:11115"],
        [*NODES, "--workstation", "no", "--archive-tls", "--destination-tls"],
        [*NODES, "--workstation", "restore@10.1.2.3:11115", "--tls", "no"],
        ["--archive", 'A"]#@[::1]', "--destination", "D@[fd00::1]:104", "--called-ae", "MIAD X"],
    ],
)
def test_what_it_writes_passes_the_check(run, tmp_path: Path, ports, options: list[str]) -> None:
    done = run("init", "site", "--yes", *ports, *options)
    assert done.code == 0, done.err
    checked = run("config", "check", "--config", "site/gateway.toml")
    assert checked.code == 0 and "error" not in checked.out, checked.out
    assert "miad-gateway serve --config site/gateway.toml" in done.err
    settings = load_config(tmp_path / "site" / "gateway.toml")
    assert f"AE title {settings.routes[0].called_ae}" in done.err
    if settings.restore is not None and settings.restore.tls is not None:
        (station,) = settings.restore.workstations
        assert len(station.key_sha256) == 1 and not station.plain


def test_listeners_are_open_only_as_far_as_they_have_to(run, tmp_path: Path, ports) -> None:
    run("init", "site", "--yes", *ports, "--archive", "PACS@10.1.0.5")
    settings = load_config(tmp_path / "site" / "gateway.toml")
    assert (settings.ingress.host, settings.restore.host) == ("0.0.0.0", "127.0.0.1")
    assert settings.ingress.peers[0].addresses == ("10.1.0.5",)


def test_for_units_the_keys_are_handed_over_and_no_tls_key_is_shared(run, tmp_path: Path, ports) -> None:
    done = run("init", "site", "--yes", *ports, *NODES, "--archive-tls", "--destination-tls", "--units")
    assert done.code == 0, done.err
    assert "serve" not in done.err
    settings = load_config(tmp_path / "site" / "gateway.toml")
    assert settings.site.state == Path("/var/lib/miad-gateway")
    assert settings.keys.spool_key == "credential:spool.key" and settings.keys.proof == "credential:restore.proof"
    keys = [
        settings.ingress.tls.private_key,
        settings.destinations[0].tls.private_key,
        settings.restore.tls.private_key,
    ]
    assert [path.name for path in keys] == ["gateway.key", "worker.key", "restore.key"]
    assert all(path.is_file() for path in keys)


def test_nothing_is_overwritten_and_keys_that_are_there_are_taken(run, tmp_path: Path, ports) -> None:
    run("keys", "make", "site/keys")
    run("certificates", "make", "site/tls")
    before = {path: path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.suffix in (".pem", ".key")}
    assert run("init", "site", "--yes", *ports).code == 0
    assert {path: path.read_bytes() for path in before} == before
    written = (tmp_path / "site" / "gateway.toml").read_bytes()
    again = run("init", "site", "--yes", "--site", "other")
    assert (again.code, "code: config-exists" in again.err) == (2, True)
    assert (tmp_path / "site" / "gateway.toml").read_bytes() == written


def test_certificates_that_a_site_has_are_taken_by_path(run, tmp_path: Path, ports) -> None:
    run("certificates", "make", "own", "--host", "gw.example")
    done = run("init", "site", "--yes", *ports, "--tls", "own")
    assert done.code == 0, done.err
    settings = load_config(tmp_path / "site" / "gateway.toml")
    assert settings.restore.tls.certificate == tmp_path / "own" / "restore.pem"
    assert settings.restore.workstations[0].san == ("127.0.0.1",)
    assert not (tmp_path / "site" / "tls").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--archive", "PACS@pacs.example"], "bad-node"),
        (["--archive", "PACS"], "bad-node"),
        (["--archive", "A_TITLE_THAT_IS_LONG@10.1.0.5"], "bad-node"),
        (["--destination", "V@vendor.example"], "bad-node"),
        (["--destination", "V@vendor.example:70000"], "bad-node"),
        (["--site", "Our Site"], "bad-name"),
        (["--host", "*.example"], "bad-name"),
        (["--tls", "nowhere"], "tls-file-missing"),
        (["--tls", "no", "--archive-tls"], "no-tls"),
        (["--called-ae", "A_TITLE_THAT_IS_LONG"], "config-invalid"),
    ],
)
def test_a_wrong_answer_makes_nothing(run, tmp_path: Path, options: list[str], code: str) -> None:
    done = run("init", "site", "--yes", *options)
    assert (done.code, f"code: {code}" in done.err) == (2, True), done.err
    assert not (tmp_path / "site").exists()


def test_without_a_terminal_it_says_which_option_is_missing(run, tmp_path: Path) -> None:
    done = run("init", "site", "--site", "uk")
    assert (done.code, "--archive is missing" in done.err) == (2, True), done.err
    assert not (tmp_path / "site").exists()


def test_on_a_terminal_it_asks_six_questions_and_a_wrong_answer_again(tmp_path: Path, ports) -> None:
    answers = ["uk", "PACS@pacs.example", "PACS@10.1.0.5", "V@127.0.0.1:104", "no", "gw.example", "no"]
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "gateway.cli", "init", "site", *ports]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        os.close(child)
        os.write(parent, "".join(f"{answer}\n" for answer in answers).encode())
        _, told = process.communicate(timeout=120)
    os.close(parent)
    assert process.returncode == 0, told
    assert all(f"{number}/6" in told for number in range(1, 7)) and told.count("2/6") == 2
    assert "connections are known by theirs" in told
    settings = load_config(tmp_path / "site" / "gateway.toml")
    assert (settings.site.name, settings.restore) == ("uk", None)
    assert settings.ingress.peers[0].ae_title == "PACS"
