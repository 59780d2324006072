"""The requests that are under way on one association of ours, each known by its Message ID (PS3.7 9.3).

Answers come in any order (PS3.7 D.3.3.3). Of the threads that wait for one, the first reads for all: what it reads is
put beside the request that it answers, and when its own has come, the next one reads on. An answer to nothing that was
asked ends the association; what was answered before that stays answered.

A peer may answer others and never one: that one is given up when it has waited as long as the whole window may take,
one answer after the other. It alone fails of it.
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


@dataclass
class _Request:
    """What was asked, and what came of it."""

    command_field: int
    instance: str  # its SOP Instance UID, where it is about one
    sent: float | None = None  # to its end, by `time.monotonic`
    answer: Response | None = None


class Outstanding:
    """Requests without an answer, of one association; safe for several threads.

    Parameters
    ----------
    read_pdu
        Reads the next PDU: its type and body. TransientError ``no-answer`` when `patience` is over.
    timeout_s
        How long the peer may take from one answer to the next.
    """

    def __init__(self, read_pdu: Callable[[], tuple[int, bytearray]], timeout_s: float) -> None:
        self._read_pdu = read_pdu
        self._timeout_s = timeout_s
        self.window = 1
        self._changed = threading.Condition()
        self._requests: dict[int, _Request] = {}
        self._last = 0
        self._encoded = bytearray()  # of a response whose last fragment has not come
        self._is_read = False
        self._is_closed = False  # nothing more is begun
        self._over: TransientError | None = None  # what the unanswered fail with
        self.last_answer = time.monotonic()

    def begin(self, command_field: int, instance: str = "") -> int:
        """The Message ID of a request that is about to be sent; TransientError where the association is over."""
        with self._changed:
            if self._is_closed:
                raise _again(self._over or TransientError("association-ended", "the association was given up"))
            self._last = next(
                number
                for number in (step % MOST + 1 for step in range(self._last, self._last + MOST))
                if number not in self._requests
            )
            self._requests[self._last] = _Request(command_field, instance)
            return self._last

    def forget(self, number: int) -> None:
        """This request was not sent to its end."""
        with self._changed:
            self._requests.pop(number, None)
            self._changed.notify_all()

    def wait(self, number: int) -> Response:
        """The answer to a request that was sent to its end.

        Raises
        ------
        TransientError
            The association ended before it came; codes as of `gateway.network.scu.ScuAssociation.store`. Of a request
            that was passed over while others were answered: ``no-answer``, about this instance.
        """
        try:
            with self._changed:
                request = self._requests[number]
                request.sent = time.monotonic()
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: request.answer or self._over or not self._is_read)
                    if request.answer is not None:
                        return request.answer
                    if self._over is not None:
                        raise self._passed_over(request) or _again(self._over)
                    self._is_read = True
                self._read()
        finally:
            self.forget(number)

    def patience(self, last_sent: float) -> float:
        """Seconds until the peer should have answered: since it was last sent anything, or has answered anything, and
        each request since it was sent.
        """
        with self._changed:
            sent = [one.sent for one in self._requests.values() if one.sent is not None and one.answer is None]
            due = [max(last_sent, self.last_answer) + self._timeout_s, *map(self._due, sent)]
        return min(due) - time.monotonic()

    def _due(self, sent: float) -> float:
        return sent + self._timeout_s * self.window

    def _passed_over(self, request: _Request) -> TransientError | None:
        """The error of a request that was not answered in its time although others were."""
        if request.sent is None or not request.sent < self.last_answer or time.monotonic() < self._due(request.sent):
            return None
        error = TransientError("no-answer", "the peer answered others and never this")
        error.about_instance = True
        return error

    def settle(self, most_s: float) -> None:
        """Begin nothing more, and let what is under way be answered."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._requests, most_s)

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
                if error is not None and any(map(self._passed_over, self._requests.values())):
                    error = TransientError("association-ended", "given up: the peer passed over another request")
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
        number, status = (dimse.number_in(command, what) for what in (dimse.MESSAGE_ID_RESPONDED_TO, dimse.STATUS))
        with self._changed:
            request = self._requests.get(number) if number is not None else None
            if request is None or request.answer is not None or status is None or not self._answers(command, request):
                raise TransientError("unexpected-answer", "the peer sent something that does not answer our request")
            request.answer = Response(status, dimse.text_in(command, dimse.ERROR_COMMENT))
            self.last_answer = time.monotonic()
            self._changed.notify_all()

    def _answers(self, command: dimse.Command, request: _Request) -> bool:
        """Whether it is of the same operation, and does not name the instance of another request that is under way.

        An instance that nobody asked about is no sign of a mistake: a receiver may coerce UIDs.
        """
        if dimse.number_in(command, dimse.COMMAND_FIELD) != request.command_field | dimse.IS_RESPONSE:
            return False
        named = dimse.text_in(command, dimse.AFFECTED_SOP_INSTANCE_UID)
        others = {one.instance for one in self._requests.values()} - {request.instance, ""}
        return named not in others


def _again(error: TransientError) -> TransientError:
    """The same error, for one more thread."""
    return TransientError(error.code, error.message, error.hint)
