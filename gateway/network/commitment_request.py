"""One request of an archive for storage commitment, between its command and its response (N-ACTION, PS3.7 10.1.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.audit import events
from gateway.errors import CapacityError, DicomError, fault
from gateway.flow.ports import Requests
from gateway.network import command as dimse
from gateway.network.commitment_sets import INSTANCE, LONGEST, PUSH_MODEL, REQUEST, read_request
from gateway.network.upper_layer import GatewayAssociation

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 annex C, as the next ones
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213

_log = logging.getLogger(__name__)


class CommitmentRequest:
    """What is collected of it, and what is answered: success says that it is kept, not that anything is committed."""

    def __init__(
        self,
        association: GatewayAssociation,
        context_id: int,
        command: dimse.Command,
        requests: Requests | None,
        write_audit: Callable[..., None],
    ) -> None:
        self.context_id = context_id
        self._association = association
        self._command = command
        self._requests = requests
        self._write_audit = write_audit
        self._data = bytearray()
        context = association._accepted_cx[context_id]  # KeyError: A-ABORT
        self._abstract_syntax = str(context.abstract_syntax)
        self._transfer_syntax = str(context.transfer_syntax[0])

    def write(self, data: bytes | memoryview) -> None:
        """Take one fragment; what is longer than a request may be is let through to nowhere."""
        if len(self._data) <= LONGEST:
            self._data += data

    def finish(self) -> bytes:
        """Keep it, and return the command set of the response (N-ACTION-RSP)."""
        status, reason, count, uid = self._take()
        self._write_audit(
            events.COMMITMENT_REQUESTED,
            "success" if status == SUCCESS else "refused",
            status=status,
            reason=reason or None,
            transaction_uid=uid or None,
            count=count,
            **self._association.known_caller.audit_fields(),
        )
        response: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.N_ACTION_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: self._command.get(dimse.MESSAGE_ID, 0),
            dimse.AFFECTED_SOP_CLASS_UID: PUSH_MODEL,
            dimse.AFFECTED_SOP_INSTANCE_UID: INSTANCE,
            dimse.ACTION_TYPE_ID: REQUEST,
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status,
        }
        if reason:
            response[dimse.ERROR_COMMENT] = reason[:64]
        return dimse.encode_command(response)

    def cut_off(self) -> None:
        """The association ended in the middle of it: nothing was said, and nothing is kept."""

    def _take(self) -> tuple[int, str, int, str]:
        """Status, reason, how many instances, and Transaction UID."""
        uid, count = "", 0
        try:
            asked = dimse.text_in(self._command, dimse.REQUESTED_SOP_CLASS_UID)
            if self._abstract_syntax != PUSH_MODEL or asked != PUSH_MODEL or self._requests is None:
                return NO_SUCH_CLASS, "sop-class-not-negotiated", 0, ""
            if dimse.text_in(self._command, dimse.REQUESTED_SOP_INSTANCE_UID) != INSTANCE:
                return NO_SUCH_INSTANCE, "no-such-instance", 0, ""
            if dimse.number_in(self._command, dimse.ACTION_TYPE_ID) != REQUEST:
                return NO_SUCH_ACTION, "no-such-action", 0, ""
            uid, references = read_request(bytes(self._data), self._transfer_syntax)
            count = len(references)
            self._requests.asked(self._association.known_caller.calling_ae, uid, references)
        except DicomError as error:
            return INVALID_ARGUMENT, error.code, count, uid
        except CapacityError as error:
            return RESOURCE_LIMITATION, error.code, count, uid
        except Exception as error:
            _log.error("a request for storage commitment: %s", fault(error))
            return PROCESSING_FAILURE, "internal-error", count, uid
        return SUCCESS, "", count, uid
