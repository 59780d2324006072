"""The PDUs of an association that we ask for: what we send, and what is read of what the peer sends."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pydicom.uid import UID
from pynetdicom import _globals
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

from gateway.errors import PermanentError, TransientError
from gateway.network import settings
from gateway.network.associate_pdus import Reject
from gateway.network.connect import Peer
from gateway.network.pdu_socket import DataPdu

MOST_CONTEXTS = 128  # odd numbers of one byte, PS3.8 9.3.2.2
P_DATA, ABORT = 0x04, 0x07
WHOLE_COMMAND = 0x03  # message control header of a command set in one fragment (PS3.8 E.2)


def numbered(contexts: Iterable[tuple[str, str]]) -> list[PresentationContext]:
    """(SOP class, transfer syntax) pairs as presentation contexts with their numbers."""
    proposed = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
    if not 0 < len(proposed) <= MOST_CONTEXTS:
        raise ValueError(f"1 to {MOST_CONTEXTS} presentation contexts can be proposed, not {len(proposed)}")
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    return proposed


def associate_request(peer: Peer, contexts: list[PresentationContext], as_scp: Iterable[str], window: int = 1) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2); a window of more than one operation is asked for (PS3.7 D.3.3.3)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(_globals.APPLICATION_CONTEXT_NAME)
    primitive.calling_ae_title = peer.calling_ae
    primitive.called_ae_title = peer.called_ae
    primitive.presentation_context_definition_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = peer.max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(settings.IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = settings.IMPLEMENTATION_VERSION_NAME
    roles = []
    for sop_class in as_scp:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(sop_class)
        role.scu_role, role.scp_role = False, True
        roles.append(role)
    asked = []
    if window > 1:
        operations = AsynchronousOperationsWindowNegotiation()
        operations.maximum_number_operations_invoked = window
        operations.maximum_number_operations_performed = 1
        asked.append(operations)
    primitive.user_information = [length, implementation, *asked, *roles, version]
    return A_ASSOCIATE_RQ(primitive).encode()


def rejected(reject: Reject) -> TransientError | PermanentError:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4) as an error: result 1 is permanent, 2 is transient."""
    text = f"the association was rejected: {reject.reason}"
    if reject.is_transient:
        return TransientError("association-rejected-for-now", text)
    hint = "compare the AE titles and addresses on both sides" if reject.source == 0x01 else ""
    return PermanentError("association-rejected", text, hint)


def abort_pdu() -> bytes:
    """A-ABORT of the service user (PS3.8 9.3.8)."""
    pdu = A_ABORT_RQ()
    pdu.source = 0x00
    pdu.reason_diagnostic = 0x00
    return pdu.encode()


def data_pdu(context_id: int, control: int, data: bytes) -> bytes:
    """P-DATA-TF (PS3.8 9.3.5) with one fragment; `control` is its message control header (E.2)."""
    return data_head(context_id, control, len(data)) + data


def data_head(context_id: int, control: int, length: int) -> bytes:
    """What stands in such a PDU before its fragment of `length` bytes."""
    return struct.pack(">BBLLBB", P_DATA, 0, length + 6, length + 2, context_id, control)


def fragments(body: bytearray) -> list[tuple[int, memoryview]]:
    """The fragments of a P-DATA-TF with the numbers of their contexts; TransientError ``unexpected-answer``."""
    try:
        return DataPdu(body).fragments
    except ValueError as error:
        raise TransientError("unexpected-answer", str(error)) from None
