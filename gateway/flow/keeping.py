"""What the tables of work say about files: which are still needed, and which retention may delete."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select, update

from gateway.database import InstanceRow, reading, transaction
from gateway.flow.leases import Leases
from gateway.flow.states import DELIVERED


class KeptFiles(Leases):
    """Spool files, derived files and vault records as the instance table names them."""

    def spool_to_purge(self, limit: int = 500) -> list[InstanceRow]:
        """Delivered instances whose received bytes still lie in the spool."""
        with reading(self._engine) as session:
            query = select(InstanceRow).where(InstanceRow.state == DELIVERED, InstanceRow.spool_file.is_not(None))
            return list(session.scalars(query.limit(limit)))

    def forget_spool_file(self, ids: Sequence[str]) -> None:
        """Note that the spool files of these instances are gone."""
        with transaction(self._engine) as session:
            session.execute(update(InstanceRow).where(InstanceRow.id.in_(ids)).values(spool_file=None))

    def derived_to_purge(self, delivered_before: float, limit: int = 500) -> list[str]:
        """Derived files that only instances delivered before that time still name."""
        with reading(self._engine) as session:
            recent = select(InstanceRow.derived_file).where(
                InstanceRow.derived_file.is_not(None),
                or_(InstanceRow.state != DELIVERED, InstanceRow.delivered_at >= delivered_before),
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
                or_(InstanceRow.state != DELIVERED, InstanceRow.delivered_at >= delivered_since),
            )
            return {locator for locator in session.scalars(query) if locator is not None}

    def unknown_files(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that no row names as its spool or derived file."""
        unknown = set(names)
        with reading(self._engine) as session:
            for column in (InstanceRow.spool_file, InstanceRow.derived_file):
                for start in range(0, len(names), 500):
                    unknown -= set(session.scalars(select(column).where(column.in_(names[start : start + 500]))))
        return unknown
