"""What one caller of the restore role works with: who it is, the services behind it, and how an association answers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from gateway.audit import events
from gateway.config.models import Restore, Workstation
from gateway.errors import CapacityError, GatewayError
from gateway.log import get_logger
from gateway.network import command
from gateway.network.callers import Caller
from gateway.network.retrieve.receiving import MemoryBudget
from gateway.network.retrieve.suboperations import Intent, Original, Planned
from gateway.network.scu_pdus import WHOLE_COMMAND, data_pdu
from gateway.network.upper_layer import GatewayAssociation

PENDING = 0xFF00
UIDS_IN_ONE_LINE = 500  # of the audit
log = get_logger(__name__)
MAX_COMMENT = 64  # characters of Error Comment (0000,0902), VR LO

Request = C_FIND | C_GET | C_MOVE | C_STORE


class Audit(Protocol):
    """The audit log, `gateway.audit`."""

    def write(self, event: str, outcome: str, **fields: object) -> None: ...

    def note(self, event: str, outcome: str, **fields: object) -> None: ...


class Index(Protocol):
    """The vault's index, `gateway.vault.index`."""

    def find(
        self,
        root: Any,
        level: str,
        query: Dataset,
        scope: Any,
        limit: int,
        is_over: Callable[[], bool],
        *,
        relational: bool = False,
    ) -> Iterator[Dataset]: ...

    def select(self, root: Any, level: str, identifier: Dataset, scope: Any) -> list[str]: ...

    def unsupported(self, root: Any, level: str, query: Dataset) -> bool: ...

    def transfer_syntaxes(self, scope: Any) -> Mapping[str, Sequence[str]]: ...


class Restorer(Protocol):
    """What opens originals, `gateway.restore`."""

    def by_locator(self, locator: str, named: Collection[str] | None = None) -> Original: ...

    def by_locators(
        self, locators: Sequence[str], named: Collection[str] | None = None
    ) -> Mapping[str, Original | GatewayError]: ...

    def by_uid(self, uid: str) -> Original: ...

    def by_token(self, token: bytes, derived_uid: str) -> Original: ...

    def by_copy(self, copy: BinaryIO, transfer_syntax_uid: str) -> Original: ...


class Viewer(Protocol):
    """What makes something to look at out of an original, in a process without keys: `gateway.restore.Viewer`.

    Raises DicomError for an original that it cannot be made of, CapacityError where no process can be had.
    """

    def metadata(self, chunks: Iterable[bytes], transfer_syntax_uid: str, bulk_url: str) -> bytes: ...

    def rendered(self, chunks: Iterable[bytes], transfer_syntax_uid: str, wish: Mapping[str, Any]) -> bytes: ...

    def bulk(self, chunks: Iterable[bytes], transfer_syntax_uid: str, tag: str) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Services:
    """What all associations share."""

    settings: Restore
    index: Index
    restorer: Restorer
    audit: Audit
    client_tls: ssl.SSLContext | None  # for associations that we request
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(512 << 20))  # of requests in reception
    viewer: Viewer | None = None  # of DICOMweb alone


@dataclass(frozen=True)
class Access:
    """A caller who was let in, over DICOM or HTTP, and what that lets it do."""

    services: Services
    caller: Caller
    workstation: Workstation  # the entry that let it in: its scope and its address

    def audit(self, event: str, outcome: str, **fields: object) -> None:
        """Write an audit line that names the caller."""
        self.services.audit.write(event, outcome, **self.caller.audit_fields(), **fields)

    def note(self, event: str, outcome: str, **fields: object) -> None:
        """Write the outcome of what a flushed line of intent names; it is flushed soon (`AuditLog.note`)."""
        self.services.audit.note(event, outcome, **self.caller.audit_fields(), **fields)

    def intend(self, plan: Sequence[Planned], operation: str) -> Intent:
        """Put on disk, before anything of it is sent, which originals are about to leave, and to whom.

        One flushed line names up to `UIDS_IN_ONE_LINE` of them. Their outcomes follow in lines of their own: one that
        is missing means that the gateway ended, or could write no more, while that original was on its way.

        Raises
        ------
        CapacityError
            ``audit-full``: the line could not be written, so nothing may leave.
        """
        try:
            for at in range(0, len(plan), UIDS_IN_ONE_LINE):
                uids = [planned.sop_instance_uid for planned in plan[at : at + UIDS_IN_ONE_LINE]]
                self.audit(events.RESTORE_INTENDED, "success", operation=operation, sop_instance_uid=uids)
        except OSError as error:
            log.error("the audit cannot be written: no original leaves", error=error.strerror)
            raise CapacityError("audit-full", "the audit trail cannot be written") from None
        return Intent(operation, frozenset(planned.locator for planned in plan))


@dataclass(frozen=True)
class Session(Access):
    """One association whose caller was let in."""

    association: GatewayAssociation

    def is_cancelled(self, request: Request) -> bool:
        """Whether a C-CANCEL for this request has arrived (PS3.7 9.3.2.3)."""
        return self.association.dimse.cancel_req.pop(number_of(request), None) is not None

    def pending(self, request: C_GET | C_MOVE, context: PresentationContext, counts: Mapping[int, int]) -> None:
        """Say how far a retrieval is (status 0xFF00); one for each sub-operation, so without pynetdicom's encoder.

        Parameters
        ----------
        counts
            Elements of group 0000 (`gateway.network.command`) and their numbers.
        """
        answer = command.C_MOVE_RSP if isinstance(request, C_MOVE) else command.C_GET_RSP
        encoded = command.encode_command(
            {
                command.AFFECTED_SOP_CLASS_UID: str(request.AffectedSOPClassUID),
                command.COMMAND_FIELD: answer,
                command.MESSAGE_ID_RESPONDED_TO: number_of(request),
                command.DATA_SET_TYPE: command.NO_DATA_SET,
                command.STATUS: PENDING,
                **counts,
            }
        )
        self.association.dul.send_data([data_pdu(id_of(context), WHOLE_COMMAND, encoded)], may_wait=True)

    def respond(
        self,
        request: Request,
        context: PresentationContext,
        status: int,
        *,
        identifier: Dataset | None = None,
        comment: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Send one response to `request`.

        Parameters
        ----------
        identifier
            Goes along, encoded in the context's transfer syntax.
        comment
            Error Comment (0000,0902), cut to 64 characters; never holds a value of the request.
        counts
            Attributes of the response primitive, e.g. ``NumberOfCompletedSuboperations``.
        """
        response: Any = type(request)()  # its attributes are properties that pynetdicom does not type
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = status
        if isinstance(request, C_STORE):
            response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        if comment:
            response.ErrorComment = comment[:MAX_COMMENT]
        for keyword, value in (counts or {}).items():
            setattr(response, keyword, value)
        if identifier is not None:
            response.Identifier = BytesIO(_encoded(identifier, context.transfer_syntax[0]))
        self.association.dimse.send_msg(response, id_of(context))


def number_of(request: Request) -> int:
    """Message ID (0000,0110) of a request that pynetdicom holds for a valid one."""
    if request.MessageID is None:
        raise ValueError("a request without a message id")
    return request.MessageID


def id_of(context: PresentationContext) -> int:
    """The id of a presentation context that was negotiated."""
    if context.context_id is None:
        raise ValueError("a presentation context without an id")
    return context.context_id


def _encoded(identifier: Dataset, transfer_syntax: UID) -> bytes:
    data = encode(
        identifier, transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian, transfer_syntax.is_deflated
    )
    if data is None:
        raise ValueError("an answer could not be encoded")
    return data
