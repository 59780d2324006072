"""A gateway of a benchmark's own: keys, configuration, and the processes that `miad-gateway serve` starts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.config import TRUST_STATEMENT
from gateway.keys.generate import make_keys
from tests.benchmarks.programs import free_port, listening, running

START_S = 120.0


@dataclass(frozen=True)
class Site:
    """A running gateway: its configuration file, and the port and AE title that it receives on."""

    config: Path
    port: int
    called_ae: str = "RELAY"
    calling_ae: str = "STORESCU"


def write_site(home: Path, sink_port: int, route: str, worker: str = "", destination: str = "") -> Site:
    """Keys and configuration of a gateway with one route to one plain destination on loopback.

    Parameters
    ----------
    route, worker, destination
        Further TOML lines of the ``[[routes]]``, ``[worker]`` and ``[[destinations]]`` tables.
    """
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    make_keys(home / "keys")
    port = free_port()
    config = home / "gateway.toml"
    config.write_text(
        f"""version = 1
[ingress]
port = {port}
peers = [{{ ae_title = "STORESCU", addresses = ["127.0.0.1"] }}]
[worker]
{worker}
[[destinations]]
name = "sink"
type = "research"
ae_title = "SINK"
host = "127.0.0.1"
port = {sink_port}
trust_statement = "{TRUST_STATEMENT}"
{destination}
[[routes]]
name = "relay"
called_ae = "RELAY"
destinations = ["sink"]
{route}
"""
    )
    return Site(config, port)


@contextmanager
def gateway_site(
    home: Path, sink_port: int, environment: dict, route: str, worker: str = "", destination: str = ""
) -> Iterator[Site]:
    """Run what `write_site` has written, as `miad-gateway serve` does."""
    site = write_site(home, sink_port, route, worker, destination)
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", site.config]
    log, is_there = home / "log", listening(site.port)

    def is_ready() -> bool:  # the worker loads torch for a while
        told = [
            json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")
        ]
        return {"ingress", "worker"} <= {one["role"] for one in told if one["event"] == "ready"} and is_there()

    with running(command, environment, ready=is_ready, log=log, wait_s=START_S):
        yield site
