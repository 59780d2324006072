"""`serve`: a role starts, logs JSON without patient data, and ends in order on SIGTERM."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gateway.config import load_config
from tests.support.network.peers import free_port

REPOSITORY = Path(__file__).parent.parent.parent


def wait_until_it_listens(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the role ended by itself"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the role does not listen")


@pytest.mark.parametrize("role", ["ingress", "restore"])
def test_a_role_starts_and_ends_in_order(run, sample: Path, role: str, tmp_path: Path) -> None:
    settings = load_config(sample)
    assert settings.restore is not None
    port = settings.ingress.port if role == "ingress" else settings.restore.tls_port
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", role]
    log = tmp_path / "log"
    with log.open("w") as output:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, cwd=tmp_path, env=environment)
    try:
        wait_until_it_listens(process, port)
        # Its own port is right, to whoever asks; another role's that is not running is free.
        done = run("config", "check", "--config", sample)
        assert (done.code, done.out) == (0, ""), done.err
        process.send_signal(signal.SIGHUP)  # for which it neither ends nor stops listening
        deadline = time.monotonic() + 60
        while "configuration reloaded" not in log.read_text() and time.monotonic() < deadline:
            wait_until_it_listens(process, port)
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (ready,) = (line for line in lines if line["event"] == "ready")
    assert ready["listens_on"] == [f"127.0.0.1:{port}"]
    assert {line["role"] for line in lines} == {role}
    assert [line["by"] for line in lines if line["event"] == "configuration reloaded"] == ["signal"]
    assert not [line for line in lines if line["level"] in ("warning", "error")]


def test_a_clinical_destination_is_audited_before_the_worker_is_ready(sample: Path, tmp_path: Path) -> None:
    typed = 'type = "clinical"\nclinical_override = "marked copies must not be used for clinical reading"'
    sample.write_text(sample.read_text().replace('type = "research"', typed))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", "worker"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        lines = []
        while not lines or lines[-1]["event"] != "ready":
            lines.append(json.loads(process.stderr.readline()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0
    finally:
        process.kill()
        process.communicate()
    audited = [
        json.loads(line) for line in (sample.parent / "state" / "audit" / "worker.jsonl").read_text().splitlines()
    ]
    loaded, clinical, started = audited[:3]
    assert [loaded["event"], started["event"]] == ["configuration-loaded", "service-start"]
    assert loaded["configuration_sha256"] == hashlib.sha256(sample.read_bytes()).hexdigest()
    assert (clinical["destination"], clinical["event_id"], clinical["event_type"]) == (
        "research-pacs", "110113", "110132",
    )  # fmt: skip
    assert [line["destination"] for line in lines if "clinical" in line["event"]] == ["research-pacs"]


def running(sample: Path, tmp_path: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)


def test_a_database_that_nobody_can_open_is_told_once(run, sample: Path) -> None:
    """What waiting does not heal: one error, its cause, no password, and the end (exit code 2)."""
    url = "postgresql+nodriver://gateway:S3CRET@db.example/gateway"
    sample.write_text(sample.read_text() + f"\n[database]\nurl = '{url}'\n")
    done = run("serve", "--config", sample)
    assert done.code == 2
    assert done.err.count("the gateway cannot use a database of the kind 'postgresql+nodriver'") == 1
    assert "S3CRET" not in done.err and "unexpected" not in done.err and "Error" not in done.err
    done = run("config", "check", "--config", sample)
    assert done.code == 2
    assert "database.url: the gateway cannot use a database of the kind" in done.out and "S3CRET" not in done.out


def test_a_database_that_does_not_answer_ends_a_role_for_another_try(run, sample: Path) -> None:
    port = free_port()
    url = f"postgresql+psycopg://gateway:S3CRET@127.0.0.1:{port}/gateway"
    sample.write_text(sample.read_text() + f"\n[database]\nurl = '{url}'\n")
    done = run("serve", "--config", sample, "--role", "ingress")
    assert done.code == 4  # the supervisor, or systemd, starts it again
    assert f"error: the database at 127.0.0.1 port {port}: nobody listens there" in done.err
    assert "S3CRET" not in done.err and "unexpected" not in done.err


@pytest.mark.parametrize("role", ["ingress", "worker", "restore"])
def test_a_full_audit_at_the_start_is_one_error_in_words(run, sample: Path, role: str) -> None:
    folder = load_config(sample).site.state / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{role}.jsonl").symlink_to("/dev/full")
    done = run("serve", "--config", sample, "--role", role)
    assert done.code == 1  # the supervisor, or systemd, starts it again: somebody may have made room
    assert "error: the audit trail cannot be written: No space left on device" in done.err
    assert "audit-full" in done.err and "unexpected" not in done.err


def test_all_without_one_role(sample: Path, tmp_path: Path) -> None:
    """A key of the worker alone is missing: that is told once, ingress and restore serve all the same."""
    (sample.parent / "keys" / "uid.key").unlink()
    settings = load_config(sample)
    assert settings.restore is not None
    process = running(sample, tmp_path)
    try:
        for port in (settings.ingress.port, settings.restore.tls_port):
            wait_until_it_listens(process, port)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert said.count("keys.uid_key: cannot read") == 1
    ready = [json.loads(line)["role"] for line in said.splitlines() if '"ready"' in line]
    assert sorted(ready) == ["ingress", "restore"]
    assert process.returncode == 2  # scripts see that something is wrong


def test_the_page_starts_without_a_key_and_without_the_database(run, sample: Path, tmp_path: Path) -> None:
    """It says so plainly instead, and shows the flow when the database is there."""
    port, database = free_port(), free_port()
    for file in (sample.parent / "keys").iterdir():
        file.unlink()
    url = f"postgresql+psycopg://gateway:S3CRET@127.0.0.1:{database}/gateway"
    sample.write_text(sample.read_text() + f"\n[page]\nport = {port}\ndatabase_url = 'env:PAGE_URL'\n")
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", "page"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PAGE_URL": url}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    try:
        wait_until_it_listens(process, port)
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30)
        assert answer.value.code == 503 and "The database does not answer" in answer.value.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 0
    finally:
        process.kill()
        _, log = process.communicate()
    lines = [json.loads(line) for line in log.splitlines()]
    (ready,) = (line for line in lines if line["event"] == "ready")
    assert ready["listens_on"] == [f"127.0.0.1:{port}"] and "S3CRET" not in log
    audited = (sample.parent / "state" / "audit" / "page.jsonl").read_text()
    assert [json.loads(line)["event"] for line in audited.splitlines()] == [
        "configuration-loaded", "service-start", "service-stop",
    ]  # fmt: skip
