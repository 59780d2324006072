"""Storage commitment on associations that we open (PS3.4 annex J): asking destinations, and reporting to archives.

A destination may report on the association of the request, while that is open, or on one of its own
(`gateway.network.commitment_port`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from gateway.config.models import Commitment, Destination, Peer
from gateway.errors import DicomError, PermanentError, TransientError
from gateway.flow.ports import CommitmentReport, Reference
from gateway.network import command as dimse
from gateway.network import connect
from gateway.network import tls as tls_contexts
from gateway.network.commitment_sets import (
    ALL_COMMITTED,
    CONTEXTS,
    INSTANCE,
    LONGEST,
    PUSH_MODEL,
    REQUEST,
    SOME_FAILED,
    SYNTAXES,
    read_report,
    report_bytes,
    request_bytes,
)
from gateway.network.egress import failure
from gateway.network.pool import peer_of
from gateway.network.scu import Response, ScuAssociation


class _Stream:
    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def read(self, size: int, /) -> bytes:
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)


class CommitmentScu:
    """`gateway.flow.ports.Committer`.

    Parameters
    ----------
    destinations
        Those that have a ``commitment`` table may be asked.
    peers
        Of the ingress; those that have a ``reports`` table may be told.
    port
        The ``[commitment]`` table: with its certificate reports go out over TLS.
    """

    def __init__(
        self, destinations: Iterable[Destination], peers: Iterable[Peer], port: Commitment | None = None
    ) -> None:
        self._destinations = {one.name: (peer_of(one), one.commitment) for one in destinations if one.commitment}
        self._archives: Mapping[str, connect.Peer] = {
            one.ae_title: _archive(one, port) for one in peers if one.reports is not None
        }

    def ask(self, destination: str, transaction_uid: str, references: Sequence[Reference]) -> CommitmentReport | None:
        """Ask a destination; see `Committer.ask`."""
        peer, settings = self._destinations[destination]
        with _Association(peer) as association:
            answer = association.act(request_bytes(transaction_uid, references, association.syntax))
            if answer.status != 0x0000:
                raise failure(destination, answer)
            return association.wait_for_report(transaction_uid, settings.wait_s)

    def answer(self, calling_ae: str, report: CommitmentReport) -> None:
        """Report to an archive; see `Committer.answer`."""
        peer = self._archives.get(calling_ae)
        if peer is None:
            raise PermanentError("no-report-address", f"[[ingress.peers]] {calling_ae} has no reports table")
        with _Association(peer, as_scp=True) as association:
            answer = association.report(report_bytes(report, association.syntax), bool(report.failed))
            if answer.status != 0x0000:
                raise TransientError("report-refused", f"{calling_ae} answered 0x{answer.status:04X} to the report")


class _Association(ScuAssociation):
    """An association for storage commitment alone."""

    def __init__(self, peer: connect.Peer, as_scp: bool = False) -> None:
        super().__init__(peer, CONTEXTS, (PUSH_MODEL,) if as_scp else ())
        offered = [syntax for syntax in SYNTAXES if (PUSH_MODEL, syntax) in self.accepted]
        if not offered:
            self.release()
            raise PermanentError("context-refused", f"{peer.called_ae} does not offer storage commitment")
        self.syntax = offered[0]

    def __enter__(self) -> _Association:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def act(self, information: bytes) -> Response:
        """N-ACTION: request storage commitment (PS3.7 10.1.4)."""
        command: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
            dimse.REQUESTED_SOP_CLASS_UID: PUSH_MODEL,
            dimse.REQUESTED_SOP_INSTANCE_UID: INSTANCE,
            dimse.ACTION_TYPE_ID: REQUEST,
        }
        return self._request(PUSH_MODEL, self.syntax, _Stream(information), command)

    def report(self, information: bytes, some_failed: bool) -> Response:
        """N-EVENT-REPORT (PS3.7 10.1.1)."""
        command: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
            dimse.AFFECTED_SOP_INSTANCE_UID: INSTANCE,
            dimse.EVENT_TYPE_ID: SOME_FAILED if some_failed else ALL_COMMITTED,
        }
        return self._request(PUSH_MODEL, self.syntax, _Stream(information), command)

    def wait_for_report(self, transaction_uid: str, within_s: float) -> CommitmentReport | None:
        """The report of this transaction, where it comes on this association; None: not within the time.

        The peer's going away instead is no failure: it reports on an association of its own.
        """
        deadline = time.monotonic() + within_s
        try:
            while time.monotonic() < deadline:
                command, information = self.read_request(deadline, LONGEST)
                report = None
                field = dimse.number_in(command, dimse.COMMAND_FIELD) or 0
                if field == dimse.N_EVENT_REPORT_RQ:
                    report = read_report(information, self.syntax)
                is_ours = report is not None and report.transaction_uid == transaction_uid
                self.respond(command, field | 0x8000, 0x0000 if is_ours else 0x0110)
                if is_ours:
                    return report
        except (TransientError, DicomError):
            self.abort()
        return None


def _archive(one: Peer, port: Commitment | None) -> connect.Peer:
    assert one.reports is not None
    secured = one.reports.tls and port is not None and port.tls is not None
    return connect.Peer(
        host=one.reports.host,
        port=one.reports.port,
        called_ae=one.ae_title,
        calling_ae=one.reports.calling_ae,
        tls=tls_contexts.client_context(port.tls) if secured and port and port.tls else None,
    )
