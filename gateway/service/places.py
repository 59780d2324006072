"""Where one site's files and rows lie.

Two layouts. By default everything lies in a state folder of mode 0700 that one user has. Where each role has a user of
its own, root makes the folders beforehand (`deploy/systemd/`), each with its owner, group and mode: then `database/`,
`restore/` and `audit/ROLE/` are there, and are used. `gateway.config.duties` says which role writes which.

Promise 6 holds in both for the private key. What else separate users give: the worker cannot read or change the restore
role's own list and audit, and the restore role cannot write spool, derived files or vault. What they do not give: in
the embedded SQLite every role that writes can forge any row. Records are signed, so that a forged original is refused;
the queue and the query index are not. PostgreSQL has grants per role.
"""

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

    @property
    def viewer(self) -> Path:
        """The sockets on which workers of this machine show pictures to the page; no file."""
        return self.state / "viewer"

    @property
    def restore(self) -> Path:
        """What the restore role alone writes, and no other role reads where users are separate."""
        return self.state / "restore"

    def audit(self, role: str) -> Path:
        """The audit log of one role."""
        folder = self.state / "audit"
        own = folder / role  # made where each role has a user of its own
        return (own if own.is_dir() else folder) / f"{role}.jsonl"

    def counts(self, role: str) -> Path:
        """Where the processes of one role on this machine count connections and associations together.

        Beside the role's audit, since that folder is the role's own in both layouts; nothing in it outlives a process.
        """
        return self.audit(role).with_suffix(".counts")


def places(config: Config) -> Places:
    """The site's folders, made on first use (mode 0700); what is there stays as it is."""
    found = Places(config.site.state)
    for folder in (found.state, found.state / "audit"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def page_database(config: Config) -> Engine:
    """The same database under the page's own account, where it has one."""
    places(config)
    return open_database(config.page_database_url, synchronous=config.durability == "cluster")


def database(config: Config) -> Engine:
    """Open the configured database, or the embedded one in the state folder."""
    places(config)
    return open_database(config.database_url, synchronous=config.durability == "cluster")
