"""Runs one role, or the supervisor of all, until a signal comes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from gateway.audit import AuditLog, events
from gateway.config import Config, load_config
from gateway.service.ingress import start_ingress
from gateway.service.places import places
from gateway.service.restore import start_restore
from gateway.service.supervisor import PARENT, Supervisor
from gateway.service.worker import start_worker

Role = Literal["all", "ingress", "worker", "restore"]
RUNNERS: dict[str, Callable[[Config], Callable[[], None]]] = {
    "ingress": start_ingress,
    "worker": start_worker,
    "restore": start_restore,
}

log = structlog.get_logger(__name__)


def serve(config_path: Path, role: Role = "all") -> int:
    """Run a role until SIGTERM or SIGINT. Returns the process's exit code."""
    config = load_config(config_path)
    if role == "all":
        return Supervisor(config_path, _roles(config)).run()
    places(config)
    audit = AuditLog(places(config).audit(role))
    stop = _stop_on_signal()  # before anybody can see that the role is there
    stop_role = RUNNERS[role](config)
    audit.write(events.SERVICE_START, "success", role=role)
    log.info("ready", role=role)
    _wait(stop)
    stop_role()
    audit.write(events.SERVICE_STOP, "success", role=role)
    return 0


def _roles(config: Config) -> list[str]:
    return ["ingress", "worker"] + (["restore"] if config.restore else [])


def _stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    return stop


def _wait(stop: threading.Event) -> None:
    """Wait for `stop`; a supervised role also ends when its supervisor is gone."""
    parent = int(os.environ.get(PARENT, "0"))
    while not stop.wait(0.5):
        if parent and os.getppid() != parent:
            log.error("supervisor is gone")
            return
