"""Studies with their originals and copies, and the figures of marks: what the page shows. It reads; UIDs alone, no PHI.

Every question goes along an index, so that a page is fast however long a site has been running: the newest studies are
found by walking back over what was received last, those of a UID by the order of their UIDs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Select, distinct, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from gateway.database import MISLED, FiguresRow, InstanceRow, VaultRow, reading
from gateway.errors import ConfigError, NotFoundError

_AT_ONCE = 1000  # received instances looked at in one step back
_MOST_STEPS = 20  # then a page is given with what was found, however few studies that are
_UID = re.compile("[0-9.]{1,64}")


@dataclass(frozen=True)
class StudyEntry:
    """One study of the vault.

    Attributes
    ----------
    copies_study_uid
        Study Instance UID of its copies, where they have one of their own; else empty.
    originals, copies, sealed
        Instances by their own UIDs; records whose copy's bytes are fixed; records whose sealed original is kept here.
    states
        State -> instances that were received of it.
    last_at
        When the latest of it was received.
    """

    study_uid: str
    copies_study_uid: str
    originals: int
    copies: int
    sealed: int
    first_at: float
    last_at: float
    states: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Studies:
    """One page of studies; `older`, `after`: what to ask for the next one by, None where there is none."""

    lines: tuple[StudyEntry, ...]
    older: float | None = None
    after: str | None = None


@dataclass(frozen=True)
class Figures:
    """What is known of a mark: decibels of the worst frame in its own window (None: nothing was changed), and shares of
    the pixels (0 to 1).
    """

    tier: str
    mode: str
    profile: str
    frames: int
    psnr: float | None
    region_share: float
    stroke_share: float
    roi_share: float
    misled_share: float | None = None


@dataclass(frozen=True)
class CopyEntry:
    """One original and the copy that was made of it; `instance_id`: the latest that was received of it."""

    original_series_uid: str
    original_sop_uid: str
    derived_sop_uid: str
    generation: int
    sop_class_uid: str
    transfer_syntax_uid: str
    created_at: float
    is_sealed: bool
    is_fixed: bool
    instance_id: str | None = None
    state: str | None = None
    action: str | None = None
    figures: Figures | None = None


@dataclass(frozen=True)
class MarkEntry:
    """One mark that was made lately."""

    instance_id: str
    route: str
    marked_at: float
    sop_class_uid: str
    figures: Figures


def newest_studies(engine: Engine, limit: int = 25, before: float | None = None) -> Studies:
    """The studies that something was received of last; `before`: those after the page that named it `older`.

    A study stands where its latest instance does, and so on one page alone.
    """
    found: dict[str, None] = {}
    last = before
    with reading(engine) as session:
        for step in range(_MOST_STEPS):
            query = select(InstanceRow.received_at, VaultRow.study_uid)
            query = query.outerjoin(VaultRow, VaultRow.locator == InstanceRow.record)
            if before is not None:
                query = query.where(InstanceRow.received_at < before)
            query = query.order_by(InstanceRow.received_at.desc(), InstanceRow.id).offset(step * _AT_ONCE)
            rows = session.execute(query.limit(_AT_ONCE)).all()
            latest = _latest(session, list({study_uid for _, study_uid in rows if study_uid} - found.keys()))
            for at, study_uid in rows:
                if latest.get(study_uid) == at and study_uid not in found:
                    if len(found) >= limit and at != last:  # the next page begins with it
                        return Studies(tuple(_entries(session, list(found))), older=last)
                    found[study_uid] = None
                last = at
            if len(rows) < _AT_ONCE:
                return Studies(tuple(_entries(session, list(found))))
        return Studies(tuple(_entries(session, list(found))), older=last)


def studies_of(engine: Engine, uid: str, limit: int = 25, after: str = "") -> Studies:
    """The studies whose UID begins so, in its order; or the one that has a series, instance or copy of this UID.

    Raises
    ------
    ConfigError
        ``no-uid``: digits and dots, at most 64.
    """
    if not _UID.fullmatch(uid):
        raise ConfigError("no-uid", "a UID has digits and dots, at most 64", "or its first ones")
    with reading(engine) as session:
        named = _study_of(session, uid)
        query: Select[Any] = select(VaultRow.study_uid)
        query = query.where(VaultRow.study_uid.in_(named)) if named else _beginning(query, session, uid)
        query = query.where(VaultRow.study_uid > after).group_by(VaultRow.study_uid).order_by(VaultRow.study_uid)
        uids = list(session.scalars(query.limit(limit + 1)))
        lines = sorted(_entries(session, uids[:limit]), key=lambda one: uids.index(one.study_uid))
    return Studies(tuple(lines), after=uids[limit - 1] if len(uids) > limit else None)


def study(engine: Engine, study_uid: str) -> StudyEntry:
    """One study; NotFoundError ``no-such-study``."""
    with reading(engine) as session:
        for one in _entries(session, [study_uid]):
            return one
    raise NotFoundError("no-such-study", "the vault has no study of that UID", "the page of studies has them")


def copies_of(engine: Engine, study_uid: str, limit: int = 100, start: int = 0) -> list[CopyEntry]:
    """Originals and copies of a study, series by series, from number `start` on."""
    names = [name for name in CopyEntry.__dataclass_fields__ if hasattr(VaultRow, name)]
    query = (
        select(
            VaultRow.locator,
            VaultRow.payload_file.is_not(None).label("is_sealed"),
            VaultRow.derived_sha256.is_not(None).label("is_fixed"),
            *(getattr(VaultRow, name) for name in names),
        )
        .where(VaultRow.study_uid == study_uid)
        .order_by(VaultRow.original_series_uid, VaultRow.created_at, VaultRow.locator)
    )
    with reading(engine) as session:
        rows = session.execute(query.limit(limit).offset(start)).mappings().all()
        locators = [row["locator"] for row in rows]
        received = (
            select(InstanceRow.record, InstanceRow.id, InstanceRow.state, InstanceRow.action)
            .where(InstanceRow.record.in_(locators))
            .order_by(InstanceRow.received_at)
        )
        by_record = {record: rest for record, *rest in session.execute(received)}  # the latest of each
        figures = _figures(session, locators)
    found = []
    for row in rows:
        instance_id, state, action = by_record.get(row["locator"], (None, None, None))
        own: dict[str, Any] = {name: row[name] for name in (*names, "is_sealed", "is_fixed")}
        more: dict[str, Any] = {"instance_id": instance_id, "state": state, "action": action}
        found.append(CopyEntry(**own, **more, figures=figures.get(row["locator"])))
    return found


def recent_marks(engine: Engine, routes: Sequence[str], limit: int = 50) -> list[MarkEntry]:
    """The newest marks of each of these routes whose figures are known, at most `limit` a route, the newest first."""
    names = (InstanceRow.id, InstanceRow.route, InstanceRow.marked_at, InstanceRow.sop_class_uid, InstanceRow.record)
    found: list[MarkEntry] = []
    with reading(engine) as session:
        for route in routes:
            query = select(*names).where(InstanceRow.route == route, InstanceRow.marked_at.is_not(None))
            rows = session.execute(query.order_by(InstanceRow.marked_at.desc()).limit(limit)).all()
            figures = _figures(session, [row.record for row in rows if row.record])
            for row in rows:
                if row.record in figures:
                    facts = (row.id, row.route, row.marked_at, row.sop_class_uid)
                    found.append(MarkEntry(*facts, figures[row.record]))
    return sorted(found, key=lambda one: one.marked_at, reverse=True)


def _latest(session: Session, uids: Sequence[str]) -> dict[str, float]:
    """Study -> when the latest of it was received."""
    found: dict[str, float] = {}
    for start in range(0, len(uids), 500):
        query = (
            select(VaultRow.study_uid, func.max(InstanceRow.received_at))
            .join(InstanceRow, InstanceRow.record == VaultRow.locator)
            .where(VaultRow.study_uid.in_(uids[start : start + 500]))
            .group_by(VaultRow.study_uid)
        )
        found.update((study_uid, at) for study_uid, at in session.execute(query))
    return found


def _entries(session: Session, uids: Sequence[str]) -> list[StudyEntry]:
    """These studies, the one that something was received of last first."""
    of_them = VaultRow.study_uid.in_(uids)
    sums = select(
        VaultRow.study_uid,
        func.max(VaultRow.derived_study_uid),
        func.count(distinct(VaultRow.original_sop_uid)),
        func.count(VaultRow.derived_sha256),
        func.count(VaultRow.payload_file),
        func.min(VaultRow.created_at),
        func.max(VaultRow.created_at),
    )
    states = (
        select(VaultRow.study_uid, InstanceRow.state, func.count(), func.max(InstanceRow.received_at))
        .join(InstanceRow, InstanceRow.record == VaultRow.locator)
        .where(of_them)
        .group_by(VaultRow.study_uid, InstanceRow.state)
    )
    by_state: dict[str, dict[str, int]] = {}
    last: dict[str, float] = {}
    for uid, state, count, at in session.execute(states):
        by_state.setdefault(uid, {})[state] = count
        last[uid] = max(at, last.get(uid, at))
    found = [
        StudyEntry(*row[:6], last.get(row[0], row[6]), by_state.get(row[0], {}))
        for row in session.execute(sums.where(of_them).group_by(VaultRow.study_uid))
    ]
    return sorted(found, key=lambda one: one.last_at, reverse=True)


def _study_of(session: Session, uid: str) -> list[str]:
    """The studies with a series, an instance or a copy of exactly this UID."""
    columns: tuple[InstrumentedAttribute[str], ...] = (
        VaultRow.original_sop_uid,
        VaultRow.derived_sop_uid,
        VaultRow.original_series_uid,
        VaultRow.derived_series_uid,
        VaultRow.derived_study_uid,
    )
    query = select(VaultRow.study_uid).distinct().where(or_(*(column == uid for column in columns)))
    return list(session.scalars(query.limit(10)))


def _beginning(query: Select[Any], session: Session, uid: str) -> Select[Any]:
    """Studies whose UID begins so. SQLite goes by its index for GLOB, and not for LIKE."""
    if session.get_bind().dialect.name == "sqlite":
        return query.where(VaultRow.study_uid.op("GLOB")(f"{uid}*"))
    return query.where(VaultRow.study_uid.startswith(uid, autoescape=True))


def _figures(session: Session, locators: Sequence[str]) -> dict[str, Figures]:
    found = {}
    for start in range(0, len(locators), 500):
        query = select(FiguresRow).where(FiguresRow.locator.in_(locators[start : start + 500]))
        for row in session.scalars(query):
            words: dict[str, Any] = {name: str(row.policy.get(name, "")) for name in _WORDS}
            shares = {name: getattr(row, name) for name in _SHARES}
            psnr = row.psnr if math.isfinite(row.psnr) else None
            misled = float(row.policy[MISLED]) if MISLED in row.policy else None
            found[row.locator] = Figures(**words, frames=row.frames, psnr=psnr, **shares, misled_share=misled)
    return found


_WORDS = ("tier", "mode", "profile")
_SHARES = ("region_share", "stroke_share", "roi_share")
