"""`serve`: a role starts, logs JSON without patient data, and ends in order on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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
    ingress, restore = free_ports(2)
    sample.write_text(sample.read_text().replace("11112", str(ingress)).replace("2762", str(restore)))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(sample), "--role", role]
    log = tmp_path / "log"
    with log.open("w") as output:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, cwd=tmp_path, env=environment)
    try:
        wait_until_it_listens(process, ingress if role == "ingress" else restore)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert next(line["event"] for line in lines if line["level"] == "info") == "ready"
    assert {line["role"] for line in lines} == {role}
