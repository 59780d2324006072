"""A reload: read, check, build beside what runs, swap whole. On any error the old configuration stays in force.

What is reloaded (`Reloadable`) prepares and then commits, so that a supervisor, or an operator's command, can let all
roles prepare before the first one swaps. `Desk` does what wishes ask for and tells of it in log and audit.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from gateway.audit import AuditLog, audited, events
from gateway.config import ConfigProblem, Finding, Source
from gateway.config.duties import Role
from gateway.config.explained import differences
from gateway.errors import GatewayError, fault
from gateway.network.presence import listeners
from gateway.preflight import preflight
from gateway.service.link import Link
from gateway.service.part import StartAnew
from gateway.service.reading import Reading, problems_of
from gateway.service.wishes import Wish

MOST_TOLD = 20  # problems of one reload in the audit

log = structlog.get_logger(__name__)


class Reloadable(Protocol):
    """Something that runs on a configuration and can take another one over."""

    @property
    def role(self) -> str:
        """For log and audit."""

    @property
    def reading(self) -> Reading:
        """The configuration in force."""

    def prepare(self, source: Source | None, by: str) -> Reading:
        """Check a configuration (None: the file as it is now) and build everything for it; nothing changes yet.

        Raises
        ------
        GatewayError
            It cannot be taken over; nothing is prepared then.
        """

    def commit(self) -> None:
        """Take over what was prepared; raises GatewayError when it cannot, and the old one stays in force."""

    def drop(self) -> None:
        """Forget what was prepared, if anything."""


def checked(reading: Reading, old: Reading, role: Role) -> list[Finding]:
    """What `config check` says of a configuration that is to follow another one, while that one runs.

    Raises
    ------
    InvalidConfigError
        ``needs-restart``, or ``check-failed`` with every error that would keep the role from starting.
    """
    reading.check_follows(old, role)
    # The role's own port on another address of this machine: whether that works is seen when it is bound.
    held = {port for _, _, port in listeners(old.config, role)}
    moved = {path for path, _, port in listeners(reading.config, role) if port in held}
    findings = [one for one in preflight(reading.config, role) if one.path not in moved or one.level == "warning"]
    errors = [one for one in findings if one.level == "error" and one.keeps_from_starting]
    reading.refuse("check-failed", map(reading.problem_of, errors))
    return findings


class Desk:
    """Does what is wished of one process; used by its main thread alone."""

    def __init__(self, one: Reloadable, audit: AuditLog, supervisor: Link | None = None) -> None:
        self._one = one
        self._audit = audit
        self._supervisor = supervisor
        self._owner: Link | None = None  # who prepared, and may commit

    def do(self, wish: Wish) -> None:
        """Do it: a reload, or what a message asks for."""
        if wish.kind == "reload":
            self._reload(wish.by)
        elif wish.link is not None:
            self._answer(wish.link, wish.message)

    def _reload(self, by: str) -> None:
        self._owner = None
        try:
            self._one.prepare(None, by)
            self._one.commit()
        except GatewayError as error:
            self._refused(error, by)
        except StartAnew:  # the old one has paused: nothing stays in force
            raise
        except Exception as error:
            self._refused(_unexpected(error), by)

    def _answer(self, link: Link, message: dict | None) -> None:
        if message is None:
            if link is self._owner:
                self._owner = None
                self._one.drop()
            link.close()
        elif message.get("do") == "prepare":
            self._prepare(link, message)
        elif message.get("do") == "commit":
            self._commit(link, message)
        elif message.get("do") == "compare":
            self._compare(link, message)
        elif link is self._owner:  # to drop it
            self._owner = None
            self._one.drop()

    def _prepare(self, link: Link, message: dict) -> None:
        by = str(message.get("by", "command"))
        source = None
        if link is self._supervisor:
            source = Source.of_texts(message["texts"])
        self._owner = None
        try:
            reading = self._one.prepare(source, by)
        except GatewayError as error:
            self._reply(link, message, self._refused(error, by))
        except Exception as error:
            self._reply(link, message, self._refused(_unexpected(error), by))
        else:
            self._owner = link
            self._reply(link, message, {"ok": True, "role": self._one.role, "digest": reading.source.digest})

    def _reply(self, link: Link, message: dict, answer: dict) -> None:
        """Answer a message by its number, if it has one."""
        link.send({**answer, "number": message.get("number")})

    def _compare(self, link: Link, message: dict) -> None:
        try:
            other = Source.of_texts(message["texts"]).parse()
        except GatewayError as error:
            self._reply(link, message, self._told(error))
            return
        rows = [vars(one) for one in differences(self._one.reading.config, other)]
        self._reply(link, message, {"ok": True, "role": self._one.role, "differences": rows})

    def _commit(self, link: Link, message: dict) -> None:
        if link is not self._owner:
            error = GatewayError("superseded", "another reload came in between", "reload again")
            self._reply(link, message, self._told(error))
            return
        self._owner = None
        try:
            self._one.commit()
        except GatewayError as error:
            self._reply(link, message, self._refused(error, "command"))
        else:
            digest = self._one.reading.source.digest
            self._reply(link, message, {"ok": True, "role": self._one.role, "digest": digest})

    def _refused(self, error: GatewayError, by: str) -> dict:
        """Tell of it in log and audit; returns the answer to who asked."""
        self._one.drop()
        tell_of_refusal(error, self._one.role, self._audit, by)
        return self._told(error)

    def _told(self, error: GatewayError) -> dict:
        problems = [vars(problem) for problem in problems_of(error)]
        return {"ok": False, "role": self._one.role, "code": error.code, "problems": problems}


def tell_of_refusal(error: GatewayError, role: str, audit: AuditLog, by: str) -> None:
    """Log and audit what kept a configuration from being taken over, problem by problem."""
    problems = problems_of(error)
    log.error("the configuration was not taken over: the old one stays in force", code=error.code, by=by)
    for problem in problems:
        log.error("configuration", code=error.code, says=str(problem))
    for problem in problems[:MOST_TOLD]:
        try:
            audit.write(
                events.CONFIGURATION_LOADED,
                "failure",
                role=role,
                operation=f"reload-{by}",
                reason=error.code,
                configuration_file=problem.file.rpartition("/")[2] or None,
                configuration_key=problem.path or None,
                configuration_line=problem.line,
            )
        except OSError as full:  # what is in force has not changed: it goes on
            log.error("the audit cannot be written", reason=full.strerror)
            return


def audit_success(reading: Reading, role: str, audit: AuditLog, by: str) -> None:
    """Audit that a configuration is taken over, before it is; CapacityError as `audited`."""
    digest = reading.source.digest
    audited(
        audit,
        events.CONFIGURATION_LOADED,
        "success",
        role=role,
        operation=f"reload-{by}",
        configuration_sha256=digest,
    )


def from_answer(answer: dict) -> list[ConfigProblem]:
    """The problems that an answer tells of."""
    return [ConfigProblem(**problem) for problem in answer.get("problems", [])]


def _unexpected(error: Exception) -> GatewayError:
    return GatewayError("reload-failed", f"it failed unexpectedly ({fault(error)})", "the log of the role may say more")
