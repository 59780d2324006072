"""Leases: which process works on a row, and what follows when that process has died.

A claim names its process and a time until which it holds; the process renews it. A lease that its process did not end
by a change of state is a *death*: the process was killed, or crashed, in the middle of the step. What it was at work on
is suspected, and from then on done alone, so that the next death, if there is one, has one cause.
"""

from __future__ import annotations

import os
import platform
import secrets
import time

from sqlalchemy import ColumnElement, Engine, select, update
from sqlalchemy.orm import Session

from gateway.database import DeliveryRow, InstanceRow, changed, transaction

Leased = type[InstanceRow] | type[DeliveryRow]


_of_this_process: set[str] = set()


class LeaseLost(Exception):
    """Another worker has taken this work over; whoever sees this drops what it did."""


def lease_owner() -> str:
    """A name for this process that another process on this host can check for life."""
    owner = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
    _of_this_process.add(owner)
    return owner


class Leases:
    """What the tables of work have in common."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self.owner = owner

    def free_dead_leases(self) -> int:
        """Free the leases of processes of this host that are gone, so that work resumes at once after a crash.

        Each of the rows counts one death.
        """
        freed = 0
        with transaction(self._engine) as session:
            for table in (InstanceRow, DeliveryRow):
                owners = session.scalars(select(table.lease_owner).where(table.lease_owner.is_not(None)).distinct())
                dead = [owner for owner in owners if owner and owner != self.owner and is_dead(owner)]
                if dead:
                    freed += changed(
                        session,
                        update(table)
                        .where(table.lease_owner.in_(dead))
                        .values(lease_owner=None, lease_until=0.0, deaths=table.deaths + 1),
                    )
        return freed

    def end_leases(self) -> int:
        """End this process's own leases, when it stops in order: what it did not finish is no death."""
        ended = 0
        with transaction(self._engine) as session:
            for table in (InstanceRow, DeliveryRow):
                own = update(table).where(table.lease_owner == self.owner)
                ended += changed(session, own.values(lease_owner=None, lease_until=0.0))
        return ended

    def _end_overdue(self, session: Session, table: Leased, now: float, *where: ColumnElement[bool]) -> None:
        """Free the leases that ran out; each of a process that is not known to live counts one death."""
        overdue = (table.lease_owner.is_not(None), table.lease_until <= now, *where)
        owners = session.scalars(select(table.lease_owner).where(*overdue).distinct()).all()
        for owner in owners:
            death = int(owner is not None and not _is_alive(owner))
            session.execute(
                update(table)
                .where(*overdue, table.lease_owner == owner)
                .values(lease_owner=None, lease_until=0.0, deaths=table.deaths + death)
            )

    def _lease(self, row: InstanceRow | DeliveryRow, lease_s: float) -> None:
        """Take a row: the attempt counts now, also when nobody lives to tell how it went."""
        row.lease_owner, row.lease_until = self.owner, time.time() + lease_s
        row.attempts += 1


def is_dead(owner: str) -> bool:
    """Whether the process is of this host and gone."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != platform.node():
        return False  # another machine's: its lease runs out by itself
    if int(pid) == os.getpid():
        return True  # a predecessor that had our number
    return not _is_running(int(pid))


def _is_alive(owner: str) -> bool:
    """Whether the process is of this host and runs: it was slow, or the database was away for it."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != platform.node():
        return False
    return owner in _of_this_process if int(pid) == os.getpid() else _is_running(int(pid))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
