"""Role restore: the vault to authorized workstations. It alone holds the private restore key."""

from __future__ import annotations

from collections.abc import Callable

from gateway.audit import AuditLog, events
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.service.places import database, places
from gateway.service.wiring import build_restorer


def start_restore(config: Config) -> Callable[[], None]:
    """Start the SCP that gives originals back; returns what stops it."""
    from gateway.network.admission import SharedCounts
    from gateway.network.retrieve import RestoreScp
    from gateway.vault.index import Index

    if config.restore is None:
        raise ConfigError("no-restore", "the configuration has no [restore] table", "add one, or do not start the role")
    where = places(config)
    audit, counts = AuditLog(where.audit("restore")), SharedCounts(where.counts("restore"))
    scp = RestoreScp(config.restore, Index(database(config)), build_restorer(config), audit, counts)
    audit.write(events.KEY_USED, "success", role="restore", operation="serve")
    scp.start()
    return scp.stop
