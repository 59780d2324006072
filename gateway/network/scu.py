"""A DICOM association that we ask for, driven by its callers: connect, negotiate, send, wait for the answer, release.

pynetdicom's requestor runs two more threads that poll, holds a data set whole in its queue, and re-encodes what it
sends. Here the caller's own thread writes to the socket and reads from it, a data set goes from its stream to the
socket in PDUs, and every wait has a deadline. PDUs are encoded by pynetdicom; answers are read by
`gateway.network.associate_pdus`, as leniently as requests are. Where the peer grants an asynchronous operations window
(PS3.7 D.3.3.3), so many callers may each have a request under way (`gateway.network.outstanding`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from pynetdicom.pdu import (
    A_RELEASE_RP,
    A_RELEASE_RQ,
)
from pynetdicom.pdu_primitives import (
    A_RELEASE,
)

from gateway.errors import DicomError, PermanentError, TransientError
from gateway.network import command as dimse
from gateway.network import settings
from gateway.network.associate_pdus import read_answer, read_reject
from gateway.network.connect import CERTIFICATE_FAILURES, ClientTls, Peer
from gateway.network.contexts import EXPLICIT_LITTLE, VERIFICATION
from gateway.network.outstanding import Outstanding, Response
from gateway.network.scu_pdus import (
    MOST_CONTEXTS,
    abort_pdu,
    associate_request,
    data_head,
    data_pdu,
    fragments,
    numbered,
    rejected,
)
from gateway.network.scu_wire import ScuWire, until
from gateway.network.window import agreed

_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_SETTLE_S = 5.0  # for the answers to what else is under way, when one request cannot be sent to its end
_AT_ONCE = 128 << 10  # bytes of fragments that go to the socket together, where they come in time
_SMALLEST_PDU = 128  # bytes; a peer that takes less is not usable


class DataSet(Protocol):
    """What a data set is read from; fewer bytes than asked for may come at a time, none only at the end."""

    def read(self, size: int, /) -> bytes: ...


class ScuAssociation:
    """An open association. As many threads may use it at once as its window has places; requests are sent one by one.

    Parameters
    ----------
    peer
        Whom to call.
    contexts
        (SOP class, transfer syntax) pairs, each proposed in a presentation context of its own, 128 at most.
    as_scp
        SOP classes of which we are the SCP on this association (PS3.7 D.3.3.4).
    window
        How many requests we would have under way at once; 1: a window is not proposed.

    Attributes
    ----------
    window
        How many may be: 1 where the peer says nothing to it.

    Raises
    ------
    TransientError
        Codes ``unreachable``, ``no-answer``, ``association-aborted``, ``association-rejected-for-now``,
        ``unexpected-answer``, and of TLS (`CERTIFICATE_FAILURES`, each before the first DICOM byte is said)
        ``certificate-not-trusted``: theirs, ``certificate-refused``: ours, and ``tls-failed``.
    PermanentError
        Codes ``association-rejected``, ``unusable-pdu-length``.
    """

    def __init__(
        self, peer: Peer, contexts: Iterable[tuple[str, str]], as_scp: Iterable[str] = (), window: int = 1
    ) -> None:
        settings.apply()
        self.peer = peer
        self._contexts = numbered(contexts)
        self._sending = threading.Lock()  # held from a command to the last fragment of its data set
        self.window = window
        self.last_used = time.monotonic()
        self._wire = ScuWire(peer)
        self._under_way = Outstanding(lambda: self._wire.read_pdu(self._patience), peer.response_timeout_s)
        try:
            self._wire.send(associate_request(peer, self._contexts, as_scp, window))
            accepted = self._read_associate_answer()
        except BaseException:
            self._wire.close()
            raise
        self.accepted = accepted
        self.usable = True

    @property
    def proposed(self) -> set[tuple[str, str]]:
        """The (SOP class, transfer syntax) pairs that were proposed, accepted or not."""
        return {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in self._contexts}

    def alive(self) -> bool:
        """Whether the association can be used: a peer that sends anything is saying good-bye. Not while requests are
        under way.
        """
        if not self.usable:
            return False
        first = self._wire.first_byte()
        if first is None:
            return True
        self._say_goodbye_back(first)
        return False

    def echo(self) -> Response:
        """C-ECHO (PS3.7 9.1.5); the verification SOP class must have been accepted."""
        return self._request(VERIFICATION, EXPLICIT_LITTLE, None, {dimse.COMMAND_FIELD: dimse.C_ECHO_RQ})

    def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        data_set: DataSet,
        *,
        size: int | None = None,
        move_originator: tuple[str, int] | None = None,
        priority: int = 0x0000,
    ) -> Response:
        """Send one instance with C-STORE (PS3.7 9.1.1) as the bytes that `data_set` yields, and wait for the answer.

        An error of `data_set` (a spool file that was tampered with, say) aborts the association before the last
        fragment, so that the peer cannot take a part for the whole, and is raised as it is.

        Parameters
        ----------
        data_set
            Bytes of the data set in `transfer_syntax_uid`, without preamble and File Meta.
        size
            How many bytes that is, where it is known: an odd number is refused before anything is sent.
        move_originator
            AE title and message id of the C-MOVE request that this belongs to.
        priority
            0x0000 medium, 0x0001 high, 0x0002 low.

        Raises
        ------
        KeyError
            The (SOP class, transfer syntax) was not accepted.
        TransientError
            Codes ``connection-lost``, ``no-answer``, ``association-aborted``, ``association-ended``,
            ``unexpected-answer``.
        PermanentError
            Code ``odd-length``; the association is as good as before.
        """
        if size is not None and size % 2:
            raise PermanentError(
                "odd-length",
                f"the data set has {size} bytes, an odd number, which PS3.5 7.1.1 forbids: receivers abort",
                "have the sender of the original mend it",
            )
        command: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.PRIORITY: priority,
            dimse.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
        if move_originator is not None:
            command[dimse.MOVE_ORIGINATOR_AE], command[dimse.MOVE_ORIGINATOR_MESSAGE_ID] = move_originator
        return self._request(sop_class_uid, transfer_syntax_uid, data_set, command)

    def release(self) -> None:
        """Release the association (PS3.8 9.2), and close the connection whatever the peer says to it."""
        if self.usable:
            self.usable = False
            with contextlib.suppress(TransientError):
                self._wire.send(A_RELEASE_RQ(A_RELEASE()).encode())
                patience = until(time.monotonic() + self.peer.response_timeout_s)
                while self._wire.read_pdu(patience)[0] not in (_RELEASE_RP, _ABORT):
                    pass
        self._wire.close()

    def abort(self) -> None:
        """Abort the association (PS3.8 9.3.8, source: service user) and close the connection."""
        if self.usable:
            self.usable = False
            with contextlib.suppress(TransientError):
                self._wire.send(abort_pdu())
        self._under_way.end(TransientError("association-ended", "the association was aborted"))
        self._wire.close()

    def _request(self, sop_class: str, syntax: str, data_set: DataSet | None, command: dimse.Command) -> Response:
        context_id = self.accepted[sop_class, syntax]
        if dimse.REQUESTED_SOP_CLASS_UID not in command:
            command[dimse.AFFECTED_SOP_CLASS_UID] = sop_class
        command[dimse.DATA_SET_TYPE] = dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET
        with self._sending:
            kind = dimse.number_in(command, dimse.COMMAND_FIELD) or 0
            instance = dimse.text_in(command, dimse.AFFECTED_SOP_INSTANCE_UID)
            number = command[dimse.MESSAGE_ID] = self._under_way.begin(kind, instance)
            try:
                self._wire.send(data_pdu(context_id, 0x03, dimse.encode_command(command)))
                if data_set is not None:
                    self._send_data_set(context_id, data_set)
            except BaseException:
                self._under_way.forget(number)
                self._under_way.settle(_SETTLE_S)
                self.abort()
                raise
        try:
            response = self._under_way.wait(number)
        except BaseException:
            self.abort()
            raise
        self.last_used = time.monotonic()
        return response

    def _patience(self) -> float:
        return self._under_way.patience(self._wire.last_sent)

    def _send_data_set(self, context_id: int, data_set: DataSet) -> None:
        """P-DATA-TF PDUs of the length that the peer takes; the last one carries the last-fragment flag."""
        length = self._longest_fragment
        fragment = _read(data_set, length)
        if not fragment:
            raise DicomError("no-data-set", "there is nothing to send")
        waiting: list[bytes] = []
        amount = 0
        while fragment:
            following = _read(data_set, length)
            waiting += (data_head(context_id, 0x00 if following else 0x02, len(fragment)), fragment)
            amount += len(fragment)
            if amount >= _AT_ONCE or not following:
                self._wire.send(*waiting)
                waiting, amount = [], 0
            fragment = following

    def read_request(self, deadline: float, longest: int) -> tuple[dimse.Command, bytes]:
        """A request of the peer's, with its data set of at most `longest` bytes; `deadline` by `time.monotonic`.

        Raises
        ------
        TransientError
            As `store`; nothing is under way any more.
        DicomError
            ``bad-command``, ``too-long``.
        """
        encoded, data, command = bytearray(), bytearray(), None
        while True:
            kind, body = self._wire.read_pdu(until(deadline))
            if kind != _P_DATA:
                if kind == _RELEASE_RQ:
                    response = A_RELEASE()
                    response.result = "affirmative"
                    self._wire.send(A_RELEASE_RP(response).encode())
                self.usable = False
                raise TransientError("association-ended", "the peer ended the association")
            for _, fragment in fragments(body):
                (encoded if fragment[0] & 1 else data).extend(fragment[1:])
                if len(encoded) > dimse.LONGEST_COMMAND or len(data) > longest:
                    raise DicomError("too-long", "the peer's request is longer than it may be")
                if fragment[0] & 1 and fragment[0] & 2:
                    command = dimse.decode_command(bytes(encoded))
                ended = fragment[0] & 2 and not fragment[0] & 1
                if command is not None and (ended or command.get(dimse.DATA_SET_TYPE) == dimse.NO_DATA_SET):
                    return command, bytes(data)

    def respond(self, request: dimse.Command, command_field: int, status: int) -> None:
        """Answer a request of the peer's, without a data set."""
        response: dimse.Command = {
            dimse.COMMAND_FIELD: command_field,
            dimse.MESSAGE_ID_RESPONDED_TO: request.get(dimse.MESSAGE_ID, 0),
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status,
        }
        for number in (dimse.AFFECTED_SOP_CLASS_UID, dimse.AFFECTED_SOP_INSTANCE_UID, dimse.EVENT_TYPE_ID):
            if request.get(number):
                response[number] = request[number]
        context_id = next(iter(self.accepted.values()))
        self._wire.send(data_pdu(context_id, 0x03, dimse.encode_command(response)))

    def _read_associate_answer(self) -> dict[tuple[str, str], int]:
        """The accepted (SOP class, transfer syntax) pairs with their context ids.

        A context that the peer accepts in a transfer syntax other than the proposed one is not accepted.
        """
        kind, body = self._wire.read_pdu(until(time.monotonic() + self.peer.response_timeout_s))
        if kind == _ABORT:
            raise TransientError("association-aborted", "the peer aborted the association while it was negotiated")
        if kind == _ASSOCIATE_RJ:
            try:
                reject = read_reject(body)
            except DicomError as error:
                raise TransientError("unexpected-answer", error.message) from None
            raise rejected(reject)
        if kind != _ASSOCIATE_AC:
            raise TransientError("unexpected-answer", "the peer does not answer as a DICOM node does")
        try:
            answer = read_answer(body)
        except DicomError as error:
            raise TransientError("unexpected-answer", f"the peer's A-ASSOCIATE-AC: {error.message}") from None
        theirs = answer.max_length or self.peer.max_pdu  # 0: no limit
        if theirs < _SMALLEST_PDU:
            raise PermanentError("unusable-pdu-length", f"the peer takes PDUs of {theirs} bytes only")
        invoked = 1 if answer.asynchronous is None else answer.asynchronous[0]
        self.window = self._under_way.window = agreed(self.window, invoked)
        # Less item length, context id and control header; even, as the fragments of a message are (PS3.8 E.1).
        self._longest_fragment = (min(theirs, self.peer.max_pdu) - 6) // 2 * 2
        accepted: dict[tuple[str, str], int] = {}
        for context in self._contexts:
            number, syntax = context.context_id, str(context.transfer_syntax[0])
            if number is not None and answer.results.get(number) == (0x00, syntax):
                accepted[str(context.abstract_syntax), syntax] = number
        return accepted

    def _say_goodbye_back(self, first: bytes) -> None:
        """The peer has released, aborted or closed (`first` is empty then) while nothing was under way."""
        if first and first[0] == _RELEASE_RQ:
            response = A_RELEASE()
            response.result = "affirmative"
            with contextlib.suppress(TransientError):
                self._wire.skip(9, until(time.monotonic() + 1))  # the rest of A-RELEASE-RQ
                self._wire.send(A_RELEASE_RP(response).encode())
        self.usable = False
        self._wire.close()


def _read(stream: DataSet, length: int) -> bytes:
    """Read `length` bytes, fewer only at the end: a stream may hand out less than asked at a time."""
    data = stream.read(length)
    read = len(data)
    if not 0 < read < length:
        return data
    parts = [data]
    while read < length and (more := stream.read(length - read)):
        parts.append(more)
        read += len(more)
    return b"".join(parts)


__all__ = ["CERTIFICATE_FAILURES", "MOST_CONTEXTS", "ClientTls", "Peer", "Response", "ScuAssociation"]
