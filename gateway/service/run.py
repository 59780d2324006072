"""Runs one role, or the supervisor of all, until a signal comes."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from gateway.audit import AuditLog, events
from gateway.config import Config, load_config, read_text
from gateway.config.duties import Role, foreign_variables, roles_to_start
from gateway.network.presence import announce
from gateway.service.hardening import forbid_core_dumps, forget_variables
from gateway.service.ingress import start_ingress
from gateway.service.places import places
from gateway.service.restore import start_restore
from gateway.service.supervisor import CANNOT_START, PARENT, Supervisor
from gateway.service.worker import start_worker

RUNNERS: dict[str, Callable[[Config], Callable[[], None]]] = {
    "ingress": start_ingress,
    "worker": start_worker,
    "restore": start_restore,
}

log = structlog.get_logger(__name__)


def serve(config_path: Path, role: Role = "all", without: Collection[str] = ()) -> int:
    """Run a role until SIGTERM or SIGINT. Returns the process's exit code.

    Parameters
    ----------
    role
        ``all`` supervises the others as processes of their own.
    without
        Roles that ``all`` does not start: their part of the configuration cannot be used.
    """
    config = load_config(config_path)
    forbid_core_dumps()
    if role == "all":
        wanted = [one for one in roles_to_start(config) if one not in without]
        code = Supervisor(config_path, {one: _environment(config, one) for one in wanted}).run()
        return code or (CANNOT_START if without else 0)
    forget_variables(foreign_variables(config, role))
    audit = AuditLog(places(config).audit(role))
    stop = _stop_on_signal()  # before anybody can see that the role is there
    digest = hashlib.sha256(read_text(config_path).encode()).hexdigest()
    audit.write(events.CONFIGURATION_LOADED, "success", role=role, configuration_sha256=digest)
    stop_role = RUNNERS[role](config)
    presence = announce(config, role)
    audit.write(events.SERVICE_START, "success", role=role)
    log.info("ready", role=role)
    _wait(stop)
    stop_role()
    presence.close()
    audit.write(events.SERVICE_STOP, "success", role=role)
    return 0


def _environment(config: Config, role: Role) -> dict[str, str]:
    """This process's environment without the secrets of other roles."""
    foreign = foreign_variables(config, role)
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    return stop


def ignore_hangup() -> None:
    """SIGHUP, by which other services reload, must not end this one, whose default answer to it is to die."""

    def tell(*_: object) -> None:
        log.warning("SIGHUP is ignored: the configuration is read at start; restart the role to load it anew")

    signal.signal(signal.SIGHUP, tell)


def _wait(stop: threading.Event) -> None:
    """Wait for `stop`; a supervised role also ends when its supervisor is gone."""
    parent = int(os.environ.get(PARENT, "0"))
    while not stop.wait(0.5):
        if parent and os.getppid() != parent:
            log.error("supervisor is gone")
            return
