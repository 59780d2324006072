"""The supervisor's side of a reload: all roles swap, or none does."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import structlog

from gateway.audit import AuditLog
from gateway.config import Config, Source
from gateway.config.duties import Role, foreign_variables, processes_of, roles_to_start
from gateway.log import set_up_logging
from gateway.service.control import SUPERVISOR
from gateway.service.reading import Reading
from gateway.service.reload import audit_success, checked
from gateway.service.supervisor import Supervisor

log = structlog.get_logger(__name__)


class Whole:
    """All processes under one supervisor (`gateway.service.reload.Reloadable`).

    Parameters
    ----------
    of
        Of all roles, or of one that has several processes.
    """

    def __init__(self, reading: Reading, supervisor: Supervisor, audit: AuditLog, of: Role = "all") -> None:
        self.role = SUPERVISOR if of == "all" else of
        self._of = of
        self._reading = reading
        self._supervisor = supervisor
        self._audit = audit
        self._ready: tuple[Reading, str] | None = None

    @property
    def reading(self) -> Reading:
        """The configuration in force."""
        return self._reading

    def prepare(self, source: Source | None, by: str) -> Reading:
        """Check the whole, then let every role prepare; see `Reloadable`."""
        self.drop()
        reading = Reading.of(source or self._reading.source.file)
        checked(reading, self._reading, self._of)
        self._ready = (reading, by)
        try:
            self._supervisor.prepare(reading.source, by)
        except BaseException:
            self.drop()
            raise
        return reading

    def commit(self) -> None:
        """Let every role swap; see `Reloadable`."""
        assert self._ready is not None
        reading, by = self._ready
        audit_success(reading, self.role, self._audit, by)
        self._ready, self._reading = None, reading
        self._supervisor.commit(reading.source, environments(reading.config, self._of))
        set_up_logging(self._of, reading.config.log.format, reading.config.log.level)
        log.info("configuration reloaded", by=by, configuration_sha256=reading.source.digest)

    def drop(self) -> None:
        """Let every role forget what it prepared."""
        if self._ready is not None:
            self._ready = None
            self._supervisor.drop()


def environments(config: Config, of: Role = "all", without: Collection[str] = ()) -> dict[str, Mapping[str, str]]:
    """The processes of each role that has something to do, with this environment less the secrets of other roles."""
    roles = [role for role in roles_to_start(config) if of in ("all", role) and role not in without]
    return {name: environment(config, role) for role in roles for name in processes_of(config, role)}


def environment(config: Config, role: Role) -> dict[str, str]:
    """This process's environment without the secrets of other roles."""
    foreign = foreign_variables(config, role)
    return {name: value for name, value in os.environ.items() if name not in foreign}
