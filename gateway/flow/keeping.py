"""What the tables of work say about files: which are still needed, and which retention may delete."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from gateway.database import ClockRow, DeliveryRow, InstanceRow, PayloadCheckRow, reading, transaction
from gateway.flow.leases import Leases
from gateway.flow.states import FINISHED, UNCOMMITTED

_PASS_ROW = 2  # of the site's clock
_UNCOMMITTED = select(DeliveryRow.instance_id).where(DeliveryRow.commit_state.in_(UNCOMMITTED))


class KeptFiles(Leases):
    """Spool files, derived files and vault records as the instance table names them."""

    def spool_to_purge(self, limit: int = 500) -> list[InstanceRow]:
        """Delivered and discarded instances whose received bytes still lie in the spool."""
        with reading(self._engine) as session:
            query = select(InstanceRow).where(
                InstanceRow.state.in_(FINISHED),
                InstanceRow.spool_file.is_not(None),
                or_(InstanceRow.action.is_(None), InstanceRow.action != "pass", InstanceRow.id.not_in(_UNCOMMITTED)),
            )
            return list(session.scalars(query.limit(limit)))

    def forget_spool_file(self, ids: Sequence[str]) -> None:
        """Note that the spool files of these instances are gone."""
        with transaction(self._engine) as session:
            session.execute(update(InstanceRow).where(InstanceRow.id.in_(ids)).values(spool_file=None))

    def derived_to_purge(self, delivered_before: float, limit: int = 500) -> list[str]:
        """Derived files that only instances delivered before that time, or discarded, still name."""
        with reading(self._engine) as session:
            recent = select(InstanceRow.derived_file).where(
                InstanceRow.derived_file.is_not(None),
                or_(
                    InstanceRow.state.not_in(FINISHED),
                    InstanceRow.delivered_at >= delivered_before,
                    InstanceRow.id.in_(_UNCOMMITTED),  # what is not committed is sent again
                ),
            )
            query = (
                select(InstanceRow.derived_file)
                .where(InstanceRow.derived_file.is_not(None), InstanceRow.derived_file.not_in(recent))
                .distinct()
                .limit(limit)
            )
            return [name for name in session.scalars(query) if name is not None]

    def forget_derived_file(self, names: Sequence[str]) -> None:
        """Note that these derived files are gone."""
        with transaction(self._engine) as session:
            session.execute(update(InstanceRow).where(InstanceRow.derived_file.in_(names)).values(derived_file=None))

    def records_in_use(self, delivered_since: float) -> set[str]:
        """Locators of vault records whose instances are on their way, held, or were delivered after that time."""
        with reading(self._engine) as session:
            query = select(InstanceRow.record).where(
                InstanceRow.record.is_not(None),
                or_(InstanceRow.state.not_in(FINISHED), InstanceRow.delivered_at >= delivered_since),
            )
            return {locator for locator in session.scalars(query) if locator is not None}

    def promised(self) -> set[str]:
        """Locators of originals that an archive was told are committed: it may have deleted its own."""
        with reading(self._engine) as session:
            return set(session.scalars(select(PayloadCheckRow.locator).where(PayloadCheckRow.promised_at.is_not(None))))

    def may_pass_over_originals(self, now: float, every_s: float) -> bool:
        """Whether a pass that ends originals may begin at `now` (seconds since 1970): the last began `every_s` ago.

        It has begun then. Every worker of the site counts, and those before a restart.
        """
        try:
            with transaction(self._engine) as session:
                row = session.get(ClockRow, _PASS_ROW, with_for_update=True)
                if row is None:
                    session.add(ClockRow(id=_PASS_ROW, seen_at=now, confirmed=0))
                elif abs(now - row.seen_at) < every_s:  # a time that lies far ahead, a wrong clock wrote
                    return False
                else:
                    row.seen_at = now
        except IntegrityError:  # another process made the row at this moment
            return False
        return True

    def unknown_files(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that no row names as its spool or derived file."""
        unknown = set(names)
        with reading(self._engine) as session:
            for column in (InstanceRow.spool_file, InstanceRow.derived_file):
                for start in range(0, len(names), 500):
                    unknown -= set(session.scalars(select(column).where(column.in_(names[start : start + 500]))))
        return unknown
