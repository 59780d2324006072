"""Where one site's files and rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from gateway.config import Config
from gateway.database import open_database


@dataclass(frozen=True)
class Places:
    """Where one site's files lie, all below its state folder."""

    state: Path

    @property
    def spool(self) -> Path:
        """Received data sets, encrypted, until they are delivered."""
        return self.state / "spool"

    @property
    def derived(self) -> Path:
        """Derived data sets, encrypted, until their retention ends."""
        return self.state / "derived"

    @property
    def vault(self) -> Path:
        """Sealed originals."""
        return self.state / "vault"

    def audit(self, role: str) -> Path:
        """The audit log of one role."""
        return self.state / "audit" / f"{role}.jsonl"


def places(config: Config) -> Places:
    """The site's folders, made on first use (mode 0700)."""
    found = Places(config.site.state)
    for folder in (found.state, found.audit("x").parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def database(config: Config) -> Engine:
    """Open the configured database, or the embedded one in the state folder."""
    places(config)
    return open_database(config.database_url)
