"""One C-STORE request of a peer between its command and its response (PS3.7 9.1.1), and what errors are answered as.

An error on the way in refuses the object, not the association.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from gateway.audit import FIELDS, events
from gateway.errors import CapacityError, DicomError, GatewayError, fault
from gateway.flow.ports import Incoming, ReceivedFacts, Receiver
from gateway.network import command as dimse
from gateway.network.upper_layer import GatewayAssociation

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.10
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.13
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3, as the next two
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

# Stable codes out of the ranges that the standard leaves to us. Scripts and the conformance statement rely on them.
STATUS_BY_CODE = {
    "uid-mismatch": DATA_SET_DOES_NOT_MATCH,
    "sop-class-mismatch": DATA_SET_DOES_NOT_MATCH,
    "not-dicom": 0xC001,
    "truncated": 0xC002,
    "missing-uid": 0xC003,
    "no-data-set": 0xC004,
    "already-marked": 0xC010,
    "instance-too-large": 0xC011,
    "sop-class-not-negotiated": SOP_CLASS_NOT_SUPPORTED,
}

_log = logging.getLogger(__name__)


def status_of(error: Exception) -> tuple[int, str]:
    """The DIMSE status and the stable word for an error on the way into the spool."""
    if isinstance(error, CapacityError):
        return OUT_OF_RESOURCES, error.code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OUT_OF_RESOURCES, "disk-full"
    if isinstance(error, DicomError):
        return STATUS_BY_CODE.get(error.code, CANNOT_UNDERSTAND), error.code
    if isinstance(error, GatewayError):
        return PROCESSING_FAILURE, error.code
    return PROCESSING_FAILURE, "internal-error"


def sentence_of(error: Exception) -> str:
    """What the sender's log may show: Error Comment (0000,0902), LO, at most 64 characters, and no PHI."""
    _, word = status_of(error)
    told = f"{word}: {error.message}" if isinstance(error, GatewayError) and error.message else word
    return told.encode("ascii", "replace").decode()[:64].replace("\\", "/")


class IncomingObject:
    """One C-STORE request between its command and its response.

    An error on the way in refuses the object, not the association: the rest of its fragments is let through to
    nowhere and the response says why.

    Attributes
    ----------
    size
        Bytes of the data set so far.
    """

    def __init__(
        self,
        association: GatewayAssociation,
        context_id: int,
        command: dimse.Command,
        receiver: Receiver,
        longest: int,
        write_audit: Callable[..., None],
    ) -> None:
        self.context_id = context_id
        self.size = 0
        self._association = association
        self._command = command
        self._receiver = receiver
        self._longest = longest
        self._tell_audit = write_audit
        self._incoming: Incoming | None = None
        self._refusal: tuple[int, str] | None = None
        self._sentence = ""
        self._transfer_syntax = str(association._accepted_cx[context_id].transfer_syntax[0])  # KeyError: A-ABORT
        try:
            self._begin()
        except Exception as error:
            self._refuse(error)

    def _begin(self) -> None:
        sop_class = str(self._command.get(dimse.AFFECTED_SOP_CLASS_UID, ""))
        sop_instance = str(self._command.get(dimse.AFFECTED_SOP_INSTANCE_UID, ""))
        if sop_class != self._association._accepted_cx[self.context_id].abstract_syntax:
            raise DicomError("sop-class-not-negotiated", "the SOP class of the command is not that of its context")
        if not 0 < len(sop_instance) <= 64 or not set(sop_instance) <= set("0123456789."):
            raise DicomError("missing-uid", "the command has no usable SOP Instance UID")
        caller = self._association.known_caller
        self._receiver.admit(caller.called_ae, caller.calling_ae, sop_class)
        self._incoming = self._receiver.begin(
            ReceivedFacts(
                calling_ae=caller.calling_ae,
                called_ae=caller.called_ae,
                peer_address=caller.address,
                association_id=caller.association_id,
                sop_class_uid=sop_class,
                sop_instance_uid=sop_instance,
                transfer_syntax_uid=self._transfer_syntax,
            )
        )

    def write(self, data: bytes | memoryview) -> None:
        """Take one fragment."""
        self.size += len(data)
        if self._refusal is not None:
            return
        try:
            if self.size > self._longest:
                raise DicomError("instance-too-large", f"more than {self._longest >> 20} MiB")
            assert self._incoming is not None  # or it is refused
            self._incoming.write(data)
        except Exception as error:
            self._refuse(error)

    def finish(self) -> bytes:
        """Commit, and return the command set of the response (C-STORE-RSP, PS3.7 9.3.1.2)."""
        if self._refusal is None:
            try:
                assert self._incoming is not None  # or it is refused
                self._incoming.commit()
            except Exception as error:
                self._refuse(error)
        # From here on the instance is durable, or refused and forgotten: nothing below may change which.
        response: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: self._command.get(dimse.MESSAGE_ID, 0),
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: self.status,
        }
        for number in (dimse.AFFECTED_SOP_CLASS_UID, dimse.AFFECTED_SOP_INSTANCE_UID):
            uid = dimse.text_in(self._command, number)
            if uid and uid.isascii() and len(uid) <= 64:
                response[number] = uid
        if self._sentence:
            response[dimse.ERROR_COMMENT] = self._sentence
        return dimse.encode_command(response)

    def cut_off(self) -> None:
        """The association ended in the middle of this object."""
        if self._refusal is None:
            self._refusal = (PROCESSING_FAILURE, "aborted-mid-object")
            self._forget()
            self._write_audit("failure", self._refusal)

    @property
    def status(self) -> int:
        """What is answered, once it is finished or cut off."""
        return SUCCESS if self._refusal is None else self._refusal[0]

    @property
    def instance(self) -> str:
        """The SOP Instance UID of the command, or nothing."""
        return dimse.text_in(self._command, dimse.AFFECTED_SOP_INSTANCE_UID)

    def _refuse(self, error: Exception) -> None:
        self._refusal = refusal = status_of(error)
        self._sentence = sentence_of(error)
        if not isinstance(error, GatewayError):
            _log.error("C-STORE in association %s: %s", self._association.association_id, fault(error))
        self._forget()
        self._write_audit("failure" if refusal[0] in (PROCESSING_FAILURE, OUT_OF_RESOURCES) else "refused", refusal)

    def _forget(self) -> None:
        if self._incoming is None:
            return
        try:
            self._incoming.abort()
        except Exception as error:
            _log.error("could not forget an object of %s: %s", self._association.association_id, fault(error))

    def _write_audit(self, outcome: str, refusal: tuple[int, str]) -> None:
        status, reason = refusal
        caller = self._association.known_caller.audit_fields()
        told = " ".join(str(FIELDS[name](caller[name])) for name in ("calling_ae", "peer_address"))
        _log.info("instance refused: %s, 0x%04X, from %s", reason, status, told)
        self._tell_audit(
            events.INSTANCE_REFUSED,
            outcome,
            reason=reason,
            status=status,
            sop_class_uid=self._command.get(dimse.AFFECTED_SOP_CLASS_UID),
            sop_instance_uid=self._command.get(dimse.AFFECTED_SOP_INSTANCE_UID),
            transfer_syntax_uid=self._transfer_syntax,
            bytes=self.size,
            **self._association.known_caller.audit_fields(),
        )
