"""A protection report for each study that a route with `report = true` has marked, sent after the study came to rest.

A report is a row of `instance` like any other (action "report", without a record), so that it is delivered, retried,
held and purged as marked copies are. When more of the study is marked later, a further report replaces it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable

import structlog
from sqlalchemy import Engine, func, or_, select
from sqlalchemy.orm import Session

from gateway.audit import AuditLog, events
from gateway.config.models import Route
from gateway.database import InstanceRow, ReportRow, VaultRow, reading, transaction
from gateway.dicom.copy.report import SOP_CLASS
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import GatewayError
from gateway.flow.spool import Spool
from gateway.flow.store import MARKED, REPORT, SEALED, FlowStore
from gateway.protect.reporting import Reporter

LOOK_BACK_S = 7 * 86_400.0  # what was marked longer ago than this is looked for no more

log = structlog.get_logger(__name__)


class Reports:
    """Makes the reports that are due. Any number of workers may do so at once: each report is made once."""

    def __init__(
        self,
        routes: Iterable[Route],
        engine: Engine,
        store: FlowStore,
        derived: Spool,
        reporter: Reporter,
        audit: AuditLog,
    ) -> None:
        self._routes = [route for route in routes if route.report]
        self._engine = engine
        self._store = store
        self._derived = derived
        self._reporter = reporter
        self._audit = audit

    def once(self, now: float | None = None) -> int:
        """Make what is due at `now` (seconds since 1970; default: the present). Returns how many reports were made."""
        now = time.time() if now is None else now
        made = 0
        for route in self._routes:
            for study_uid, last_marked_at in self._at_rest(route, now):
                try:
                    made += self._report(route, study_uid, last_marked_at)
                except GatewayError as error:
                    log.error("no protection report", route=route.name, code=error.code)
        return made

    def _at_rest(self, route: Route, now: float) -> list[tuple[str, float]]:
        """Studies of which something was marked that no report has told of, and the time of their last mark."""
        told = (
            select(ReportRow.study_uid, func.max(ReportRow.last_marked_at).label("until"))
            .where(ReportRow.route == route.name)
            .group_by(ReportRow.study_uid)
            .subquery()
        )
        last = func.max(InstanceRow.marked_at)
        query = (
            select(VaultRow.study_uid, last)
            .join(InstanceRow, InstanceRow.record == VaultRow.locator)
            .outerjoin(told, told.c.study_uid == VaultRow.study_uid)
            .where(
                InstanceRow.route == route.name,
                InstanceRow.action == "mark",
                InstanceRow.marked_at > now - LOOK_BACK_S,
            )
            .group_by(VaultRow.study_uid, told.c.until)
            .having(last <= now - route.report_after_s)
            .having(or_(told.c.until.is_(None), last > told.c.until))
        )
        with reading(self._engine) as session:
            return [(study_uid, marked_at) for study_uid, marked_at in session.execute(query) if marked_at]

    def _report(self, route: Route, study_uid: str, last_marked_at: float) -> int:
        with reading(self._engine) as session:
            if _of_study(session, route, study_uid, waiting=True):
                return 0  # more is about to be marked
            locators = _of_study(session, route, study_uid, waiting=False)
            before = _newest(session, route, study_uid)
        digest = hashlib.sha256("".join(sorted(locators)).encode()).hexdigest()
        if before is not None and before.copies_sha256 == digest:  # the same copies, sent once more
            with transaction(self._engine) as session:
                if (newest := _newest(session, route, study_uid)) is not None:
                    newest.last_marked_at = last_marked_at
            return 0
        number = before.number + 1 if before else 1
        series_uid, sop_uid = self._reporter.uids(study_uid, route.name, number)
        previous = before.sop_instance_uid if before else ""
        data = self._reporter.build(locators, series_uid, sop_uid, number, previous)
        row = _row(route, sop_uid, data)
        signed = self._reporter.sign(route.name, row.id, sop_uid, data)
        report = ReportRow(
            route=route.name,
            study_uid=study_uid,
            number=number,
            instance_id=row.id,
            sop_instance_uid=sop_uid,
            copies_sha256=digest,
            last_marked_at=last_marked_at,
            document=signed.document,
            signature=signed.signature,
            signer=signed.signer,
        )
        name = f"report-{row.id}"
        self._write(name, data)
        if not self._store.add_report(row, report, route.destinations):  # another worker was the first
            self._derived.delete(name)
            return 0
        self._audit.write(events.REPORT_MADE, "success", instance_id=row.id, route=route.name)
        log.info("protection report", instance=row.id, copies=len(locators))
        return 1

    def _write(self, name: str, data: bytes) -> None:
        writer = self._derived.create(name)
        try:
            writer.write(data)
            writer.publish()
        except BaseException:
            writer.discard()
            raise


def _of_study(session: Session, route: Route, study_uid: str, *, waiting: bool) -> list[str]:
    """Locators of what this route has of a study: what waits for its mark, or what is marked, oldest first."""
    state = InstanceRow.state == SEALED if waiting else InstanceRow.marked_at.is_not(None)
    query = (
        select(VaultRow.locator)
        .join(InstanceRow, InstanceRow.record == VaultRow.locator)
        .where(VaultRow.study_uid == study_uid, InstanceRow.route == route.name, InstanceRow.action == "mark", state)
        .group_by(VaultRow.locator)
        .order_by(func.min(InstanceRow.received_at), VaultRow.locator)
    )
    return list(session.scalars(query))


def _newest(session: Session, route: Route, study_uid: str) -> ReportRow | None:
    query = select(ReportRow).where(ReportRow.route == route.name, ReportRow.study_uid == study_uid)
    return session.scalars(query.order_by(ReportRow.number.desc()).limit(1)).first()


def _row(route: Route, sop_uid: str, data: bytes) -> InstanceRow:
    """The report as an instance that is ready to be delivered; no association brought it."""
    instance_id, now = secrets.token_hex(16), time.time()
    return InstanceRow(
        id=instance_id,
        state=MARKED,
        route=route.name,
        calling_ae="",
        called_ae=route.called_ae,
        peer_address="",
        association_id="",
        sop_class_uid=SOP_CLASS,
        sop_instance_uid=sop_uid,
        transfer_syntax_uid=EXPLICIT_LITTLE,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        action=REPORT,
        derived_file=f"report-{instance_id}",
        derived_size=len(data),
        attempts=0,
        next_attempt_at=0.0,
        lease_until=0.0,
        received_at=now,
        marked_at=now,
    )
