"""What is to be known of the object store that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from gateway.config.duties import Role, speaks_to_store
from gateway.config.finding import Finding
from gateway.config.models import Config
from gateway.errors import ConfigError


def store_findings(config: Config, role: Role) -> Iterator[Finding]:
    """A way to it that others could listen in on or answer instead of it; and what durability ``cluster`` misses."""
    yield from _cluster_findings(config)
    store = config.store
    if store is None or not speaks_to_store(config, role):
        return
    if store.is_plain and not store.is_local:
        message = f"whoever stands on the way to {store.endpoint} can answer in its place"
        hint = "speak to it over https; originals are sealed either way"
        yield Finding("warning", ("store", "endpoint"), message, hint)
    if store.trust is not None and not store.trust.is_file():
        yield Finding("error", ("store", "trust"), f"cannot find {store.trust}", "name a PEM file of its authority")


def _cluster_findings(config: Config) -> Iterator[Finding]:
    """A database behind a reference that is no PostgreSQL; one written out, the configuration itself refuses."""
    if config.durability == "disk":
        return
    with suppress(ConfigError):  # a reference that cannot be resolved is told of where it stands
        if not config.database_url.startswith("postgresql"):
            message = "durability is cluster, and this names no PostgreSQL: rows would lie on one machine"
            yield Finding("error", ("database", "url"), message, "name a PostgreSQL server with a synchronous standby")
