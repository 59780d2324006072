"""Bounded receiving: what a peer sends is kept in memory only as far as it is needed.

pynetdicom collects every message whole before anybody looks at it. Here a message's data set goes into a buffer that
keeps its beginning and counts the rest: of a marked object only the header is read, unless it carries its original, and
an identifier never is large.
"""

from __future__ import annotations

from io import BytesIO

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

# Bytes kept of a received data set: everything before the pixel data lies in them, and whole marked objects that carry
# their originals, but for large multi-frame ones.
MAX_DATA_SET = 128 * 1024 * 1024
MAX_COMMAND = 64 * 1024  # bytes; a command set is a few hundred
MAX_WAITING = 8  # messages; without an asynchronous window (we grant none) a peer has one or two under way


class BoundedBuffer(BytesIO):
    """Keeps the first `limit` bytes written to it and counts the others in `dropped`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.dropped = 0

    def write(self, data: bytes) -> int:
        kept = data[: max(0, self.limit - self.tell())]
        self.dropped += len(data) - len(kept)
        super().write(kept)
        return len(data)


class BoundedDimse(DIMSEServiceProvider):
    """A DIMSE provider whose messages are bounded in size and number.

    It takes the place of ``association.dimse`` before the association starts.
    """

    def __init__(self, association: Association, max_data_set: int = MAX_DATA_SET) -> None:
        super().__init__(association)
        self._max_data_set = max_data_set

    def receive_primitive(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.encoded_command_set = BoundedBuffer(MAX_COMMAND)
            self.message.data_set = BoundedBuffer(self._max_data_set)
        if self.msg_queue.qsize() >= MAX_WAITING:
            self.dul.event_queue.put("Evt19")  # PS3.8 9.2: an unrecognised or invalid PDU ends the association
            return
        super().receive_primitive(primitive)
