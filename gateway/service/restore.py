"""Role restore: the vault to authorized workstations. It alone holds the private restore key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway.audit import AuditLog, events
from gateway.config import Config
from gateway.dicom.pixels.children.pool import Limits
from gateway.errors import ConfigError, IntegrityError, fault
from gateway.service.places import database, places
from gateway.service.wiring import build_restorer
from gateway.vault.places import LIST_RECOVERED

if TYPE_CHECKING:
    from gateway.network.retrieve import RestoreScp
    from gateway.network.retrieve.dicomweb import RestoreWeb
    from gateway.restore import RecordWatch, Restorer
    from gateway.restore.checks import PayloadChecks

WATCH_S = 60.0  # between two looks at new records
CHECKS_S = 1.0  # between two looks for originals that are to be opened and compared

log = structlog.get_logger(__name__)


class RestoreParts:
    """Builds what the role runs; what outlives a reload is held here."""

    def __init__(self, config: Config, audit: AuditLog) -> None:
        from gateway.network.admission import SharedCounts

        self._audit = audit
        self._engine = database(config)
        self._counts = SharedCounts(places(config).counts("restore"))

    def build(self, config: Config, before: RestorePart | None) -> RestorePart:
        """The SCP that gives originals back."""
        from gateway.network.retrieve import RestoreScp
        from gateway.restore.checks import PayloadChecks
        from gateway.vault.index import Index

        if config.restore is None:
            raise ConfigError(
                "no-restore", "the configuration has no [restore] table", "add one, or do not start the role"
            )
        audit, restorer = self._audit, build_restorer(config, self._engine)
        scp = RestoreScp(config.restore, Index(self._engine), restorer, audit, self._counts)
        audit.write(events.KEY_USED, "success", role="restore", operation="serve")
        if before is None:
            if restorer.begins_list():
                log.warning("the list of records is empty, but there are records: they are trusted as they are now")
                audit.write(events.RECORD_CHANGED, "failure", reason="list-begun")
            _tell_of_recovery(places(config).restore / LIST_RECOVERED, audit)
        web = self._web(config, restorer)
        scp.bind(before.scp if before else None)
        if web is not None:
            try:
                web.bind(before.web if before else None)
            except BaseException:
                scp.pause()
                raise
        checks = PayloadChecks(self._engine, restorer) if any(one.reports for one in config.ingress.peers) else None
        return RestorePart(scp, restorer.watch(), audit, checks, web)

    def _web(self, config: Config, restorer: Restorer) -> RestoreWeb | None:
        from gateway.network.retrieve.dicomweb import RestoreWeb
        from gateway.restore import Viewer
        from gateway.service.identity import bearer_of
        from gateway.vault.index import Index

        if config.restore is None or config.restore.dicomweb_port is None:
            return None
        viewer = Viewer(Limits.of(config.codecs))
        tokens = config.restore.tokens
        bearer = bearer_of(tokens) if tokens is not None else None
        return RestoreWeb(config.restore, Index(self._engine), restorer, self._audit, self._counts, viewer, bearer)


class RestorePart:
    """The ports, and the look at new records (`gateway.service.part`)."""

    def __init__(
        self,
        scp: RestoreScp,
        watch: RecordWatch,
        audit: AuditLog,
        checks: PayloadChecks | None = None,
        web: RestoreWeb | None = None,
    ) -> None:
        self.scp = scp
        self.web = web
        self._checks = checks
        self._watch = watch
        self._audit = audit
        self._stopping = threading.Event()

    def start(self) -> None:
        """Accept connections, and look at records."""
        self.scp.start()
        if self.web is not None:
            self.web.start()
        watching = (self._watch, self._audit, self._stopping)
        threading.Thread(target=_watch, args=watching, name="records", daemon=True).start()
        if self._checks is not None:
            checking = (self._checks, self._stopping)
            threading.Thread(target=_check, args=checking, name="checks", daemon=True).start()

    def pause(self) -> None:
        """Accept no more connections."""
        self._stopping.set()
        self.scp.pause()
        if self.web is not None:
            self.web.pause()

    def finish(self) -> None:
        """Let every association come to its end."""
        self.scp.finish()
        if self.web is not None:
            self.web.finish()

    def stop(self) -> None:
        """Give associations a few seconds."""
        self._stopping.set()
        if self.web is not None:
            self.web.stop()
        self.scp.stop()

    def discard(self) -> None:
        """Close the ports."""
        self.scp.pause()
        if self.web is not None:
            self.web.pause()


def _tell_of_recovery(marker: Path, audit: AuditLog) -> None:
    """Once after `vault recover`: the list is as old as the backup, and what it lacks is trusted at first sight."""
    if not marker.exists():
        return
    log.warning("the list of records came from a backup: records that it lacks are trusted as they are now")
    audit.write(events.RECORD_CHANGED, "failure", reason="list-recovered")
    marker.unlink()


def _watch(watch: RecordWatch, audit: AuditLog, stopping: threading.Event) -> None:
    """Note new records in the restore role's own list, and tell of those that changed; at once, and then regularly."""
    while True:
        try:
            _look(watch, audit)
        except Exception as error:  # the database or the audit's disk may be away for a while: go on when it is back
            log.error("records not looked at", fault=fault(error))
        if stopping.wait(WATCH_S):
            return


def _check(checks: PayloadChecks, stopping: threading.Event) -> None:
    """Open originals that archives want committed; after each round a pause, where there was nothing."""
    while not stopping.is_set():
        try:
            done = checks.once()
        except Exception as error:  # the database may be away for a while
            log.error("originals not looked at", fault=fault(error))
            done = 0
        if not done:
            stopping.wait(CHECKS_S)


def _look(watch: RecordWatch, audit: AuditLog) -> None:
    try:
        watch.once()
    except IntegrityError as error:
        log.error("a record is not what it was", reason=error.code, detail=error.message)
        audit.write(events.RECORD_CHANGED, "failure", reason=error.code)
