"""Runs one role, or the supervisor of all, until a signal comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

import structlog

from gateway.audit import AuditLog, audited, events
from gateway.config import Config, Source
from gateway.config.duties import Role, foreign_variables, processes_of
from gateway.errors import GatewayError, fault
from gateway.service.control import SUPERVISOR, ControlSocket
from gateway.service.hardening import forbid_core_dumps, forget_variables
from gateway.service.ingress import IngressParts
from gateway.service.link import Link
from gateway.service.memory import leave_alone_what_is_there, tune_malloc
from gateway.service.part import StartAnew
from gateway.service.places import places
from gateway.service.reading import Reading
from gateway.service.reload import Desk
from gateway.service.restore import RestoreParts
from gateway.service.runner import Parts, RoleRunner
from gateway.service.supervisor import CANNOT_START, PARENT, Supervisor
from gateway.service.watch import Watcher
from gateway.service.whole import Whole, environments
from gateway.service.wishes import Wish, Wishes
from gateway.service.worker import WorkerParts


def _page_parts(config: Config, audit: AuditLog) -> Parts:
    from gateway.service.page import PageParts  # a web framework, which no other role's process loads

    return PageParts(config, audit)


PARTS: dict[str, Callable[[Config, AuditLog], Parts]] = {
    "ingress": IngressParts,
    "worker": WorkerParts,
    "restore": RestoreParts,
    "page": _page_parts,
}

log = structlog.get_logger(__name__)


def serve(
    source: Source, wishes: Wishes, role: Role = "all", without: Collection[str] = (), supervisor: Link | None = None
) -> int:
    """Run a role until SIGTERM or SIGINT. Returns the process's exit code.

    Parameters
    ----------
    wishes
        What the main thread is to do; SIGHUP goes there already.
    role
        ``all`` supervises the others as processes of their own, and a role of several processes those.
    without
        Roles that ``all`` does not start: their part of the configuration cannot be used.
    supervisor
        The link to the supervisor of this role.

    Raises
    ------
    CapacityError
        ``audit-full``: what a role does could not be told of, so it does not begin.
    """
    reading = Reading.of(source)
    forbid_core_dumps()
    if role == "all" or (supervisor is None and len(processes_of(reading.config, role)) > 1):
        return _supervise(reading, wishes, without, role)
    tune_malloc()
    forget_variables(foreign_variables(reading.config, role))
    audit = AuditLog(places(reading.config).audit(role))
    wishes.on_signals()  # before anybody can see that the role is there
    digest = source.digest
    audited(audit, events.CONFIGURATION_LOADED, "success", role=role, configuration_sha256=digest)
    runner = RoleRunner(role, reading, audit, PARTS[role](reading.config, audit))
    runner.start()
    leave_alone_what_is_there()
    audited(audit, events.SERVICE_START, "success", role=role)
    log.info("ready", role=role, **runner.ports())
    try:
        _work(runner, audit, wishes, supervisor)
    except StartAnew:
        _give_back(runner)
        raise GatewayError(
            "reload-broken", "a reload broke off half way", "see the log; the role starts anew"
        ) from None
    runner.stop()
    audited(audit, events.SERVICE_STOP, "success", role=role)
    return 0


def _give_back(runner: RoleRunner) -> None:
    """End what can still be ended: what is at hand is given back, and its instances are not suspected."""
    try:
        runner.stop()
    except Exception as error:
        log.error("it did not end in order", fault=fault(error))


def source_of(file: Path, supervisor: Link | None) -> Source:
    """The configuration that the supervisor hands over at the start, else the file as it is now.

    Raises
    ------
    InvalidConfigError
        The file cannot be read.
    """
    if supervisor is None:
        return Source.read(file)
    message = supervisor.receive(60.0)
    if message is None:
        raise GatewayError("no-supervisor", "the supervisor hands no configuration over", "start the gateway anew")
    return Source.of_texts(message["texts"])


def _supervise(reading: Reading, wishes: Wishes, without: Collection[str], of: Role) -> int:
    config = reading.config
    supervisor = Supervisor(reading.source.file, environments(config, of, without), source=reading.source)
    audit = AuditLog(places(config).audit(SUPERVISOR if of == "all" else of))
    whole = Whole(reading, supervisor, audit, of)
    desk = Desk(whole, audit)
    with ExitStack() as open_ones:
        _listen(open_ones, whole.role, lambda: whole.reading, wishes)
        code = supervisor.run(wishes, desk.do)
    return code or (CANNOT_START if without and whole.reading is reading else 0)


def _listen(open_ones: ExitStack, role: str, in_force: Callable[[], Reading], wishes: Wishes) -> None:
    """Take an operator's requests, and see changed files."""
    control = ControlSocket(in_force().config, role, lambda link, message: wishes.put(_heard(link, message)))
    open_ones.callback(control.close)
    open_ones.callback(Watcher(in_force, wishes).close)


def _heard(link: Link, message: dict | None) -> Wish:
    return Wish("message", link=link, message=message)


def _work(runner: RoleRunner, audit: AuditLog, wishes: Wishes, supervisor: Link | None) -> None:
    """Do what is wished until the end is; a supervised role also ends when its supervisor is gone."""
    desk = Desk(runner, audit, supervisor)
    parent = int(os.environ.get(PARENT, "0"))
    with ExitStack() as open_ones:
        if supervisor is None:
            _listen(open_ones, runner.role, lambda: runner.reading, wishes)
        else:
            supervisor.listen(lambda link, message: wishes.put(_heard(link, message)))
        while True:
            wish = wishes.get(0.5)
            if wish is not None and wish.kind == "stop":
                return
            if wish is not None and wish.kind == "reload" and supervisor is not None:
                os.kill(parent, signal.SIGHUP)  # all roles swap together, or none does
            elif wish is not None:
                desk.do(wish)
            if parent and os.getppid() != parent:
                log.error("supervisor is gone")
                return
