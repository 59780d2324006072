"""How the roles are put together from a configuration, and how they run as processes.

    serve("all")      a supervisor that starts the three below as processes of their own and starts them again
    serve("ingress")  C-STORE SCP -> spool                     spool key
    serve("worker")   spool -> vault, marked copies, delivery   spool, UID, mark and signing keys; public restore key
    serve("restore")  vault -> authorized workstations         the private restore key, and no other secret

Only `serve("restore")` ever reads the private restore key (design, promise 6).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy import Engine

from gateway.audit import AuditLog, events
from gateway.config import Config, load_config
from gateway.config.models import Keys
from gateway.config.secret import SecretRef
from gateway.database import open_database
from gateway.errors import ConfigError
from gateway.keys.keyring import OpeningKeys, SealingKeys

Role = Literal["all", "ingress", "worker", "restore"]

REPORTS_S = 10.0  # between two looks for studies that came to rest
CANNOT_START = 2  # exit code of a role whose configuration cannot be used (`gateway.commands.exits`)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Places:
    """Where one site's files lie, all below its state folder."""

    state: Path

    @property
    def spool(self) -> Path:
        """Received data sets, encrypted, until they are delivered."""
        return self.state / "spool"

    @property
    def derived(self) -> Path:
        """Derived data sets, encrypted, until their retention ends."""
        return self.state / "derived"

    @property
    def vault(self) -> Path:
        """Sealed originals."""
        return self.state / "vault"

    def audit(self, role: str) -> Path:
        """The audit log of one role."""
        return self.state / "audit" / f"{role}.jsonl"


def places(config: Config) -> Places:
    """The site's folders, made on first use (mode 0700)."""
    found = Places(config.site.state)
    for folder in (found.state, found.audit("x").parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def database(config: Config) -> Engine:
    """Open the configured database, or the embedded one in the state folder."""
    places(config)
    return open_database(config.database_url)


def serve(config_path: Path, role: Role = "all") -> int:
    """Run a role until SIGTERM or SIGINT. Returns the process's exit code."""
    config = load_config(config_path)
    if role == "all":
        return Supervisor(config_path, _roles(config)).run()
    places(config)
    runner: Callable[[Config], Callable[[], None]] = {"ingress": _ingress, "worker": _worker, "restore": _restore}[role]
    audit = AuditLog(places(config).audit(role))
    stop = _stop_on_signal()  # before anybody can see that the role is there
    stop_role = runner(config)
    audit.write(events.SERVICE_START, "success", role=role)
    log.info("ready", role=role)
    _wait(stop)
    stop_role()
    audit.write(events.SERVICE_STOP, "success", role=role)
    return 0


def _roles(config: Config) -> list[str]:
    return ["ingress", "worker"] + (["restore"] if config.restore else [])


def _ingress(config: Config) -> Callable[[], None]:
    from gateway.flow.receive import SpoolReceiver
    from gateway.flow.spool import Spool
    from gateway.flow.store import FlowStore, lease_owner
    from gateway.keys.keyring import load_spool_cipher
    from gateway.network.ingress import IngressScp

    where = places(config)
    spool = Spool(where.spool, load_spool_cipher(config.keys))
    store = FlowStore(database(config), lease_owner())
    receiver = SpoolReceiver(config.ingress, config.routes, spool, where.spool, store)
    scp = IngressScp(config.ingress, config.routes, receiver, AuditLog(where.audit("ingress")))
    scp.start()
    return scp.stop


def _worker(config: Config) -> Callable[[], None]:
    from gateway.flow.retention import Retainer
    from gateway.flow.steps import Steps
    from gateway.flow.store import FlowStore, lease_owner
    from gateway.flow.worker import FlowWorker
    from gateway.network.egress import Egress

    keys = SealingKeys.load(config.keys)
    engine = database(config)
    store = FlowStore(engine, lease_owner())
    context = build_step_context(config, keys, store, engine, AuditLog(places(config).audit("worker")))
    _tell_of_clinical(config, context.audit)
    context.passing.start()
    egress = Egress(config.destinations, context.audit)
    retainer = Retainer(config.retention, store, context.spool, context.derived, context.protector)
    further = [("emergencies", context.passing.tend, 1.0)]
    if any(route.report for route in config.routes):
        further.append(("reports", build_reports(config, keys, store, engine, context).once, REPORTS_S))
    worker = FlowWorker(config.worker, config.destinations, store, Steps(context), egress, retainer, further)
    for warning in context.protector.warnings():
        log.warning("surrogates", warning=warning)
    worker.start()

    def stop() -> None:
        worker.stop()
        egress.close()

    return stop


def _tell_of_clinical(config: Config, audit: AuditLog) -> None:
    """Audit and log each destination that gets marked copies although it is clinical, before anything goes there."""
    for destination in config.destinations:
        if destination.type == "clinical":
            audit.write(events.CLINICAL_DESTINATION, "success", destination=destination.name)
            log.warning("clinical destination: marked copies must not be read there", destination=destination.name)


def build_step_context(
    config: Config, keys: SealingKeys, store, engine: Engine, audit: AuditLog, folder: Path | None = None
):
    """Everything that the steps work with. `folder` holds spool and derived files; default: the state folder."""
    from gateway.flow.passing import Passing
    from gateway.flow.spool import Spool
    from gateway.flow.steps import StepContext
    from gateway.protect import Protector

    where = places(config)
    base = Places(folder) if folder else where
    return StepContext(
        store=store,
        spool=Spool(base.spool, keys.spool),
        derived=Spool(base.derived, keys.spool),
        protector=Protector(config, keys, engine, where.vault),
        routes={route.name: route for route in config.routes},
        passing=Passing(config.routes, [d.name for d in config.destinations if d.trust_statement], engine, audit),
        audit=audit,
    )


def build_reports(config: Config, keys: SealingKeys, store, engine: Engine, context):
    """What makes the protection reports of the routes that want them."""
    from gateway.flow.reports import Reports
    from gateway.protect.reporting import Reporter

    reporter = Reporter(config.site, keys, engine)
    return Reports(config.routes, engine, store, context.derived, reporter, context.audit)


def build_restorer(config: Config):
    """The one object that opens originals. Only the restore role and the operator's own `restore` call this."""
    from gateway.restore import Restorer

    return Restorer(database(config), places(config).vault, OpeningKeys.load(config.keys), config.site.name)


def build_copy_restorer(private_key: Path, signers: Sequence[Path]):
    """What opens originals that marked copies carry, on any machine: two kinds of key files, no vault, no database."""
    from gateway.restore import CopyRestorer

    keys = Keys(
        restore_private_key=SecretRef(f"file:{private_key.absolute()}"),
        trusted_signers=tuple(SecretRef(f"file:{signer.absolute()}") for signer in signers),
    )
    return CopyRestorer(OpeningKeys.load(keys))


def _restore(config: Config) -> Callable[[], None]:
    from gateway.network.retrieve import RestoreScp
    from gateway.vault.index import Index

    if config.restore is None:
        raise ConfigError("no-restore", "the configuration has no [restore] table", "add one, or do not start the role")
    audit = AuditLog(places(config).audit("restore"))
    scp = RestoreScp(config.restore, Index(database(config)), build_restorer(config), audit)
    scp.start()
    return scp.stop


class Supervisor:
    """Runs each role as a process of its own and starts one that has died again.

    A role that ends with `CANNOT_START` (bad configuration, port taken) is not tried again: all stop.
    """

    RESTART_S = 1.0

    def __init__(self, config_path: Path, roles: list[str]) -> None:
        self._config_path = config_path
        self._roles = roles
        self._children: dict[str, subprocess.Popen] = {}
        self._stopping = threading.Event()

    def run(self) -> int:
        """Supervise until a signal comes. Returns 0 when every role ended in order, 1 or `CANNOT_START` when not."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stopping.set())
        for role in self._roles:
            self._start(role)
        while not self._stopping.wait(0.2):
            for role, child in list(self._children.items()):
                if child.poll() == CANNOT_START:
                    log.error("role cannot start with this configuration", role=role)
                    self._stop_all()
                    return CANNOT_START
                if child.returncode is not None:
                    log.error("role ended, starting it again", role=role, exit_code=child.returncode)
                    self._stopping.wait(self.RESTART_S)
                    if not self._stopping.is_set():
                        self._start(role)
        return self._stop_all()

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(self._config_path)]
        environment = {**os.environ, PARENT: str(os.getpid())}
        # A session of its own: Ctrl-C reaches the supervisor only, which stops the roles in order.
        self._children[role] = subprocess.Popen(command, env=environment, start_new_session=True)

    def _stop_all(self) -> int:
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + 40
        clean = True
        for child in self._children.values():
            try:
                clean &= child.wait(max(0.1, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                child.kill()
                clean = False
        return 0 if clean else 1


PARENT = "MIAD_SUPERVISOR_PID"


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
