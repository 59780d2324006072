"""The requests that are under way on one association of ours, each known by its Message ID (PS3.7 9.3).

Answers come in any order (PS3.7 D.3.3.3). Of the threads that wait for one, the first reads for all: what it reads is
put beside the request that it answers, and when its own has come, the next one reads on. An answer to nothing that was
asked ends the association; what was answered before that stays answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import DicomError, TransientError
from gateway.network import command as dimse
from gateway.network.scu_pdus import ABORT, P_DATA, fragments

MOST = 65_535  # Message IDs, an unsigned short


@dataclass(frozen=True)
class Response:
    """What a peer answered to one request: the DIMSE status and its Error Comment, which is the peer's text."""

    status: int
    comment: str = ""


class Outstanding:
    """Requests without an answer, of one association; safe for several threads.

    Parameters
    ----------
    read_pdu
        Reads the next PDU: its type and body.
    """

    def __init__(self, read_pdu: Callable[[], tuple[int, bytearray]]) -> None:
        self._read_pdu = read_pdu
        self._changed = threading.Condition()
        self._answers: dict[int, Response | None] = {}
        self._last = 0
        self._encoded = bytearray()  # of a response whose last fragment has not come
        self._is_read = False
        self._is_closed = False  # nothing more is begun
        self._over: TransientError | None = None  # what the unanswered fail with
        self.last_answer = time.monotonic()

    def begin(self) -> int:
        """The Message ID of a request that is about to be sent; TransientError where the association is over."""
        with self._changed:
            if self._is_closed:
                raise _again(self._over or TransientError("association-ended", "the association was given up"))
            self._last = next(
                number
                for number in (step % MOST + 1 for step in range(self._last, self._last + MOST))
                if number not in self._answers
            )
            self._answers[self._last] = None
            return self._last

    def forget(self, number: int) -> None:
        """This request was not sent to its end."""
        with self._changed:
            self._answers.pop(number, None)
            self._changed.notify_all()

    def wait(self, number: int) -> Response:
        """The answer to a request.

        Raises
        ------
        TransientError
            The association ended before it came; codes as of `gateway.network.scu.ScuAssociation.store`.
        """
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._answers[number] or self._over or not self._is_read)
                    if (answer := self._answers[number]) is not None:
                        return answer
                    if self._over is not None:
                        raise _again(self._over)
                    self._is_read = True
                self._read()
        finally:
            self.forget(number)

    def settle(self, most_s: float) -> None:
        """Begin nothing more, and let what is under way be answered."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._answers, most_s)

    def end(self, error: TransientError) -> None:
        """Whatever has no answer by now fails with this error, or with the one before it."""
        with self._changed:
            self._over, self._is_closed = self._over or error, True
            self._changed.notify_all()

    def _read(self) -> None:
        """Read one PDU for all, and put what it answers beside the requests."""
        error: TransientError | None = TransientError("association-ended", "reading was broken off")
        try:
            kind, body = self._read_pdu()
            if kind == ABORT:
                raise TransientError("association-aborted", "the peer aborted the association")
            if kind != P_DATA:
                raise TransientError("association-ended", "the peer ended the association before it answered")
            for _, fragment in fragments(body):
                self._take(fragment)
            error = None
        except TransientError as caught:
            error = caught
        finally:
            with self._changed:
                self._is_read = False
                if error is not None:
                    self._over, self._is_closed = self._over or error, True
                self._changed.notify_all()

    def _take(self, fragment: memoryview) -> None:
        if not fragment[0] & 1:
            raise TransientError("unexpected-answer", "the peer sent a data set where a response was due")
        self._encoded += fragment[1:]
        if len(self._encoded) > dimse.LONGEST_COMMAND:
            raise TransientError("unexpected-answer", "the peer's response has more than 64 KiB")
        if not fragment[0] & 2:
            return
        encoded = bytes(self._encoded)
        self._encoded.clear()
        try:
            command = dimse.decode_command(encoded)
        except DicomError as error:
            raise TransientError("unexpected-answer", f"the peer's response: {error.message}") from None
        number = dimse.number_in(command, dimse.MESSAGE_ID_RESPONDED_TO)
        status, kind = dimse.number_in(command, dimse.STATUS), dimse.number_in(command, dimse.COMMAND_FIELD)
        with self._changed:
            is_awaited = number is not None and number in self._answers and self._answers[number] is None
            if not is_awaited or number is None or status is None or kind is None or kind < 0x8000:
                raise TransientError("unexpected-answer", "the peer sent something that does not answer our request")
            self._answers[number] = Response(status, dimse.text_in(command, dimse.ERROR_COMMENT))
            self.last_answer = time.monotonic()
            self._changed.notify_all()


def _again(error: TransientError) -> TransientError:
    """The same error, for one more thread."""
    return TransientError(error.code, error.message, error.hint)
