"""C-STORE of a marked copy: "give me the original of this", answered by sending it to the workstation's own address.

Success means that the original has arrived there: the sub-operation is done before the answer. Of the copy only the
header is read, unless the original has to be rebuilt from it; nothing of it is kept.
"""

from __future__ import annotations

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from gateway.audit import events
from gateway.dicom.encoding.encoded import read_header
from gateway.errors import (
    CapacityError,
    DicomError,
    GatewayError,
    NotFoundError,
    PermanentError,
    SealError,
    TransientError,
)
from gateway.flow.statuses import is_stored
from gateway.network.retrieve.access import in_scope
from gateway.network.retrieve.deliver import CANNOT_RESTORE, NOT_AUTHORISED, deliver
from gateway.network.retrieve.destination import way_to
from gateway.network.retrieve.receiving import BoundedBuffer
from gateway.network.retrieve.session import Session
from gateway.network.retrieve.suboperations import Original, Planned

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700  # the peer may try again
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
NOT_DELIVERED = 0xC002  # the workstation's own address refused it, for good


class _Refused(Exception):
    """A C-STORE that ends in a failure status; `reason` is the audit's word for it."""

    def __init__(self, status: int, comment: str, reason: str, outcome: str = "refused") -> None:
        super().__init__(reason)
        self.status = status
        self.comment = comment
        self.reason = reason
        self.outcome = outcome


def serve_store(session: Session, request: C_STORE, context: PresentationContext) -> None:
    """Answer one C-STORE request of a marked copy."""
    status, comment = SUCCESS, ""
    try:
        _check(request, context)
        if not session.workstation.host:
            raise _Refused(NOT_AUTHORISED, "no address configured to send originals to", "no-address")
        with _original(session, request, context) as original:
            if not in_scope(session.workstation, original.study_uid):
                raise _Refused(NOT_AUTHORISED, "not authorised", "study-not-in-scope")
            _send(session, request, original)
    except CapacityError as error:  # no line in the audit, no original; nor can this refusal be audited
        status, comment = OUT_OF_RESOURCES, error.message
    except _Refused as refused:
        status, comment = refused.status, refused.comment
        session.audit(
            events.RESTORE_REFUSED,
            refused.outcome,
            operation="C-STORE",
            derived_sop_instance_uid=str(request.AffectedSOPInstanceUID),
            sop_class_uid=str(request.AffectedSOPClassUID),
            reason=refused.reason,
            status=status,
        )
    session.respond(request, context, status, comment=comment)


def _check(request: C_STORE, context: PresentationContext) -> None:
    """Whether there is a data set, and the one that the command announces."""
    data = request.DataSet
    if data is None:
        raise _Refused(DATA_SET_DOES_NOT_MATCH, "no data set", "no-data-set", "failure")
    data.seek(0)
    try:
        header = read_header(data, context.transfer_syntax[0])
    except DicomError as error:
        raise _Refused(CANNOT_UNDERSTAND, error.message, error.code, "failure") from None
    if header.sop_instance_uid != request.AffectedSOPInstanceUID or header.sop_class_uid != request.AffectedSOPClassUID:
        raise _Refused(DATA_SET_DOES_NOT_MATCH, "UIDs of data set and command differ", "uid-mismatch", "failure")


def _original(session: Session, request: C_STORE, context: PresentationContext) -> Original:
    """Find what the copy was made of: by its token, by what it carries, or by its UID when an archive has stripped the
    private block.

    No record, a foreign token and a study out of scope look alike to the peer: no answer here tells what exists.
    """
    data = request.DataSet
    if data is None:
        raise _Refused(DATA_SET_DOES_NOT_MATCH, "no data set", "no-data-set", "failure")
    data.seek(0)
    try:
        return session.services.restorer.by_copy(data, str(context.transfer_syntax[0]))
    except (NotFoundError, SealError) as error:
        # A token that belongs to another object is somebody cutting and pasting: event 110113, security alert.
        outcome = "refused" if isinstance(error, NotFoundError) else "failure"
        raise _Refused(NOT_AUTHORISED, "not authorised", error.code, outcome) from None
    except GatewayError as error:
        raise _Refused(CANNOT_RESTORE, "cannot be restored for certain", error.code, "failure") from None


def _send(session: Session, request: C_STORE, original: Original) -> None:
    services = session.services
    wanted = [(original.sop_class_uid, original.transfer_syntax_uid)]
    intent = session.intend([Planned.of(original)], "C-STORE")
    try:
        with way_to(services.settings, session.workstation, services.client_tls, wanted) as outlet:
            status = deliver(session, outlet, original, intent)
    except DicomError as error:
        # Of the caller's own copy, whose study is in scope: it may know why. A larger copy than is kept ends early.
        dropped = isinstance(request.DataSet, BoundedBuffer) and request.DataSet.dropped
        reason = "copy-too-large" if dropped else error.code
        comment = "too large here: use `miad-gateway restore`" if dropped else error.message
        raise _Refused(CANNOT_RESTORE, comment, reason, "failure") from None
    except TransientError as error:
        raise _Refused(OUT_OF_RESOURCES, "the original could not be delivered now", error.code, "failure") from None
    except PermanentError as error:
        raise _Refused(NOT_DELIVERED, "the original could not be delivered", error.code, "failure") from None
    if not is_stored(status):
        raise _Refused(status, "the original could not be delivered", "not-delivered", "failure")
