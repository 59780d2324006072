"""What happens to instances, as database transactions: claims with leases, and changes of state, many at a time.

Every change names owner and token of its lease and does nothing when the lease has passed to someone else
(`LeaseLost`), so a step that was slow, or repeated after a crash, can never undo what its successor did.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, Update, bindparam, case, func, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.database import InstanceRow, ReportRow, at_once, reading, transaction, update_each
from gateway.flow.arrivals import Arrivals
from gateway.flow.changes import Change, Tell, Telling, settle_apart
from gateway.flow.deliveries import DeliveryTable, Wanted, queue_all, queue_deliveries, untold
from gateway.flow.keeping import KeptFiles
from gateway.flow.leases import LeaseLost, is_due, lease_owner, taking
from gateway.flow.settling import groups, settle_group
from gateway.flow.states import DELIVERED, HELD, MARKED, QUEUED, RECEIVED, REPORT, SEALED, SENT, to

__all__ = [
    "DELIVERED",
    "HELD",
    "MARKED",
    "QUEUED",
    "RECEIVED",
    "REPORT",
    "SEALED",
    "SENT",
    "FlowStore",
    "LeaseLost",
    "lease_owner",
]


SUSPECTED = InstanceRow.deaths > 0
_FREE = {"lease_owner": None, "lease_until": 0.0}


@cache
def _claiming(state: str, suspects: bool = False, alike: bool = False) -> dict[str, Update | Select]:
    """The statement that claims instances in `state`; made once, since making it takes longer than running it."""
    # as a word of the statement: an index of one state alone is taken only where it says so
    due = (
        InstanceRow.state == literal(state, literal_execute=True),
        *is_due(InstanceRow),
        SUSPECTED if suspects else InstanceRow.deaths == 0,
    )
    order = (InstanceRow.deaths, InstanceRow.received_at) if suspects else (InstanceRow.received_at,)
    if alike:
        oldest = select(InstanceRow.batch_key).where(*due).order_by(*order).limit(1)
        key = oldest.with_for_update(skip_locked=True).cte("oldest")
        due = (*due, InstanceRow.batch_key == select(key.c.batch_key).scalar_subquery())
    return taking(InstanceRow, select(InstanceRow.id).where(*due).order_by(*order).limit(bindparam("limit")))


class FlowStore(DeliveryTable, KeptFiles, Arrivals):
    """The instance table, with what belongs to it: deliveries and files.

    Parameters
    ----------
    engine
        From `gateway.database.open_database`.
    owner
        Of the leases that this takes: `lease_owner()`.
    wakes
        Told of what there is to do, as soon as it is committed; None: only this store's own are.
    """

    # -- receiving ---------------------------------------------------------------------------------------------------

    def waiting(self) -> tuple[int, int]:
        """How many are on their way, neither delivered nor held; and how many of these are not marked yet."""
        with reading(self._engine) as session:
            unmarked = func.count(case((InstanceRow.state != MARKED, 1)))
            query = select(func.count(), unmarked).where(InstanceRow.state.in_([RECEIVED, SEALED, MARKED]))
            found = session.execute(query).one()
            return found[0], found[1]

    # -- instances ---------------------------------------------------------------------------------------------------

    def claim(self, state: str, limit: int, lease_s: float) -> list[InstanceRow]:
        """Take up to `limit` instances in `state`, oldest first, whose turn has come and that nobody works on.

        None of them is suspected to have killed a process: those come alone (`claim_suspect`).
        """
        return self._claim(state, limit, lease_s, _claiming(state))

    def claim_batch(self, limit: int, lease_s: float) -> list[InstanceRow]:
        """As `claim` of sealed instances, all with the batch key of the oldest: so each kind has its turn."""
        return self._claim(SEALED, limit, lease_s, _claiming(SEALED, alike=True))

    def claim_suspect(self, state: str, lease_s: float) -> list[InstanceRow]:
        """Take one instance that a process died of, or beside; the one with the fewest deaths first."""
        return self._claim(state, 1, lease_s, _claiming(state, suspects=True))

    def has_suspect(self, state: str) -> bool:
        """Whether one waits for its turn to be done alone."""
        with reading(self._engine) as session:
            waiting = select(InstanceRow.id).where(
                InstanceRow.state == state,
                InstanceRow.next_attempt_at <= time.time(),
                InstanceRow.lease_owner.is_(None),
                SUSPECTED,
            )
            return session.scalar(waiting.limit(1)) is not None

    def _claim(self, state: str, limit: int, lease_s: float, statements: dict[str, Any]) -> list[InstanceRow]:
        rows = self._take(InstanceRow, state, statements, limit, lease_s)
        return sorted(rows, key=lambda row: (row.deaths, row.received_at))

    def renew(self, rows: Sequence[InstanceRow], lease_s: float) -> None:
        """Keep the leases of work that takes long."""
        self._renew(InstanceRow, rows, lease_s)

    def settle(self, changes: Sequence[Change], tell: Tell = untold) -> list[Exception | None]:
        """Make changes of claimed instances in one transaction.

        Parameters
        ----------
        tell
            Writes the changes' audit lines; called before the commit.

        Returns
        -------
        list
            For each change None, or why it did not count: `LeaseLost`, or what `tell` or the database raised for it.
            Its neighbours count all the same.

        Raises
        ------
        CapacityError
            The database cannot be written to now: nothing was changed.
        """
        telling = Telling(tell)
        failed = settle_apart(changes, lambda batch, counted: self._settle(batch, telling, counted), self._apart)
        self._wake([change for change, error in zip(changes, failed, strict=True) if error is None])
        self._over(failed, [(change.row.id, change.row.lease_token) for change in changes])
        return failed

    def _wake(self, changes: Sequence[Change]) -> None:
        """Wake who works on what these changes have brought about."""
        self.wakes.tell({SEALED for change in changes if change.values.get("state") == SEALED})
        self.wakes.tell({to(name) for change in changes for name in change.destinations or ()})
        for change in changes:
            if "state" not in change.values:
                self.wakes.tell_later(change.state, change.values["next_attempt_at"] - time.time())

    def _settle(self, batch: dict[int, Change], telling: Telling, counted: set[int]) -> dict[int, Exception]:
        if self._engine.dialect.name != "postgresql":
            return self._settle_each(batch, telling)
        made = groups(batch.values())
        failed: dict[int, Exception] = {}
        if len(made) == 1 and not any(change.lines for change in batch.values()):
            with at_once(self._engine) as connection:
                settled = settle_group(connection, self.owner, made[0])
        else:
            with transaction(self._engine) as session:
                _, failed = self._lock(session, batch, telling)
                good = [change for at, change in batch.items() if at not in failed]
                connection = session.connection()
                settled = {one for group in groups(good) for one in settle_group(connection, self.owner, group)}
        counted |= {at for at, one in batch.items() if one.row.id in settled}
        rest = {at: one for at, one in batch.items() if at not in failed and one.row.id not in settled}
        return failed | (self._settle_each(rest, telling) if rest else {})

    def _lock(
        self, session: Session, batch: dict[int, Change], telling: Telling
    ) -> tuple[dict[str, Any], dict[int, Exception]]:
        """Lock the rows whose lease still holds and tell of their changes; the rows, and what does not count."""
        claimed = (
            select(InstanceRow.id, InstanceRow.lease_token, InstanceRow.state, InstanceRow.derived_file)
            .where(
                InstanceRow.id.in_([change.row.id for change in batch.values()]),
                InstanceRow.lease_owner == self.owner,
            )
            .order_by(InstanceRow.id)  # in one order everywhere: two that settle never wait for each other
            .with_for_update()
        )
        found = {row.id: row for row in session.execute(claimed)}
        failed: dict[int, Exception] = {
            at: LeaseLost(change.row.id)
            for at, change in batch.items()
            if (there := found.get(change.row.id)) is None
            or (there.lease_token, there.state) != (change.row.lease_token, change.state)
        }
        failed |= telling.tell({at: change for at, change in batch.items() if at not in failed})
        return found, failed

    def _settle_each(self, batch: dict[int, Change], telling: Telling) -> dict[int, Exception]:
        with transaction(self._engine) as session:
            found, failed = self._lock(session, batch, telling)
            good = [change for at, change in batch.items() if at not in failed]
            wanted = {
                change.row.id: Wanted(
                    change.row.route,
                    change.destinations,
                    # what has these very bytes gets them no second time
                    keep_sent=found[change.row.id].derived_file == change.values.get("derived_file", ""),
                )
                for change in good
                if change.destinations is not None
            }
            left = queue_all(session, wanted)
            rows = [{"id": change.row.id, **change.values, **_FREE} for change in good]
            for row in rows:
                if row["id"] in wanted and not left[row["id"]]:
                    row |= {"state": DELIVERED, "delivered_at": time.time()}
            update_each(session, InstanceRow, rows, InstanceRow.lease_owner == self.owner)
        return failed

    def add_report(self, row: InstanceRow, report: ReportRow, destinations: Sequence[str]) -> bool:
        """A protection report on its way, its file written already. False when there is one of this number."""
        try:
            with transaction(self._engine) as session:
                session.add_all((row, report))
                session.flush()
                queue_deliveries(session, row, destinations, keep_sent=False)
        except IntegrityError:
            return False
        self.wakes.tell(map(to, destinations))
        return True

    def report_of(self, instance_id: str) -> ReportRow | None:
        """The report that this instance brings out; None when it brings none."""
        with reading(self._engine) as session:
            return session.scalars(select(ReportRow).where(ReportRow.instance_id == instance_id)).first()
