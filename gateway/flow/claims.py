"""Claims, many rows each: what a process took at once stands in one narrow row, beside the leases in the wide ones.

A lease lies in the row that it is of, in columns that no index holds: so taking, renewing and ending it changes no
index. Which leases may have run out, and which are a dead process's, is therefore asked of the claims. A claim goes
when its process has ended all of its leases, with that process's next claim; until then it may name rows that are long
done, which harms nothing: the lease in the row decides.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from gateway.database import ClaimRow, DeliveryRow, InstanceRow, changed
from gateway.flow.states import to

Leased = type[InstanceRow] | type[DeliveryRow]
RowId = str | int  # of an instance, or of a delivery

AT_ONCE = 100  # claims looked at in one transaction


def kind_of(table: Leased, of: str) -> str:
    """What a claim says that it took: instances in a state, or deliveries to a destination."""
    return of if table is InstanceRow else to(of)


class Claims:
    """The claims of this process of which leases are left; safe for any number of threads.

    A lease is named by its row and its token: a row whose step has just been settled may be claimed for the next one
    before the thread that settled it says so here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, set[RowId]] = {}
        self._claim_of: dict[RowId, tuple[str, int]] = {}
        self._finished: list[str] = []

    def took(self, claim: str, leases: Iterable[tuple[RowId, int]]) -> None:
        """These rows were taken by one claim; by whatever else they were, that is over."""
        with self._lock:
            for row, token in leases:
                self._end(row)
                self._claim_of[row] = claim, token
                self._left.setdefault(claim, set()).add(row)

    def ended(self, leases: Iterable[tuple[RowId, int]]) -> None:
        """These leases were ended, or are lost."""
        with self._lock:
            for row, token in leases:
                if row in self._claim_of and self._claim_of[row][1] == token:
                    self._end(row)

    def finished(self) -> list[str]:
        """Claims of which no lease is left, which nobody needs any more."""
        with self._lock:
            return list(self._finished)

    def forget(self, claims: Collection[str]) -> None:
        """These stand in the database no more."""
        with self._lock:
            self._finished = [claim for claim in self._finished if claim not in set(claims)]

    def _end(self, row: RowId) -> None:
        if row not in self._claim_of:
            return
        claim, _ = self._claim_of.pop(row)
        left = self._left[claim]
        left.discard(row)
        if not left:
            del self._left[claim]
            self._finished.append(claim)


def rows_of(claims: Iterable[ClaimRow]) -> list[RowId]:
    """What the claims took."""
    return [row for claim in claims for row in claim.taken]


def free(
    session: Session,
    table: Leased,
    owner: str,
    rows: Collection[RowId],
    deaths: ColumnElement[int] | InstrumentedAttribute[int],
    *where: ColumnElement[bool],
) -> int:
    """End the owner's leases of these rows; returns how many there were. What somebody changes at this moment stays."""
    mine = select(table.id).where(table.id.in_(rows), table.lease_owner == owner, *where)
    picked = session.scalars(mine.order_by(table.id).with_for_update(skip_locked=True)).all()
    return changed(
        session,
        update(table)
        .where(table.id.in_(picked))
        .values(lease_owner=None, lease_until=0.0, deaths=deaths)
        .execution_options(synchronize_session=False),
    )


def tidy(session: Session, table: Leased, claims: Iterable[ClaimRow], again_at: float) -> None:
    """Delete claims of which no lease is left; the others run as long as the last of theirs, to `again_at` at least."""
    for claim in sorted(claims, key=lambda one: one.id):  # in one order everywhere
        left = select(func.count(), func.max(table.lease_until)).where(
            table.id.in_(claim.taken), table.lease_owner == claim.owner
        )
        count, until = session.execute(left).one()
        this = ClaimRow.id == claim.id
        if count:
            session.execute(update(ClaimRow).where(this).values(until=max(until, again_at)))
        else:
            session.execute(delete(ClaimRow).where(this))
