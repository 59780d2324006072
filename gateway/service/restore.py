"""Role restore: the vault to authorized workstations. It alone holds the private restore key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from gateway.audit import AuditLog, events
from gateway.config import Config
from gateway.errors import ConfigError, IntegrityError, fault
from gateway.service.places import database, places
from gateway.service.wiring import build_restorer

if TYPE_CHECKING:
    from gateway.restore import RecordWatch

WATCH_S = 60.0  # between two looks at new records

log = structlog.get_logger(__name__)


def start_restore(config: Config) -> Callable[[], None]:
    """Start the SCP that gives originals back; returns what stops it."""
    from gateway.network.admission import SharedCounts
    from gateway.network.retrieve import RestoreScp
    from gateway.vault.index import Index

    if config.restore is None:
        raise ConfigError("no-restore", "the configuration has no [restore] table", "add one, or do not start the role")
    where = places(config)
    audit, counts = AuditLog(where.audit("restore")), SharedCounts(where.counts("restore"))
    restorer = build_restorer(config)
    scp = RestoreScp(config.restore, Index(database(config)), restorer, audit, counts)
    audit.write(events.KEY_USED, "success", role="restore", operation="serve")
    if restorer.begins_list():
        log.warning("the list of records is empty, but there are records: they are trusted as they are now")
        audit.write(events.RECORD_CHANGED, "failure", reason="list-begun")
    scp.start()
    stopping = threading.Event()
    thread = threading.Thread(target=_watch, args=(restorer.watch(), audit, stopping), name="records", daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        scp.stop()

    return stop


def _watch(watch: RecordWatch, audit: AuditLog, stopping: threading.Event) -> None:
    """Note new records in the restore role's own list, and tell of those that changed; at once, and then regularly."""
    while True:
        try:
            _look(watch, audit)
        except Exception as error:  # the database or the audit's disk may be away for a while: go on when it is back
            log.error("records not looked at", fault=fault(error))
        if stopping.wait(WATCH_S):
            return


def _look(watch: RecordWatch, audit: AuditLog) -> None:
    try:
        watch.once()
    except IntegrityError as error:
        log.error("a record is not what it was", reason=error.code, detail=error.message)
        audit.write(events.RECORD_CHANGED, "failure", reason=error.code)
