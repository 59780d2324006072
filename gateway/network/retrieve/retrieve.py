"""C-GET and C-MOVE: one plan, one loop, two ways out (PS3.4 C.4.2, C.4.3).

The way out of a C-GET is the association that asked. The way out of a C-MOVE is a new association to the asking AE's
own configured address, and to no other: originals go to nobody but the workstation that was let in (architecture,
promise 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext

from gateway.audit import events
from gateway.errors import CapacityError, DeliveryError, DicomError
from gateway.network import command
from gateway.network.retrieve.ahead import Ahead
from gateway.network.retrieve.deliver import CANNOT_RESTORE, ODD_LENGTH, deliver_planned
from gateway.network.retrieve.destination import way_to
from gateway.network.retrieve.identifiers import MODELS, Model, read_identifier, retrieve_level, uids_of
from gateway.network.retrieve.planning import plan
from gateway.network.retrieve.sending import RequesterOutlet, is_alive, let_peer_speak
from gateway.network.retrieve.session import UIDS_IN_ONE_LINE, Session, number_of
from gateway.network.retrieve.suboperations import MAX_SUBOPERATIONS, Intent, Originator, Planned, Tally
from gateway.network.scu import MOST_CONTEXTS
from gateway.vault.index import Scope

CANCELLED = 0xFE00
TOO_MANY_MATCHES = 0xA701  # refused: out of resources, unable to calculate number of matches
UNABLE_TO_PERFORM = 0xA702  # refused: out of resources, unable to perform sub-operations
DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_DOES_NOT_MATCH = 0xA900
SILENT_TWICE = 2  # instances in a row that a receiver did not answer: each costs the whole timeout
NOTHING = Intent("", frozenset())


@dataclass
class _Retrieval:
    """One C-GET or C-MOVE request on its way."""

    session: Session
    request: C_GET | C_MOVE
    context: PresentationContext
    level: str
    tally: Tally
    cancelled: bool = False
    comment: str = ""  # Error Comment of the final response
    intent: Intent = NOTHING

    @property
    def operation(self) -> str:
        return "C-MOVE" if isinstance(self.request, C_MOVE) else "C-GET"

    def may_go_on(self) -> bool:
        """False once the requester has cancelled, or is gone."""
        self.session.association.dul.hear()
        if self.session.is_cancelled(self.request):
            self.cancelled = True
        return not self.cancelled and is_alive(self.session.association)

    def count(self, planned: Planned, status: int) -> None:
        """Enter one finished sub-operation and tell the requester, but for the last one (the final response does)."""
        self.tally.count(planned.sop_instance_uid, status)
        if status == ODD_LENGTH:
            self.comment = "of odd length: write it to a file with `restore`"
        if self.tally.remaining and is_alive(self.session.association):
            counts = {
                command.REMAINING: self.tally.remaining,
                command.COMPLETED: self.tally.completed,
                command.FAILED: self.tally.failed,
                command.WARNING: self.tally.warning,
            }
            self.session.pending(self.request, self.context, counts)

    def finish(self) -> None:
        """Audit the retrieval and send the final response."""
        status = CANCELLED if self.cancelled else self.tally.final_status()
        self.session.audit(
            events.RETRIEVE,
            "success" if status == 0x0000 else "failure",
            operation=self.operation,
            model=model_of(self.request).root,
            level=self.level,
            status=status,
            completed=self.tally.completed,
            failed=self.tally.failed,
            warning=self.tally.warning,
            remaining=self.tally.remaining,
        )
        if not is_alive(self.session.association):
            return
        identifier = None
        if status != 0x0000:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = [uid for uid in self.tally.failed_uids if uid]
        self.session.respond(
            self.request,
            self.context,
            status,
            identifier=identifier,
            comment=self.comment,
            counts=self._counts(remaining=self.cancelled),
        )

    def _counts(self, *, remaining: bool) -> dict[str, int]:
        counts = {
            "NumberOfCompletedSuboperations": self.tally.completed,
            "NumberOfFailedSuboperations": self.tally.failed,
            "NumberOfWarningSuboperations": self.tally.warning,
        }
        if remaining:
            counts["NumberOfRemainingSuboperations"] = self.tally.remaining
        return counts


def model_of(request: C_GET | C_MOVE) -> Model:
    """The information model of a request; only such requests are let through."""
    return MODELS[str(request.AffectedSOPClassUID)]


def serve_get(session: Session, request: C_GET, context: PresentationContext) -> None:
    """Answer one C-GET request by sub-operations on the same association."""
    prepared = _prepare(session, request, context)
    if prepared is None:
        return
    retrieval, planned_ones = prepared
    outlet = RequesterOutlet(session.association, number_of(request))
    with Ahead(session.services.restorer, planned_ones) as ahead:
        let_peer_speak(session.association)  # a C-CANCEL may have come with the request
        with session.association.dul.borrowed():
            for planned in planned_ones:
                if not retrieval.may_go_on():
                    break
                try:
                    status = deliver_planned(session, outlet, planned, ahead, retrieval.intent)
                except DeliveryError:
                    break  # the requester is gone: `finish` audits how far it came
                retrieval.count(planned, status)
                if not ahead.is_ready:
                    session.association.dul.flush()  # how far it is; else that goes with the next
    retrieval.finish()


def serve_move(session: Session, request: C_MOVE, context: PresentationContext) -> None:
    """Answer one C-MOVE request by sub-operations to the requesting AE's own address."""
    wanted = (request.MoveDestination or "").strip(" \0")
    if wanted != session.workstation.ae_title or not session.workstation.host:
        session.audit(
            events.RESTORE_REFUSED,
            "refused",
            operation="C-MOVE",
            move_destination=wanted,
            reason="destination-not-the-requester" if wanted != session.workstation.ae_title else "no-address",
            status=DESTINATION_UNKNOWN,
        )
        session.respond(request, context, DESTINATION_UNKNOWN, comment="originals go to the requesting AE only")
        return
    prepared = _prepare(session, request, context)
    if prepared is None:
        return
    retrieval, planned_ones = prepared
    originator = Originator(session.workstation.ae_title, number_of(request))
    let_peer_speak(session.association)
    for batch in batches(planned_ones):
        if not retrieval.may_go_on():
            break
        _move_batch(retrieval, batch, originator)
    retrieval.finish()


def _move_batch(retrieval: _Retrieval, batch: list[Planned], originator: Originator) -> None:
    """Send what needs one association's contexts.

    An instance over which the association ends fails alone: the rest goes on a new one. When none can be had, or the
    receiver has fallen silent twice in a row, the rest fails with it.
    """
    services = retrieval.session.services
    left = deque(batch)
    silent = 0
    while left and retrieval.may_go_on():
        wanted = list(dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in left))
        under_way = False
        try:
            with (
                way_to(
                    services.settings, retrieval.session.workstation, services.client_tls, wanted, originator
                ) as outlet,
                Ahead(services.restorer, list(left)) as ahead,
            ):
                while left and retrieval.may_go_on():
                    under_way = True
                    status = deliver_planned(retrieval.session, outlet, left[0], ahead, retrieval.intent)
                    under_way = False
                    silent = 0
                    retrieval.count(left.popleft(), status)
        except DeliveryError as error:
            silent = silent + 1 if error.code == "no-answer" else 0
            alone = under_way and silent < SILENT_TWICE
            _fail(retrieval, [left.popleft() for _ in range(1 if alone else len(left))], error.code)


def _fail(retrieval: _Retrieval, lost: list[Planned], reason: str) -> None:
    """Audit and count sub-operations that an association ended over, or could not begin with."""
    uids = [planned.sop_instance_uid for planned in lost]
    for at in range(0, len(uids), UIDS_IN_ONE_LINE):
        retrieval.session.audit(
            events.ORIGINAL_RESTORED,
            "failure",
            operation="C-MOVE",
            sop_instance_uid=uids[at : at + UIDS_IN_ONE_LINE],
            reason=reason,
        )
    for planned in lost:
        retrieval.count(planned, CANNOT_RESTORE)


def batches(planned_ones: list[Planned]) -> Iterator[list[Planned]]:
    """Cut a plan so that each part needs at most 128 presentation contexts."""
    groups: dict[tuple[str, str], list[Planned]] = {}
    for planned in planned_ones:
        groups.setdefault((planned.sop_class_uid, planned.transfer_syntax_uid), []).append(planned)
    several = iter(groups.values())
    while part := list(islice(several, MOST_CONTEXTS)):
        yield [planned for group in part for planned in group]


def _prepare(
    session: Session, request: C_GET | C_MOVE, context: PresentationContext
) -> tuple[_Retrieval, list[Planned]] | None:
    """Read the identifier and look up what it names; None when the request was answered with a failure already."""
    model = model_of(request)
    operation = "C-MOVE" if isinstance(request, C_MOVE) else "C-GET"
    try:
        identifier = read_identifier(request.Identifier, context.transfer_syntax[0])
        level = retrieve_level(model.root, identifier)
    except DicomError as error:
        session.audit(events.RETRIEVE, "failure", operation=operation, model=model.root, reason=error.code)
        session.respond(request, context, IDENTIFIER_DOES_NOT_MATCH, comment=error.message)
        return None
    locators = session.services.index.select(model.root, level, identifier, Scope(session.workstation.studies))
    if len(locators) > MAX_SUBOPERATIONS:
        session.audit(
            events.RETRIEVE, "failure", operation=operation, model=model.root, level=level, matches=len(locators)
        )
        session.respond(request, context, TOO_MANY_MATCHES, comment="more than 65535 instances")
        return None
    retrieval = _Retrieval(session, request, context, level, Tally(remaining=len(locators)))
    found = plan(session, locators, frozenset(uids_of(identifier)), operation)
    for locator, code in found.failed:
        if code == "carried":
            retrieval.comment = "not in the vault: C-STORE the marked copy here"
        retrieval.count(Planned(locator, "", "", ""), CANNOT_RESTORE)
    try:
        retrieval.intent = session.intend(found.planned, operation)
    except CapacityError as error:
        session.respond(request, context, UNABLE_TO_PERFORM, comment=error.message)
        return None
    return retrieval, found.planned
