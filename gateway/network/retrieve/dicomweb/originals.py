"""WADO-RS: originals as DICOM files, in the transfer syntax in which they came or not at all (PS3.18 10.4)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from typing import Protocol

from pydicom.dataset import Dataset

from gateway.audit import events
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import DeliveryError
from gateway.flow.statuses import is_stored
from gateway.network.http import Answered, Exchange
from gateway.network.http.media import accepted
from gateway.network.http.multipart import MultipartAnswer
from gateway.network.retrieve.ahead import Ahead
from gateway.network.retrieve.deliver import deliver_planned
from gateway.network.retrieve.dicomweb.targets import Target
from gateway.network.retrieve.planning import Plan, plan
from gateway.network.retrieve.session import Access
from gateway.network.retrieve.suboperations import MAX_SUBOPERATIONS, Outlet, Planned, Tally
from gateway.vault.index import Scope

OPERATION = "WADO-RS"
DICOM = "application/dicom"
_GONE = ("payload-missing", "carried")  # there is a record, and nothing to restore it from


class Wanted:
    """Which originals an Accept header lets through, and in which form.

    Without ``transfer-syntax`` the standard's own default counts, Explicit VR Little Endian (PS3.18 8.7.3.5.2); "*" is
    any. A caller that names no media type at all takes what there is, as it is.
    """

    def __init__(self, accept: str) -> None:
        self._forms: list[tuple[bool, str]] = []  # (one file alone, transfer syntax or "*")
        for one in accepted(accept):
            syntax = one.parameters.get("transfer-syntax", EXPLICIT_LITTLE)
            related = one.type == "multipart/related"
            if one.type in ("*/*", "multipart/*") or (related and "type" not in one.parameters):
                self._forms.append((False, "*"))
            elif related and one.parameters["type"].lower() == DICOM:
                self._forms.append((False, syntax))
            elif one.type in (DICOM, "application/*"):
                self._forms.append((True, "*" if one.type == "application/*" else syntax))

    def single(self, planned: Planned) -> bool:
        """Whether the first form that fits is a file alone, without multipart around it."""
        return next((single for single, syntax in self._forms if syntax in ("*", planned.transfer_syntax_uid)), False)

    def allows(self, planned: Planned, *, several: bool) -> bool:
        """Whether the original may be sent as it is; `several`: only inside multipart."""
        return any(
            syntax in ("*", planned.transfer_syntax_uid) and not (single and several) for single, syntax in self._forms
        )


class WebOutlet(Outlet, Protocol):
    """A way into one answer."""

    def may_be_partial(self) -> bool:
        """Called before the answer has begun, when something is left out of it: whether it may go on without."""


class FileOutlet:
    """Originals as files, in one multipart answer or one alone."""

    sends_files = True
    bit_exact = True

    def __init__(self, exchange: Exchange, parts: MultipartAnswer | None) -> None:
        self._exchange = exchange
        self._parts = parts

    def accepts(self, planned: Planned) -> bool:
        return True  # looked at before the line of intent

    def may_be_partial(self) -> bool:
        """Something is left out: whether the answer may go on without it."""
        if self._parts is not None:
            self._parts.status = 206
        return True

    def send(self, planned: Planned, chunks: Iterable[bytes]) -> int:
        head = io.BytesIO()
        write_part10(head, planned.sop_class_uid, planned.sop_instance_uid, planned.transfer_syntax_uid, ())
        file = itertools.chain((head.getvalue(),), chunks)
        media = f"{DICOM}; transfer-syntax={planned.transfer_syntax_uid}"
        if self._parts is not None:
            self._parts.part([("Content-Type", media)], file)
            return 0x0000
        self._exchange.start(200, [("content-type", media)])
        for chunk in file:
            self._exchange.write(chunk)
        self._exchange.end()
        return 0x0000


def serve_retrieve(access: Access, exchange: Exchange, target: Target) -> None:
    """Answer one retrieval: 200, 206 where something is left out, 404, 406, 410, or a broken connection."""
    wanted = Wanted(exchange.header("accept"))
    found = look_up(access, target, OPERATION)
    several = target.level != "IMAGE"
    allowed = [one for one in found.planned if wanted.allows(one, several=several)]
    if not allowed:
        access.audit(
            events.RETRIEVE, "failure", operation=OPERATION, level=target.level, reason="transfer-syntax-not-accepted"
        )
        raise Answered(406, "originals leave in the transfer syntax that they came in: accept it, or transfer-syntax=*")
    whole = len(allowed) == len(found.planned) + len(found.failed)
    single = not several and wanted.single(allowed[0])
    parts = None if single else MultipartAnswer(exchange, 200 if whole else 206, DICOM)
    tally = send_all(access, exchange, FileOutlet(exchange, parts), Plan(allowed, found.failed), OPERATION, target)
    if parts is not None and exchange.started:
        parts.end()
    told(access, target, OPERATION, tally)


def look_up(access: Access, target: Target, operation: str) -> Plan:
    """The originals that a target names, in the caller's scope, with those that cannot be restored.

    Raises
    ------
    Answered
        404: nothing there, or not for this caller; 410: no longer; 413: too many; 500: not for certain.
    """
    identifier = Dataset()
    for keyword, uid in (
        ("StudyInstanceUID", target.study),
        ("SeriesInstanceUID", target.series),
        ("SOPInstanceUID", target.instance),
    ):
        if uid:
            setattr(identifier, keyword, uid)
    locators = access.services.index.select("STUDY", target.level, identifier, Scope(access.workstation.studies))
    if not locators or len(locators) > MAX_SUBOPERATIONS:
        access.audit(events.RETRIEVE, "failure", operation=operation, level=target.level, matches=len(locators))
        if locators:
            raise Answered(413, f"more than {MAX_SUBOPERATIONS} instances")
        raise Answered(404, "there is no such original")
    found = plan(access, locators, frozenset((target.instance,) if target.instance else ()), operation)
    if not found.planned:
        if all(code in _GONE for _, code in found.failed):
            raise Answered(410, "the vault does not keep the original: its marked copy may carry it")
        raise Answered(500, "cannot be restored for certain")
    return found


def send_all(
    access: Access, exchange: Exchange, outlet: WebOutlet, found: Plan, operation: str, target: Target
) -> Tally:
    """Send what is planned after one line of intent, verified one by one.

    What fails before the answer has begun is left out of it; afterwards nothing can tell the caller but a broken
    connection.

    Raises
    ------
    TransientError
        ``association-lost``: the caller is gone; audited.
    Answered
        500: nothing could be restored for certain.
    """
    tally = Tally(remaining=len(found.planned) + len(found.failed))
    for locator, _ in found.failed:
        tally.count(locator, 0xC001)
    intent = access.intend(found.planned, operation)
    try:
        with Ahead(access.services.restorer, found.planned) as ahead:
            for planned in found.planned:
                status = deliver_planned(access, outlet, planned, ahead, intent)
                tally.count(planned.sop_instance_uid, status)
                if not is_stored(status):
                    if exchange.started:
                        exchange.abort()
                        break
                    if not outlet.may_be_partial():
                        break
    except DeliveryError:
        told(access, target, operation, tally)
        raise
    if not exchange.started:
        told(access, target, operation, tally)
        raise Answered(500, "cannot be restored for certain")
    return tally


def told(access: Access, target: Target, operation: str, tally: Tally) -> None:
    """Audit how a retrieval ended."""
    access.audit(
        events.RETRIEVE,
        "success" if tally.completed and not tally.failed and not tally.remaining else "failure",
        operation=operation,
        model="STUDY",
        level=target.level,
        completed=tally.completed,
        failed=tally.failed,
        remaining=tally.remaining,
    )
