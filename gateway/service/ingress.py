"""Role ingress: C-STORE SCP to spool. It holds the spool key and no other secret."""

from __future__ import annotations

from collections.abc import Callable

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.service.places import database, places


def start_ingress(config: Config) -> Callable[[], None]:
    """Start the SCP that faces the archive; returns what stops it."""
    from gateway.flow.receive import SpoolReceiver
    from gateway.flow.spool import Spool
    from gateway.flow.store import FlowStore, lease_owner
    from gateway.keys.keyring import load_spool_cipher
    from gateway.network.admission import SharedCounts
    from gateway.network.ingress import IngressScp

    if not config.routes:
        raise ConfigError("no-route", "the configuration has no [[routes]]: nothing could be received", "add one")
    where = places(config)
    spool = Spool(where.spool, load_spool_cipher(config.keys))
    store = FlowStore(database(config), lease_owner())
    receiver = SpoolReceiver(config.ingress, config.routes, spool, where.spool, store)
    audit, counts = AuditLog(where.audit("ingress")), SharedCounts(where.counts("ingress"))
    scp = IngressScp(config.ingress, config.routes, receiver, audit, counts=counts)
    scp.start()
    return scp.stop
