"""Whether an archive may delete its originals: of each instance that it asks for, what holds at this moment.

Read in pieces, each of a few statements in a short transaction: one request may name ten thousand instances, and the
ingress writes into the same database.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from gateway.config.commitment import COMMIT_STATEMENT, DELIVERED_STATEMENT
from gateway.config.models import Destination, Retention, Route
from gateway.database import DeliveryRow, InstanceRow, PayloadCheckRow, VaultRow
from gateway.flow.ports import Reference
from gateway.flow.states import ASKED, COMMITTED, DELIVERED, DISCARDED, DUE, HELD, SENT
from gateway.vault.record import CARRIED

NOT_SAFE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119  # Failure Reason, PS3.3 C.14.1.1
GOOD = "good"  # of a payload that was opened and is its original
PIECE = 200  # references that are judged in one transaction


@dataclass(frozen=True)
class Verdict:
    """Of one reference: committed with these originals; not yet decided (`waits`); or not, for this reason."""

    reason: int = 0
    waits: bool = False
    locators: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Record:
    locator: str
    payload_file: str | None


@dataclass(frozen=True)
class _Known:
    """What the tables say of the instances of one piece."""

    newest: Mapping[str, list[InstanceRow]]  # by SOP Instance UID: the newest of each route
    records: Mapping[str, _Record]
    deliveries: Mapping[str, list[DeliveryRow]]
    checks: dict[str, PayloadCheckRow]


class Judge:
    """Judges by what is configured and true now.

    Parameters
    ----------
    routes, destinations, retention
        As they are configured now: a request is judged by what holds when it is answered.
    """

    def __init__(self, routes: Sequence[Route], destinations: Sequence[Destination], retention: Retention) -> None:
        self._routes: Mapping[str, Route] = {route.name: route for route in routes}
        self._asking = {one.name for one in destinations if one.commitment is not None}
        self._keeps_all = retention.vault_days == 0

    def of_piece(
        self, session: Session, calling_ae: str, asked_at: float, references: Collection[Reference]
    ) -> dict[Reference, Verdict]:
        """The verdicts of some references (at most `PIECE`), and what they need is asked for.

        The rows that they rest on are locked until the transaction ends: nobody holds or discards an instance between
        its verdict and what is made of it.
        """
        known = _look_up(session, calling_ae, {one.sop_instance_uid for one in references})
        return {one: self._verdict(session, known, asked_at, one) for one in references}

    def _verdict(self, session: Session, known: _Known, asked_at: float, reference: Reference) -> Verdict:
        """Over all routes: the first that fails decides, then the first that waits."""
        newest = known.newest.get(reference.sop_instance_uid)
        if not newest:
            return Verdict(NO_SUCH_INSTANCE)
        if any(row.sop_class_uid != reference.sop_class_uid for row in newest):
            return Verdict(CLASS_CONFLICT)
        verdicts = [self._of_route(session, known, asked_at, row) for row in newest]
        for verdict in sorted(verdicts, key=lambda one: (not one.reason, not one.waits)):
            if verdict.reason or verdict.waits:
                return verdict
        return Verdict(locators=tuple(locator for one in verdicts for locator in one.locators))

    def _of_route(self, session: Session, known: _Known, asked_at: float, row: InstanceRow) -> Verdict:
        route = self._routes.get(row.route)
        if route is None or row.action == "pass" or row.state in (HELD, DISCARDED):
            return Verdict(NOT_SAFE)
        is_told = route.commit_statement == COMMIT_STATEMENT
        if not self._keeps_all and not is_told:
            return Verdict(NOT_SAFE)
        record = known.records.get(row.record) if row.record else None
        if record is not None and (record.payload_file is None or (record.payload_file == CARRIED and not is_told)):
            return Verdict(NOT_SAFE)
        if row.state != DELIVERED:
            return Verdict(waits=True)
        if record is None:
            return Verdict(NOT_SAFE)
        downstream = self._downstream(known.deliveries.get(row.id, ()), route)
        if downstream.reason or downstream.waits or record.payload_file == CARRIED:
            return downstream
        found = _payload(session, known.checks, asked_at, record.locator)
        # where retention is to end all the same, in so many words, it is not held back
        return found if self._keeps_all else replace(found, locators=())

    def _downstream(self, deliveries: Sequence[DeliveryRow], route: Route) -> Verdict:
        """Whether the copies are where they are to be, and kept there."""
        reached = {one.fallback_of or one.destination for one in deliveries if one.state == SENT}
        if not reached.issuperset(route.destinations):
            return Verdict(NOT_SAFE)
        waits = False
        for one in deliveries:
            if one.commit_state == COMMITTED:
                continue
            if one.destination not in self._asking:
                if one.state == SENT and route.delivered_statement != DELIVERED_STATEMENT:
                    return Verdict(NOT_SAFE)
                continue
            if one.commit_state == "":  # sent before it was configured to be asked for
                one.commit_state, one.commit_at = DUE, time.time()
            if one.commit_state not in (DUE, ASKED):
                return Verdict(NOT_SAFE)
            waits = True
        return Verdict(waits=waits)


def pieces(references: Sequence[Reference]) -> Iterator[Sequence[Reference]]:
    """The references of a request, as many at a time as are judged together."""
    for start in range(0, len(references), PIECE):
        yield references[start : start + PIECE]


def _look_up(session: Session, calling_ae: str, uids: Collection[str]) -> _Known:
    of_archive = (InstanceRow.sop_instance_uid.in_(uids), InstanceRow.calling_ae == calling_ae)
    newest: dict[tuple[str, str], InstanceRow] = {}
    for row in session.scalars(select(InstanceRow).where(*of_archive).order_by(InstanceRow.received_at)):
        newest[row.sop_instance_uid, row.route] = row
    ids = [row.id for row in newest.values()]
    # In the order of their ids, as all who lock several do; what was locked late is read anew.
    locked = select(InstanceRow).where(InstanceRow.id.in_(ids)).order_by(InstanceRow.id).with_for_update()
    by_uid: dict[str, list[InstanceRow]] = defaultdict(list)
    for row in session.scalars(locked.execution_options(populate_existing=True)):
        by_uid[row.sop_instance_uid].append(row)
    deliveries: dict[str, list[DeliveryRow]] = defaultdict(list)
    for delivery in session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id.in_(ids))):
        deliveries[delivery.instance_id].append(delivery)
    locators = [row.record for row in newest.values() if row.record]
    found = select(VaultRow.locator, VaultRow.payload_file).where(VaultRow.locator.in_(locators))
    records = {locator: _Record(locator, payload) for locator, payload in session.execute(found)}
    asked = select(PayloadCheckRow).where(PayloadCheckRow.locator.in_(locators))
    return _Known(by_uid, records, deliveries, {one.locator: one for one in session.scalars(asked)})


def _payload(session: Session, checks: dict[str, PayloadCheckRow], asked_at: float, locator: str) -> Verdict:
    """Whether the restore role has opened it since the archive asked; it is asked to where it has not."""
    check = checks.get(locator)
    if check is None:
        now = time.time()
        session.execute(insert(PayloadCheckRow).values(locator=locator, asked_at=now))
        checks[locator] = PayloadCheckRow(locator=locator, asked_at=now)  # two routes may share a record
    elif check.checked_at is not None and check.checked_at >= asked_at:
        return Verdict(locators=(locator,)) if check.result == GOOD else Verdict(NOT_SAFE)
    elif check.checked_at is not None and check.asked_at <= check.checked_at:
        check.asked_at = time.time()
    return Verdict(waits=True)
