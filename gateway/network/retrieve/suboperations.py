"""C-STORE sub-operations that send an original's bytes as they are, and the counting of them.

pynetdicom's own C-GET and C-MOVE re-encode the data set (the bytes change although the status is 0x0000). Here the
encoded data set is cut into P-DATA fragments of the peer's size and never looked at (PS3.7 9.3.1, PS3.8 Annex E).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway.errors import TransientError

MAX_SUBOPERATIONS = 65_535  # the counts of a response are US (PS3.7 9.3.3.2, 9.3.4.2)
MAX_FRAGMENT = 1024 * 1024  # bytes; also for peers that state no limit
MAX_QUEUED = 8  # PDUs that wait for the socket: what one transfer may hold in memory
PDV_HEADER = 6  # item length, context id, message control header


class Original(Protocol):
    """A restored original, as `gateway.restore` hands it out."""

    locator: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str

    def verify(self) -> None: ...

    def stream(self) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Planned:
    """One sub-operation to do."""

    locator: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @classmethod
    def of(cls, original: Original) -> Planned:
        """The sub-operation that sends this original."""
        return cls(original.locator, original.sop_class_uid, original.sop_instance_uid, original.transfer_syntax_uid)


@dataclass(frozen=True)
class Originator:
    """Who asked for a C-MOVE: goes into every sub-operation's request (PS3.7 9.3.1.1)."""

    ae_title: str
    message_id: int


@dataclass
class Tally:
    """Counts of one retrieval (PS3.4 C.4.2.1.7, C.4.3.1.4)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, sop_instance_uid: str, status: int) -> None:
        """Enter one finished sub-operation with its C-STORE status."""
        self.remaining -= 1
        if status == 0x0000:
            self.completed += 1
        elif is_warning(status):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_instance_uid)

    def final_status(self) -> int:
        """0x0000, 0xB000 (some failed or warned), or 0xA702 (nothing arrived)."""
        if self.failed and not self.completed and not self.warning:
            return 0xA702
        return 0xB000 if self.failed or self.warning else 0x0000


def is_warning(status: int) -> bool:
    """Whether a C-STORE status means stored, with a warning (PS3.7 C.3)."""
    return status == 0x0001 or 0xB000 <= status <= 0xBFFF


def message_ids(after: int) -> Iterator[int]:
    """Message IDs for sub-operations of request `after`, never its own, wrapping at 16 bits."""
    number = after
    while True:
        number = number % 65_535 + 1
        if number != after:
            yield number


def context_for(association: Association, planned: Planned) -> int | None:
    """The accepted presentation context on which we may send exactly this, or None: nothing is ever converted.

    On an association that a peer opened to us, that is one for which it took the SCP role. Some peers (dcmjs-dimse)
    ask for a C-GET and never negotiate roles: a context without any role negotiated is good enough then.
    """
    fallback = None
    for context in association.accepted_contexts:
        if (
            context.abstract_syntax == planned.sop_class_uid
            and context.transfer_syntax[0] == planned.transfer_syntax_uid
        ):
            if context.as_scu:
                return context.context_id
            if association.is_acceptor and context.abstract_syntax not in association.requestor.role_selection:
                fallback = context.context_id
    return fallback


def is_alive(association: Association) -> bool:
    """Whether the association still carries data."""
    return (
        association.is_established
        and not association._sent_abort
        and association.dul.is_alive()
        and not association.acse.is_aborted()
    )


def let_peer_speak(association: Association) -> None:
    """Wait until everything is sent and the reactor had a turn to read: a C-CANCEL may lie in the socket.

    pynetdicom's reactor reads only while nothing waits to be sent.
    """
    while is_alive(association) and not association.dul.to_provider_queue.empty():
        time.sleep(0.0005)
    time.sleep(0.003)


def send_original(
    association: Association,
    context_id: int,
    message_id: int,
    planned: Planned,
    chunks: Iterable[bytes],
    originator: Originator | None = None,
) -> int:
    """Send one C-STORE request with these data set bytes, and wait for its answer.

    The caller has paused the association's reactor, or is its request handler.

    Returns
    -------
    int
        The status of the C-STORE response.

    Raises
    ------
    TransientError
        Code ``association-lost``: the peer went away, stayed silent or answered something else. The association is
        aborted. Whatever `chunks` raises goes through, after the association was aborted: half a data set was sent.
    """
    try:
        _send_command(association, context_id, message_id, planned, originator)
        _send_data_set(association, context_id, chunks)
    except BaseException:
        hard_abort(association)
        raise
    _, response = association.dimse.get_msg(block=True)
    if not isinstance(response, C_STORE) or response.MessageIDBeingRespondedTo != message_id or response.Status is None:
        hard_abort(association)
        raise TransientError("association-lost", "the receiver did not answer a sub-operation")
    return int(response.Status)


def hard_abort(association: Association) -> None:
    """End the association at once, also when its socket's thread is stuck in sending.

    An A-ABORT cannot be queued behind half a data set that nobody takes: then the connection itself is ended.
    """
    if association.dul.to_provider_queue.empty():
        association.abort(block=False)
    else:
        association.dul.socket._shutdown_socket()


def _send_command(
    association: Association, context_id: int, message_id: int, planned: Planned, originator: Originator | None
) -> None:
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = planned.sop_class_uid
    request.AffectedSOPInstanceUID = planned.sop_instance_uid
    request.Priority = 0x00  # medium
    if originator is not None:
        request.MoveOriginatorApplicationEntityTitle = originator.ae_title
        request.MoveOriginatorMessageID = originator.message_id
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    message.command_set.CommandDataSetType = 0x0001  # a data set follows; we send it ourselves
    for fragment in message.encode_msg(context_id, association.dimse.maximum_pdu_size):
        _enqueue(association, fragment)


def _send_data_set(association: Association, context_id: int, chunks: Iterable[bytes]) -> None:
    limit = association.dimse.maximum_pdu_size or MAX_FRAGMENT
    size = max(1, min(limit, MAX_FRAGMENT) - PDV_HEADER)
    held: bytes | None = None  # the last fragment is marked as such, so one is always held back
    for fragment in refragment(chunks, size):
        if held is not None:
            _enqueue(association, _fragment(context_id, 0x00, held))
        held = fragment
    _enqueue(association, _fragment(context_id, 0x02, held or b""))


def refragment(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream of chunks of any sizes into fragments of `size` bytes; the last one may be shorter."""
    waiting = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view):
            taken = view[: size - len(waiting)]
            waiting += taken
            view = view[len(taken) :]
            if len(waiting) == size:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)


def _fragment(context_id: int, control: int, data: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, bytes((control,)) + data))
    return primitive


def _enqueue(association: Association, primitive: P_DATA) -> None:
    """Queue one PDU, waiting while the peer is slower than we are. A stuck socket ends in its own timeout."""
    waiting = association.dul.to_provider_queue
    while waiting.qsize() >= MAX_QUEUED and is_alive(association):
        time.sleep(0.0005)
    if not is_alive(association):
        raise TransientError("association-lost", "the receiver closed the association")
    association.dul.send_pdu(primitive)
