"""Leases: which process works on a row, and what follows when that process has died.

A claim names its process and a time until which it holds; the process renews it. Each claim raises the row's *fencing
token*, and every later write names owner and token: a worker that was cut off, or stood still, while its lease ran out
changes nothing when it comes back, not even when that same worker has claimed the row again.

A lease that its process did not end by a change of state is a *death*: the process was killed, or crashed, in the
middle of the step. What it was at work on is suspected, and from then on done alone, so that the next death, if there
is one, has one cause.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Engine,
    Float,
    Select,
    String,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from gateway.database import (
    Alone,
    ClaimRow,
    DeliveryRow,
    InstanceRow,
    Wakes,
    at_once,
    not_lasting,
    reading,
    transaction,
)
from gateway.errors import fault
from gateway.flow.claims import AT_ONCE, Claims, Leased, RowId, free, kind_of, rows_of, tidy
from gateway.flow.faults import Repeated
from gateway.flow.states import QUEUED, to

SWEEP_S = 600.0  # between two looks at all that waits, for leases that no claim names: of releases before claims
SWEPT_AT_ONCE = 1000
OVERDUE_S = 1.0  # between two looks for leases that ran out, while there is enough to take without

_of_this_process: set[str] = set()
# Of attempts and deaths: a row that says it has all that its column can hold must not end the statement for the others.
_MOST_COUNTED = 1_000_000
_HIGHEST_TOKEN = 1 << 62  # the same; from there it begins anew
_REPLACE = insert(ClaimRow).prefix_with("OR REPLACE")
log = structlog.get_logger(__name__)
_PID_DIGITS = 7  # Linux counts to 4,194,304 (proc(5), pid_max)


class LeaseLost(Exception):
    """Another worker has taken this work over; whoever sees this drops what it did."""


def lease_owner() -> str:
    """A name for this process that another process that sees the same processes can check for life."""
    owner = f"{_here()}:{os.getpid()}:{secrets.token_hex(4)}"
    _of_this_process.add(owner)
    return owner


class Leases:
    """What the tables of work have in common."""

    def __init__(self, engine: Engine, owner: str, wakes: Wakes | None = None) -> None:
        self._engine = engine
        self.owner = owner
        self.wakes = wakes or Wakes()
        self.alone = Alone(engine)
        self._looked: dict[tuple[Leased, str], float] = {}  # when leases that ran out were looked for
        self._swept: dict[tuple[Leased, str], float] = {}  # when those that no claim names were looked for
        self._claims = Claims()
        self._failing = Repeated()

    def _apart(self, error: Exception) -> None:
        """Tell of a batch that could only be settled one by one: that goes on rightly, slowly, and else unseen."""
        why = fault(error)
        if count := self._failing.again("batch", why):
            log.warning("a batch was settled one by one: its statement failed", fault=why, failures=count)

    def free_dead_leases(self) -> int:
        """Free the leases of processes of this host that are gone, so that work resumes at once after a crash.

        Each of the rows counts one death.
        """
        with reading(self._engine) as session:
            owners = session.scalars(select(ClaimRow.owner).distinct()).all()
        return sum(self._free_all_of(owner, died=True) for owner in owners if owner != self.owner and is_dead(owner))

    def end_leases(self) -> int:
        """End this process's own leases, when it stops in order: what it did not finish is no death."""
        return self._free_all_of(self.owner, died=False)

    def _free_all_of(self, owner: str, died: bool) -> int:
        freed, behind = 0, ""
        while True:
            with transaction(self._engine) as session:
                some = select(ClaimRow).where(ClaimRow.owner == owner, ClaimRow.id > behind)
                claims = session.scalars(some.order_by(ClaimRow.id).limit(AT_ONCE)).all()
                if not claims:
                    return freed
                behind = claims[-1].id
                for table in (InstanceRow, DeliveryRow):
                    own = [claim for claim in claims if claim.kind.startswith(to("")) == (table is DeliveryRow)]
                    if own:
                        deaths = _one_more(table) if died else table.deaths
                        freed += free(session, table, owner, rows_of(own), deaths)
                        tidy(session, table, own, time.time() + OVERDUE_S)

    def _end_overdue(self, table: Leased, of: str) -> int:
        """Free the leases that ran out; each of a process that is not known to live counts one death.

        Parameters
        ----------
        of
            Instances in this state, or deliveries to this destination.
        """
        now = time.time()
        ran_out = (table.lease_until <= now, _kind_of(table) == of)
        with reading(self._engine) as session:
            due = select(ClaimRow.id).where(ClaimRow.kind == kind_of(table, of), ClaimRow.until <= now)
            claims = session.scalars(due.order_by(ClaimRow.until).limit(AT_ONCE)).all()
            stray: Sequence[Any] = ()
            if time.monotonic() - self._swept.get((table, of), -SWEEP_S) >= SWEEP_S:
                waiting = (DeliveryRow.state == QUEUED,) if table is DeliveryRow else ()
                left = select(table.id, table.lease_owner).where(*ran_out, *waiting, table.lease_owner.is_not(None))
                stray = session.execute(left.limit(SWEPT_AT_ONCE)).all()
                if len(stray) < SWEPT_AT_ONCE:
                    self._swept[table, of] = time.monotonic()
        freed = self._free_overdue(table, claims, stray, ran_out) if claims or stray else 0
        self._looked[table, of] = time.monotonic()
        return freed

    def _free_overdue(
        self,
        table: Leased,
        claims: Sequence[str],
        stray: Sequence[Any],
        ran_out: Sequence[ColumnElement[bool]],
    ) -> int:
        with transaction(self._engine) as session:
            freed, rows = 0, defaultdict[str, set[RowId]](set)
            found = session.scalars(select(ClaimRow).where(ClaimRow.id.in_(claims))).all()
            for claim in found:
                rows[claim.owner] |= set(claim.taken)
            for row, owner in stray:
                rows[owner].add(row)
            for owner, theirs in sorted(rows.items()):
                deaths = table.deaths if _is_alive(owner) else _one_more(table)
                freed += free(session, table, owner, theirs, deaths, *ran_out)
            tidy(session, table, found, time.time() + OVERDUE_S)
        return freed

    def _take(self, table: Leased, of: str, statements: Mapping[str, Any], limit: int, lease_s: float) -> list[Any]:
        """Take up to `limit` rows by a statement that `taking` made; as they are then, in no order.

        When there are fewer, or when it was a while ago, leases that ran out are freed, and then taken as well.
        """
        taken: list[Any] = []
        while True:
            taken += self._take_once(table, of, statements, limit, lease_s)
            is_full = len(taken) >= limit
            if is_full and time.monotonic() - self._looked.get((table, of), 0.0) < OVERDUE_S:
                return taken
            if not self._end_overdue(table, of) or taken:
                return taken

    def _take_once(
        self, table: Leased, of: str, statements: Mapping[str, Any], limit: int, lease_s: float
    ) -> Sequence[Any]:
        """What is free now, and the claim that says who took it; those that are finished go."""
        finished, now = self._claims.finished(), time.time()
        given = {"kind": of, "limit": limit, "now": now, "owner": self.owner, "until": now + lease_s}
        claim, named = secrets.token_hex(16), kind_of(table, of)
        with at_once(self._engine, lasting=False) as connection:
            if connection.dialect.name == "postgresql":
                noted = {"claim": claim, "claims": named, "finished": finished}
                rows = connection.execute(statements["postgresql"], given | noted).all()
            elif rows := connection.execute(statements["sqlite"], given).all():
                claim, *others = finished or [claim]  # what is finished makes room: one statement, not two
                taken = {"id": claim, "kind": named, "owner": self.owner, "until": now + lease_s}
                connection.execute(_REPLACE, taken | {"taken": [row.id for row in rows]})
                if others:
                    connection.execute(delete(ClaimRow).where(ClaimRow.id.in_(others)))
            else:
                return rows
        self._claims.forget(finished)
        self._claims.took(claim, [(row.id, row.lease_token) for row in rows])
        return rows

    def _over(self, failed: Sequence[Exception | None], leases: Sequence[tuple[RowId, int]]) -> None:
        """Those that did not fail have no lease any more, nor those whose lease was lost."""
        self._claims.ended(
            lease for lease, error in zip(leases, failed, strict=True) if error is None or isinstance(error, LeaseLost)
        )

    def _renew(self, table: Leased, rows: Sequence[InstanceRow] | Sequence[DeliveryRow], lease_s: float) -> None:
        """Keep the leases of those rows that are still this claim's."""
        with transaction(self._engine) as session:
            session.execute(
                update(table)
                .where(
                    tuple_(table.id, table.lease_token).in_([(row.id, row.lease_token) for row in rows]),
                    table.lease_owner == self.owner,
                )
                .values(lease_until=time.time() + lease_s)
                .execution_options(synchronize_session=False)
            )


def taking(table: Leased, picked: Select, of: Leased | None = None) -> dict[str, Update | Select]:
    """The statement that takes the rows whose ids `picked` gives, for each kind of database.

    The attempt counts now, also when nobody lives to tell how it went. The token is raised: whoever had the row before
    changes it no more, though it bear the same owner's name. What it takes are values, which nothing tracks.

    Nobody waits for the disk: a claim that a power cut undoes is a row that nobody works on, and what its worker did
    meanwhile does not count, by the owner's name (one thread of a process takes rows of a kind, one batch at a time).
    """
    taken = picked.with_for_update(skip_locked=True, of=of).cte("picked")
    rows = table.__table__
    statement = (
        update(rows)  # type: ignore[arg-type]
        .where(rows.c.id.in_(select(taken.c.id)))
        .values(
            lease_owner=bindparam("owner"),
            lease_until=bindparam("until"),
            lease_token=_one_more_token(table),
            attempts=case((table.attempts < _MOST_COUNTED, table.attempts + 1), else_=_MOST_COUNTED + 1),
        )
        .returning(*rows.c)
    )
    return {"sqlite": statement, "postgresql": _with_claim(statement.cte("taken"))}


def _with_claim(taken: CTE) -> Select:
    """The same with its claim and without those that are finished, in one round trip of PostgreSQL."""
    values = (
        bindparam("claim", type_=String),
        bindparam("claims", type_=String),
        bindparam("owner", type_=String),
        bindparam("until", type_=Float),
        func.json_agg(taken.c.id),
    )
    noted = insert(ClaimRow).from_select(
        ["id", "kind", "owner", "until", "taken"], select(*values).select_from(taken).having(func.count() > 0)
    )
    gone = delete(ClaimRow).where(ClaimRow.id == func.any(bindparam("finished", type_=ARRAY(String))))
    return select(taken, not_lasting()).add_cte(noted.cte("noted"), gone.cte("gone"))


def is_due(table: Leased) -> tuple[ColumnElement[bool], ...]:
    """That nobody works on a row, and its turn has come at the bind parameter `now`."""
    return table.next_attempt_at <= bindparam("now", type_=Float), table.lease_owner.is_(None)


def _kind_of(table: Leased) -> InstrumentedAttribute[str]:
    return InstanceRow.state if table is InstanceRow else DeliveryRow.destination


def _one_more_token(table: Leased) -> ColumnElement[int]:
    within = and_(table.lease_token >= 0, table.lease_token < _HIGHEST_TOKEN)
    return case((within, table.lease_token + 1), else_=1)


def _one_more(table: Leased) -> ColumnElement[int]:
    """Deaths, and this one."""
    return case((table.deaths < _MOST_COUNTED, table.deaths + 1), else_=table.deaths)


def is_dead(owner: str) -> bool:
    """Whether the process is of this host and gone."""
    pid = _pid_here(owner)
    if pid is None:
        return False  # another machine's: its lease runs out by itself
    if pid == os.getpid():
        return True  # a predecessor that had our number
    return not _is_running(pid)


def _is_alive(owner: str) -> bool:
    """Whether the process is of this host and runs: it was slow, or the database was away for it."""
    pid = _pid_here(owner)
    if pid is None:
        return False
    return owner in _of_this_process if pid == os.getpid() else _is_running(pid)


@cache
def _here() -> str:
    """Where a process's number means that process: this boot of this machine, and this process name space of it.

    A host's name alone is not that: machines are cloned, and containers share names and count from 1 each.
    """
    seen = [platform.node()]
    for read in (Path("/proc/sys/kernel/random/boot_id").read_text, partial(os.readlink, "/proc/self/ns/pid")):
        with suppress(OSError):
            seen.append(read().strip())
    return f"{platform.node()[:24]}.{hashlib.sha256(' '.join(seen).encode()).hexdigest()[:12]}"


def _pid_here(owner: str) -> int | None:
    """The process's number when it is of this host. The name comes out of a row, which other roles may write too."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != _here() or not (rest.isascii() and rest.isdigit()):
        return None
    pid = int(rest) if len(rest) <= _PID_DIGITS else 0
    return pid or None  # 0 is no process: kill(2) takes it for all of this group


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
