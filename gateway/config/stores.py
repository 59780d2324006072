"""What is to be known of the object store that a configuration names."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.duties import Role
from gateway.config.finding import Finding
from gateway.config.models import Config


def store_findings(config: Config, role: Role) -> Iterator[Finding]:
    """A way to it that others could listen in on or answer instead of it."""
    store = config.store
    if store is None or role not in ("all", "worker", "restore"):
        return
    if store.is_plain and not store.is_local:
        message = f"whoever stands on the way to {store.endpoint} can answer in its place"
        hint = "speak to it over https; originals are sealed either way"
        yield Finding("warning", ("store", "endpoint"), message, hint)
    if store.trust is not None and not store.trust.is_file():
        yield Finding("error", ("store", "trust"), f"cannot find {store.trust}", "name a PEM file of its authority")
