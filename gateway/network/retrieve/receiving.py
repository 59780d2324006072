"""Bounded receiving: what a peer sends is kept in memory only as far as it is needed, and all of it within one budget.

pynetdicom collects every message whole before anybody looks at it. Here a message's data set goes into a buffer that
keeps its beginning and counts the rest: of a marked object only the header is read, unless it carries its original, and
an identifier never is large. All associations draw on one budget; a request for which there is none left is answered
with "out of resources".
"""

from __future__ import annotations

import contextlib
import threading
from io import BytesIO
from typing import TYPE_CHECKING

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway.errors import DicomError
from gateway.network import command
from gateway.network.command import LONGEST_COMMAND, with_plain_titles

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Bytes kept of a received data set: everything before the pixel data lies in them, and whole marked objects that carry
# their originals, but for large multi-frame ones.
MAX_DATA_SET = 128 * 1024 * 1024
MAX_WAITING = 8  # messages; without an asynchronous window (we grant none) a peer has one or two under way
MAX_CANCELS = 10  # requests to cancel that wait for their operation


class MemoryBudget:
    """Bytes that the requests in reception may take together. Safe for any number of threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes in use."""
        return self._taken

    def take(self, amount: int) -> bool:
        """Whether there were `amount` bytes left; they are taken then."""
        with self._lock:
            if self._taken + amount > self._limit:
                return False
            self._taken += amount
            return True

    def give(self, amount: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._taken -= amount


class BoundedBuffer(BytesIO):
    """Keeps the first `limit` bytes written to it and counts the others in `dropped`.

    `starved` says that they were dropped because the budget of all associations was used up.
    """

    def __init__(self, limit: int, budget: MemoryBudget | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.dropped = 0
        self.starved = False
        self._budget = budget
        self._charged = 0

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data)
        kept = view[: max(0, self.limit - self.tell())] if not self.starved else view[:0]
        if self._budget is not None and len(kept) and not self._charge(len(kept)):
            self.starved = True
            kept = view[:0]
        self.dropped += len(view) - len(kept)
        super().write(kept)
        return len(view)

    def free(self) -> None:
        """Give the memory back; what was received is gone."""
        if self._budget is not None and self._charged:
            self._budget.give(self._charged)
            self._charged = 0
        self.seek(0)
        with contextlib.suppress(BufferError):  # somebody still looks at it; it goes when they do
            self.truncate()

    @property
    def charged(self) -> int:
        """Bytes of the budget that it holds."""
        return self._charged

    def _charge(self, amount: int) -> bool:
        if self._budget is None or not self._budget.take(amount):
            return False
        self._charged += amount
        return True


def _answer(received: bytes) -> C_STORE | None:
    """A C-STORE-RSP, of which there is one for each sub-operation; None: it is something else, or malformed."""
    try:
        read = command.decode_command(received)
    except DicomError:
        return None
    about, status = read.get(command.MESSAGE_ID_RESPONDED_TO), read.get(command.STATUS)
    if read[command.COMMAND_FIELD] != command.C_STORE_RSP or read.get(command.DATA_SET_TYPE) != command.NO_DATA_SET:
        return None
    if not isinstance(about, int) or not isinstance(status, int):
        return None
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo, answer.Status = about, status
    return answer


class BoundedDimse(DIMSEServiceProvider):
    """A DIMSE provider whose messages are bounded in size and number, one at a time in reception.

    Fragments are put together one by one, so a C-CANCEL may lie in the same PDU as the request that it cancels; and a
    request forgets a C-CANCEL of its message id that came before it.
    """

    def __init__(
        self, association: Association, max_data_set: int = MAX_DATA_SET, budget: MemoryBudget | None = None
    ) -> None:
        super().__init__(association)
        self._max_data_set = max_data_set
        self._budget = budget
        self._command = bytearray()
        self._context_id = 0  # of the message in reception
        self._buffers: list[BoundedBuffer] = []  # not yet given back
        self._buffers_lock = threading.Lock()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA, in the socket's thread.

        Raises
        ------
        DicomError
            Codes ``bad-command``, ``too-many-requests``: the association has to end.
        """
        for context_id, fragment in primitive.presentation_data_value_list:
            if fragment[0] & 1:  # message control header, PS3.8 E.2: bit 0 command, bit 1 last fragment
                self._take_command(context_id, fragment)
            elif self.message is None or context_id != self._context_id:
                raise DicomError("bad-command", "a data set without its command, or under another context")
            else:
                self._decode(self.message, context_id, bytes(fragment))

    def free(self, message: object) -> None:
        """Give back the memory of a request that was served."""
        for name in ("DataSet", "Identifier"):
            buffer = getattr(message, name, None)
            if isinstance(buffer, BoundedBuffer):
                self._give_back([buffer])

    def connection_ended(self) -> None:
        """Give back the memory of requests that nobody will serve any more."""
        with self._buffers_lock:
            left = list(self._buffers)
        self._give_back(left)

    def _take_command(self, context_id: int, fragment: bytes) -> None:
        if self.message is not None:
            raise DicomError("bad-command", "a command in the middle of a data set")
        if self._command and context_id != self._context_id:
            raise DicomError("bad-command", "the parts of a command under different contexts")
        self._context_id = context_id
        self._command += fragment[1:]
        if len(self._command) > LONGEST_COMMAND:
            raise DicomError("bad-command", "a command set of more than 64 KiB")
        if not fragment[0] & 2:
            return
        received = bytes(self._command)
        self._command.clear()
        answer = _answer(received)
        if answer is not None:
            self.msg_queue.put((context_id, answer))
            return
        encoded = with_plain_titles(received)
        if self.msg_queue.qsize() >= MAX_WAITING:
            raise DicomError("too-many-requests", "requests come faster than they are answered")
        message = DIMSEMessage()
        message.data_set = self._buffer()
        self.message = message
        self._decode(message, context_id, b"\x03" + encoded)

    def _decode(self, message: DIMSEMessage, context_id: int, fragment: bytes) -> None:
        """Let pynetdicom decode one fragment; a message that is whole then goes where it belongs."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, fragment))
        try:
            if not message.decode_msg(primitive, self.assoc):
                return
            decoded = message.message_to_primitive()
        except Exception:
            raise DicomError("bad-command", "a command set that is no DIMSE message") from None
        self.message = None
        if isinstance(message.data_set, BoundedBuffer) and not message.data_set.charged:
            self._give_back([message.data_set])
        if isinstance(decoded, C_CANCEL):
            number = decoded.MessageIDBeingRespondedTo
            if number is not None and len(self.cancel_req) < MAX_CANCELS:
                self.cancel_req[number] = decoded
            return
        number = getattr(decoded, "MessageID", None)
        if isinstance(number, int):
            self.cancel_req.pop(number, None)  # of an earlier request with the same number
        self.msg_queue.put((context_id, decoded))

    def _buffer(self) -> BoundedBuffer:
        buffer = BoundedBuffer(self._max_data_set, self._budget)
        with self._buffers_lock:
            self._buffers.append(buffer)
        return buffer

    def _give_back(self, buffers: list[BoundedBuffer]) -> None:
        for buffer in buffers:
            buffer.free()
            with self._buffers_lock:
                if buffer in self._buffers:
                    self._buffers.remove(buffer)
