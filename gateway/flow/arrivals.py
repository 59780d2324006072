"""What the tables say about received instances: rows that follow the segments, and which records are still needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, text, update

from gateway.database import InstanceRow, SegmentRow, reading, transaction
from gateway.flow.leases import Leases
from gateway.flow.segments.format import Place
from gateway.flow.segments.log import Group
from gateway.flow.states import DISCARDED, RECEIVED

_IDENTITY = (
    "SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())"
    " FROM pg_control_system()"
)
_TOLD_UNTIL = select(SegmentRow.rows_until).where(SegmentRow.id == bindparam("segment")).with_for_update()
_TELL_UNTIL = update(SegmentRow).where(SegmentRow.id == bindparam("segment")).values(rows_until=bindparam("end"))
_ADD_SEGMENT, _ADD_INSTANCES = insert(SegmentRow), insert(InstanceRow)


class Arrivals(Leases):
    """Rows of received instances, and the segments that they lie in."""

    def add_received(self, groups: Sequence[Group]) -> None:
        """Commit the rows of flushed groups, and how far their segments are told of, in one transaction.

        May be called again with the same groups: what has its row keeps it.
        """
        with transaction(self._engine) as session:
            connection = session.connection()  # without objects for rows: this runs for every few instances that come
            rows = [_row(place, facts) for group in _whole(groups) for place, facts in _untold(connection, group)]
            if rows:
                connection.execute(_ADD_INSTANCES, rows)
        if rows:
            self.wakes.tell([RECEIVED])

    def identity(self) -> str:
        """Which database this is: its standby, too, and not another that its rows were read into."""
        if self._engine.dialect.name != "postgresql":
            return str(self._engine.url.database)
        with reading(self._engine) as session:
            return str(session.scalar(text(_IDENTITY)))

    def rows_until(self, segment: str) -> int:
        """The byte up to which a segment's records have rows; 0 for one that nothing is known of."""
        with reading(self._engine) as session:
            row = session.get(SegmentRow, segment)
            return row.rows_until if row else 0

    def places_in(self, segment: str) -> list[Place]:
        """Where in a segment lie the records that instances still need, in order."""
        with reading(self._engine) as session:
            query = select(InstanceRow.spool_file).where(
                InstanceRow.spool_file >= f"{segment}@", InstanceRow.spool_file < f"{segment}A"
            )
            places = (Place.parse(name) for name in session.scalars(query) if name is not None)
            return sorted((place for place in places if place is not None), key=lambda place: place.offset)

    def told_segments(self) -> list[str]:
        """Every segment that a row is kept of."""
        with reading(self._engine) as session:
            return list(session.scalars(select(SegmentRow.id)))

    def finished_segments(self, limit: int = 500) -> list[str]:
        """Segments with rows of which no instance needs anything any more."""
        with reading(self._engine) as session:
            needed = select(InstanceRow.id).where(
                InstanceRow.spool_file >= SegmentRow.id + "@", InstanceRow.spool_file < SegmentRow.id + "A"
            )
            return list(session.scalars(select(SegmentRow.id).where(~needed.exists()).limit(limit)))

    def forget_segment(self, segment: str) -> None:
        """Note that a segment is gone."""
        with transaction(self._engine) as session:
            session.execute(delete(SegmentRow).where(SegmentRow.id == segment))

    def moved(self, names: Mapping[str, str]) -> None:
        """Received bytes lie elsewhere now: old name -> new name. One that was purged meanwhile stays so."""
        with transaction(self._engine) as session:
            for old, new in names.items():
                session.execute(update(InstanceRow).where(InstanceRow.spool_file == old).values(spool_file=new))

    def arrived(self, route: str, sop_instance_uid: str, sha256: str, since: float) -> str | None:
        """The newest instance of these bytes that came by a route and is on its way, held, or was delivered since."""
        with reading(self._engine) as session:
            query = select(InstanceRow.id).where(
                InstanceRow.sop_instance_uid == sop_instance_uid,
                InstanceRow.route == route,
                InstanceRow.sha256 == sha256,
                InstanceRow.state != DISCARDED,
                or_(InstanceRow.delivered_at.is_(None), InstanceRow.delivered_at >= since),
            )
            return session.scalar(query.order_by(InstanceRow.received_at.desc()).limit(1))

    def state_of(self, instance_id: str) -> str | None:
        """How far an instance has come; None: it has no row yet."""
        with reading(self._engine) as session:
            return session.scalar(select(InstanceRow.state).where(InstanceRow.id == instance_id))

    def spool_file(self, instance_id: str) -> str | None:
        """Where the received bytes of an instance lie now; None when they were purged."""
        with reading(self._engine) as session:
            return session.scalar(select(InstanceRow.spool_file).where(InstanceRow.id == instance_id))


def _whole(groups: Sequence[Group]) -> list[Group]:
    """Groups of one segment as one, so that it is looked at once."""
    records: dict[str, list[tuple[Place, dict[str, object]]]] = {}
    ends: dict[str, int] = {}
    for group in groups:
        records.setdefault(group.segment, []).extend(group.records)
        ends[group.segment] = max(ends.get(group.segment, 0), group.end)
    return [Group(segment, ends[segment], records[segment]) for segment in records]


def _untold(connection: Connection, group: Group) -> Sequence[tuple[Place, Mapping[str, Any]]]:
    """The records of a group that have no row yet; notes that they will have."""
    # locked, which PostgreSQL counts as a write: rows that another process has just written are confirmed with it
    told = connection.scalar(_TOLD_UNTIL, {"segment": group.segment})
    if told is not None:
        if group.end > told:
            connection.execute(_TELL_UNTIL, {"segment": group.segment, "end": group.end})
        return [(place, facts) for place, facts in group.records if place.offset >= told]
    connection.execute(_ADD_SEGMENT, {"id": group.segment, "rows_until": group.end})
    # its own row may be lost while those of its instances are not: an old backup, a folder moved
    ids = [facts["id"] for _, facts in group.records]
    known = set(connection.scalars(select(InstanceRow.id).where(InstanceRow.id.in_(ids))))
    return [(place, facts) for place, facts in group.records if facts["id"] not in known]


def _row(place: Place, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": facts["id"],
        "state": RECEIVED,
        "route": facts["route"],
        "calling_ae": facts["calling_ae"],
        "called_ae": facts["called_ae"],
        "peer_address": facts["peer_address"],
        "association_id": facts["association_id"],
        "sop_class_uid": facts["sop_class_uid"],
        "sop_instance_uid": facts["sop_instance_uid"],
        "transfer_syntax_uid": facts["transfer_syntax_uid"],
        "size": facts["size"],
        "sha256": facts["sha256"],
        "spool_file": facts["file"] or place.name,
        "received_at": facts["received_at"],
    }
