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
from pathlib import Path

import pytest

from gateway.config import load_config

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
def test_a_role_starts_and_ends_in_order(sample: Path, role: str, tmp_path: Path) -> None:
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
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert next(line["event"] for line in lines if line["level"] == "info") == "ready"
    assert {line["role"] for line in lines} == {role}


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
        assert process.wait(30) == 0
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
