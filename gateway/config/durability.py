"""What has to be safe before the archive hears success: this machine's disk, or the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gateway.config.base import Problem
from gateway.config.secret import SecretRef
from gateway.config.store import Store

Durability = Literal["disk", "cluster"]
"""``disk``: flushed to the disk of the machine that received it. ``cluster``: in the object store, and its row in
PostgreSQL and a synchronous standby, so that any machine may be lost with its disk."""


def durability_problems(durability: Durability, url: str | SecretRef, store: Store | None) -> Iterator[Problem]:
    """What ``cluster`` wants and does not have; a URL behind a reference is looked at where it is resolved."""
    if durability == "disk":
        return
    here = ("durability",)
    if store is None:
        yield here, "cluster keeps what is received in an object store: there is no [store] table"
    if not isinstance(url, SecretRef) and not url.startswith("postgresql"):
        yield here, "cluster keeps rows in PostgreSQL with a synchronous standby: [database] url names none"
