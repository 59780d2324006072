"""Sub-operations on the association that asked: an original's bytes as they are.

pynetdicom's own C-GET re-encodes the data set (the bytes change although the status is 0x0000). Here the encoded data
set is cut into P-DATA fragments of the peer's size and never looked at (PS3.7 9.3.1, PS3.8 Annex E).
"""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections.abc import Iterable, Iterator

from pynetdicom.dimse_primitives import C_STORE

from gateway.errors import PermanentError, TransientError
from gateway.network import command as dimse
from gateway.network.retrieve.suboperations import Planned
from gateway.network.scu_pdus import data_head
from gateway.network.upper_layer import GatewayAssociation

MAX_FRAGMENT = 1024 * 1024  # bytes; also for peers that state no limit
AT_ONCE = 1024 * 1024  # bytes of fragments that go to the socket together
MOST_WAITING = 2  # such parts wait for the socket: what one transfer may hold in memory, besides what it is made of
LOOK_UP_S = 0.25  # seconds between two looks whether the association still lives
DATA_SET, COMMAND, LAST = 0x00, 0x01, 0x02  # message control header (PS3.8 E.2)
PDV_HEADER = 6  # item length, context id, message control header


class RequesterOutlet:
    """Sub-operations of a C-GET.

    Parameters
    ----------
    association
        The one that asked; this is used in its request handler, while its reactor waits.
    message_id
        Of the C-GET request.
    """

    sends_files = False
    bit_exact = True

    def __init__(self, association: GatewayAssociation, message_id: int) -> None:
        self._association = association
        self._numbers = message_ids(message_id)
        self._contexts: dict[tuple[str, str], int | None] = {}  # what was accepted stays so

    def accepts(self, planned: Planned) -> bool:
        return self._context(planned) is not None

    def _context(self, planned: Planned) -> int | None:
        wanted = (planned.sop_class_uid, planned.transfer_syntax_uid)
        if wanted not in self._contexts:
            self._contexts[wanted] = context_for(self._association, planned)
        return self._contexts[wanted]

    def send(self, planned: Planned, chunks: Iterable[bytes]) -> int:
        """See `Outlet.send`; code ``association-lost``: the peer went away, stayed silent or answered otherwise."""
        association = self._association
        message_id = next(self._numbers)
        context_id = self._context(planned)
        if context_id is None:  # `accepts` was not asked
            raise PermanentError("context-refused", "no accepted context for this SOP class in this transfer syntax")
        try:
            _send(association, context_id, _command(message_id, planned), chunks)
        except BaseException:
            hard_abort(association)
            raise
        response = _wait_for_answer(association)
        if (
            not isinstance(response, C_STORE)
            or response.MessageIDBeingRespondedTo != message_id
            or response.Status is None
        ):
            hard_abort(association)
            raise TransientError("association-lost", "the requester did not answer a sub-operation")
        return int(response.Status)


def message_ids(after: int) -> Iterator[int]:
    """Message IDs for sub-operations of request `after`, never its own, wrapping at 16 bits."""
    number = after
    while True:
        number = number % 65_535 + 1
        if number != after:
            yield number


def context_for(association: GatewayAssociation, planned: Planned) -> int | None:
    """The accepted presentation context on which we may send exactly this, or None: nothing is ever converted.

    It is one for which the requester took the SCP role (PS3.7 D.3.3.4). Some peers (dcmjs-dimse) ask for a C-GET and
    never negotiate roles: a context whose SOP class has no role negotiated is good enough then.
    """
    fallback = None
    for context in association.accepted_contexts:
        if (
            context.abstract_syntax == planned.sop_class_uid
            and context.transfer_syntax[0] == planned.transfer_syntax_uid
        ):
            if context.as_scu:
                return context.context_id
            if context.abstract_syntax not in association.requestor.role_selection:
                fallback = context.context_id
    return fallback


def is_alive(association: GatewayAssociation) -> bool:
    """Whether the association still carries data."""
    return (
        association.is_established
        and not association._sent_abort
        and not association.dul.is_over
        and not association.acse.is_aborted()
    )


def let_peer_speak(association: GatewayAssociation) -> None:
    """Wait until everything is sent and all that has come is read, for a quarter of a second at most.

    A C-CANCEL may lie in the socket, and pynetdicom's reactor reads only while nothing waits to be sent.
    """
    while is_alive(association) and not association.dul.to_provider_queue.empty():
        time.sleep(0.0005)
    time.sleep(0.003)
    deadline = time.monotonic() + LOOK_UP_S
    while is_alive(association) and not association.dul.has_read_all and time.monotonic() < deadline:
        time.sleep(0.0005)


def hard_abort(association: GatewayAssociation) -> None:
    """End the association at once, also when its socket's thread is stuck in sending.

    An A-ABORT cannot be queued behind half a data set that nobody takes: then the connection itself is ended. While
    this thread has borrowed the socket, nothing but such an end is queued.
    """
    if association.dul.is_borrowed or association.dul.to_provider_queue.empty():
        association.abort(block=False)
    else:
        association.dul.connection._shutdown_socket()


def _wait_for_answer(association: GatewayAssociation) -> object | None:
    """The next message, or None when it takes too long or the association ends, by the peer or by us."""
    deadline = time.monotonic() + (association.dimse_timeout or math.inf)
    messages = association.dimse.msg_queue
    while is_alive(association) and time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            if not association.dul.is_borrowed:
                return messages.get(timeout=LOOK_UP_S)[1]
            association.dul.turn()
            return messages.get(block=False)[1]
    return None


def _command(message_id: int, planned: Planned) -> bytes:
    """The command set of C-STORE-RQ (PS3.7 9.3.1.1)."""
    return dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: planned.sop_class_uid,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0x00,  # medium
            dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: planned.sop_instance_uid,
        }
    )


def _send(association: GatewayAssociation, context_id: int, command: bytes, chunks: Iterable[bytes]) -> None:
    """Send a command set and its data set, each with its last fragment marked (PS3.8 E.2), many PDUs at a time."""
    limit = association.dimse.maximum_pdu_size or MAX_FRAGMENT
    size = max(2, (min(limit, MAX_FRAGMENT) - PDV_HEADER) // 2 * 2)  # fragments are of even length (PS3.8 E.1)
    waiting: list[bytes | memoryview] = []
    amount = 0
    for kind, data in ((COMMAND, [command]), (DATA_SET, chunks)):
        held: memoryview | bytes = b""  # the last fragment is marked as such, so one is always held back
        for fragment in refragment(data, size):
            if held:
                waiting += (data_head(context_id, kind, len(held)), held)
                amount += len(held)
            held = fragment
            if amount >= AT_ONCE:
                _pass_on(association, waiting)
                waiting, amount = [], 0
        waiting += (data_head(context_id, kind | LAST, len(held)), held)
    _pass_on(association, waiting)


def refragment(chunks: Iterable[bytes], size: int) -> Iterator[memoryview | bytes]:
    """Cut a stream of chunks of any sizes into fragments of `size` bytes; the last one may be shorter.

    What lies whole in one chunk is not copied.
    """
    waiting = bytearray()
    tail: memoryview | None = None  # of one chunk, whole: copied only where another follows
    for chunk in chunks:
        if tail is not None:
            waiting += tail
            tail = None
        view = memoryview(chunk)
        while len(view):
            taken = view[: size - len(waiting)]
            view = view[len(taken) :]
            if not waiting and len(taken) == size:
                yield taken
            elif not waiting:
                tail = taken
            else:
                waiting += taken
                if len(waiting) == size:
                    yield bytes(waiting)
                    waiting.clear()
    if tail is not None:
        yield tail
    elif waiting:
        yield bytes(waiting)


def _pass_on(association: GatewayAssociation, pdus: list[bytes | memoryview]) -> None:
    """Send PDUs, or queue them behind at most `MOST_WAITING` others. A stuck socket ends in its own timeout."""
    waiting = association.dul.to_provider_queue
    while waiting.qsize() >= MOST_WAITING and is_alive(association):
        time.sleep(0.0005)
    if not is_alive(association):
        raise TransientError("association-lost", "the requester closed the association")
    association.dul.send_data(pdus)
