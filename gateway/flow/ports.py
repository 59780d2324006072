"""The ports of the flow: what the network floor gives to it and what it asks of the network floor.

    network.ingress ──▶ Receiver, Incoming      (flow implements them, ingress calls them)
    flow.worker     ──▶ Sender                  (egress implements it, the flow calls it)

Nothing here knows sockets, PDUs or DIMSE messages beyond the status code that a destination answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class ReceivedFacts:
    """What is known of an instance before its first byte: the association and the C-STORE-RQ (PS3.7 9.3.1.1)."""

    calling_ae: str
    called_ae: str
    peer_address: str
    association_id: str  # random hexadecimal, one per association, safe to log
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str  # as negotiated: the encoding of every byte that follows


class Incoming(Protocol):
    """One data set on its way into the spool. Exactly one of `commit` and `abort` ends it."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set, in order.

        Raises
        ------
        CapacityError
            The disk is full. The caller then calls `abort`.
        """

    def commit(self) -> str:
        """Make the instance durable and return its instance id.

        When this returns, the bytes and what is known of them survive a power loss; the peer is told 0x0000. The row
        follows, and is made again from what was flushed.

        Raises
        ------
        DicomError
            The bytes are no data set, its UIDs are not those of the command, or it carries our private block
            (codes ``not-dicom``, ``truncated``, ``uid-mismatch``, ``sop-class-mismatch``, ``already-marked``).
        CapacityError
            The disk is full.
        """

    def abort(self) -> None:
        """Forget the instance and leave nothing behind. Safe to call more than once and after a failed `commit`."""


class Receiver(Protocol):
    """Where the ingress puts what it receives. Called from many threads, one per association."""

    def admit(self, called_ae: str, calling_ae: str, sop_class_uid: str) -> None:
        """Say before any byte whether one more instance can be taken.

        Raises
        ------
        CapacityError
            Free disk space or the number of waiting instances is over its limit (DIMSE 0xA700).
        """

    def begin(self, received: ReceivedFacts) -> Incoming:
        """Open a place in the spool for one instance.

        Raises
        ------
        CapacityError
            There is no place for it (DIMSE 0xA700).
        """


@dataclass(frozen=True)
class Outgoing:
    """One instance to send: data set bytes (no preamble, no File Meta) that can be opened as often as needed.

    `in_syntax` raises DicomError "not-exact" where a syntax does not hold the instance without loss: another may.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int  # bytes that `open` will yield
    open: Callable[[], BinaryIO]
    in_syntax: Callable[[str], BinaryIO] | None = None  # the same instance in another lossless transfer syntax
    marked: bool = False  # `in_syntax` knows all of LOSSLESS_NAMES, else the default transfer syntax only
    instance_id: str = ""  # the flow's own name of it, for the audit


class Sender(Protocol):
    """What brings an instance to a destination."""

    def send(self, destination: str, item: Outgoing) -> int:
        """Send one instance and wait for the answer.

        Parameters
        ----------
        destination
            The configured name of the destination.

        Returns
        -------
        int
            DIMSE status 0x0000, a warning (mostly 0xBxxx, PS3.4 B.2.3), or 0x0111: it had the instance already.
            Whatever is returned, the destination has stored it; what is not 0x0000 deserves an alert, never a retry.

        Raises
        ------
        TransientError
            The destination may take it later.
        PermanentError
            The destination will not take it.
        """

    def at_a_time(self, destination: str) -> int:
        """How many instances may be sent side by side now; it changes with what the destination agrees to."""


@dataclass(frozen=True)
class Reference:
    """One SOP instance that a storage commitment is asked for (PS3.3 C.14)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentReport:
    """What an SCP of storage commitment says of a transaction (PS3.4 J.3.3): each instance is in one of the two."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int]  # Failure Reason (0008,1197), PS3.3 C.14.1.1


class Committer(Protocol):
    """What speaks storage commitment with destinations, and with the archives that ask us for it."""

    def ask(self, destination: str, transaction_uid: str, references: Sequence[Reference]) -> CommitmentReport | None:
        """Ask a destination to commit (N-ACTION, PS3.4 J.3.2).

        Returns
        -------
        CommitmentReport or None
            What it reported on the same association within the time that is set; None: it reports later, on its own.

        Raises
        ------
        TransientError, PermanentError
            It did not take the request: nothing is under way.
        """

    def answer(self, calling_ae: str, report: CommitmentReport) -> None:
        """Report to an archive what it asked for (N-EVENT-REPORT), on an association of its own.

        Raises
        ------
        TransientError, PermanentError
            It did not take the report.
        """


class Requests(Protocol):
    """Where requests for commitment that archives send are kept."""

    def asked(self, calling_ae: str, transaction_uid: str, references: Sequence[Reference]) -> None:
        """Keep one; when this returns it survives a power loss.

        Raises
        ------
        CapacityError
            It cannot be kept now.
        """
