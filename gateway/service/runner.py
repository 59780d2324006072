"""One role while it runs: the part that is at work, the parts that are ending, and the one that may follow."""

from __future__ import annotations

import threading
from typing import Any, Protocol

import structlog

from gateway.audit import AuditLog
from gateway.config import Config, ConfigProblem, Finding, InvalidConfigError, Source
from gateway.config.duties import Role
from gateway.errors import ConfigError, fault
from gateway.log import set_up_logging
from gateway.network.presence import Presence, listeners
from gateway.service.part import Part, StartAnew
from gateway.service.reading import Reading
from gateway.service.reload import audit_success, checked
from gateway.service.tracing import end_tracing, set_up_tracing

log = structlog.get_logger(__name__)


class Parts(Protocol):
    """Builds the parts of one role, one after the other."""

    def build(self, config: Config, before: Any) -> Part:
        """Open everything; `before` is the part at work, None at the start of the process."""


class RoleRunner:
    """Runs a role and swaps its configuration (`gateway.service.reload.Reloadable`)."""

    def __init__(self, role: Role, reading: Reading, audit: AuditLog, parts: Parts) -> None:
        self._role = role
        self._reading = reading
        self._audit = audit
        self._parts = parts
        self._part = parts.build(reading.config, None)
        self._ending: list[tuple[Part, threading.Thread]] = []
        self._ready: tuple[Reading, Part, list[Finding], str] | None = None
        self._told: set[Finding] = set()
        self._presence = Presence()

    @property
    def role(self) -> str:
        """Its name."""
        return self._role

    @property
    def reading(self) -> Reading:
        """The configuration in force."""
        return self._reading

    def start(self) -> None:
        """Begin to work."""
        set_up_tracing(self._reading.config, self._role)
        self._part.start()
        self._presence.hold(self._reading.config, self._role)

    def ports(self) -> dict[str, list[str]]:
        """For the log: what is listened on."""
        ports = [f"{host}:{port}" for _, host, port in listeners(self._reading.config, self._role)]
        return {"listens_on": ports} if ports else {}

    def prepare(self, source: Source | None, by: str) -> Reading:
        """Check, and build the part that may follow; see `Reloadable`."""
        self.drop()
        reading = Reading.of(source or self._reading.source.file)
        findings = checked(reading, self._reading, self._role)
        try:
            part = self._parts.build(reading.config, self._part)
        except InvalidConfigError:
            raise
        except ConfigError as error:
            problem = ConfigProblem("", None, error.message, error.hint)
            raise InvalidConfigError(error.code, reading.source.file, [problem]) from None
        self._ready = (reading, part, findings, by)
        return reading

    def commit(self) -> None:
        """Swap.

        Raises
        ------
        CapacityError
            ``audit-full``: nothing was swapped.
        StartAnew
            The old part was to pause, and the new one does not work.
        """
        assert self._ready is not None
        reading, part, findings, by = self._ready
        audit_success(reading, self._role, self._audit, by)
        self._ready = None
        traces = self._reading.config.traces
        old, self._part, self._reading = self._part, part, reading
        try:
            try:
                old.pause()
                part.start()
            finally:
                self._let_end(old)
            self._presence.hold(reading.config, self._role)
            set_up_logging(self._role, reading.config.log.format, reading.config.log.level)
            if reading.config.traces != traces:
                set_up_tracing(reading.config, self._role)
        except Exception as error:  # nobody can tell what works now, but a process that begins anew
            log.error("the new configuration did not begin to work: this role starts anew", fault=fault(error))
            raise StartAnew from error
        log.info("configuration reloaded", by=by, configuration_sha256=reading.source.digest, **self.ports())
        self._tell(findings)

    def drop(self) -> None:
        """Close what was prepared, if anything."""
        if self._ready is not None:
            _, part, _, _ = self._ready
            self._ready = None
            part.discard()

    def stop(self) -> None:
        """End in order, with all that is still ending."""
        self.drop()
        older = [(part, threading.Thread(target=part.stop, daemon=True)) for part, _ in self._ending]
        for _, thread in older:
            thread.start()
        try:
            self._part.stop()
        finally:
            for _, thread in older:
                thread.join(40)
            self._presence.close()
            end_tracing()

    def _let_end(self, part: Part) -> None:
        def end() -> None:
            try:
                part.finish()
            except Exception as error:
                log.error("the old configuration did not end in order", fault=fault(error))

        thread = threading.Thread(target=end, name="ending", daemon=True)
        self._ending = [(part, thread) for part, thread in self._ending if thread.is_alive()]
        self._ending.append((part, thread))
        thread.start()

    def _tell(self, findings: list[Finding]) -> None:
        """Of bold choices that were not told of before."""
        for finding in findings:
            if finding not in self._told:
                tell = log.error if finding.level == "error" else log.warning
                tell("configuration", where=finding.where, says=finding.message, hint=finding.hint)
        self._told = set(findings)
