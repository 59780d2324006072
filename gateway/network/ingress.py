"""The C-STORE SCP that faces the archive: every storage SOP class, every transfer syntax, bytes as they come.

The data set of a C-STORE goes fragment by fragment from the socket's thread to `Incoming.write`: no data set is ever
whole in memory, in a temporary file, or decoded here. Success is answered only after `Incoming.commit`.
"""

from __future__ import annotations

import errno
import logging
import ssl
import time
from collections import Counter
from collections.abc import Sequence

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext, build_context

from gateway.audit import FIELDS, AuditLog, events
from gateway.config.models import Ingress, Peer, Route
from gateway.errors import CapacityError, DicomError, GatewayError, fault
from gateway.flow.ports import Incoming, ReceivedFacts, Receiver, Requests
from gateway.network import command as dimse
from gateway.network import tls as tls_contexts
from gateway.network.admission import Counts
from gateway.network.binding import is_bound
from gateway.network.callers import (
    ADDRESS_NOT_LISTED,
    CALLING_AE_UNKNOWN,
    CERTIFICATE_NOT_BOUND,
    Caller,
    Rejection,
    address_listed,
)
from gateway.network.commitment_request import CommitmentRequest
from gateway.network.commitment_sets import PUSH_MODEL, SYNTAXES
from gateway.network.contexts import storage_contexts
from gateway.network.server import Listen, ScpServer
from gateway.network.upper_layer import GatewayAssociation

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.10
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.13
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3, as the next two
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

# Stable codes out of the ranges that the standard leaves to us. Scripts and the conformance statement rely on them.
STATUS_BY_CODE = {
    "uid-mismatch": DATA_SET_DOES_NOT_MATCH,
    "sop-class-mismatch": DATA_SET_DOES_NOT_MATCH,
    "not-dicom": 0xC001,
    "truncated": 0xC002,
    "missing-uid": 0xC003,
    "no-data-set": 0xC004,
    "already-marked": 0xC010,
    "instance-too-large": 0xC011,
    "sop-class-not-negotiated": SOP_CLASS_NOT_SUPPORTED,
}

_MOST_WAITING = 16  # messages other than C-STORE; without an asynchronous window a peer has one under way
_log = logging.getLogger(__name__)


def status_of(error: Exception) -> tuple[int, str]:
    """The DIMSE status and the stable word for an error on the way into the spool."""
    if isinstance(error, CapacityError):
        return OUT_OF_RESOURCES, error.code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OUT_OF_RESOURCES, "disk-full"
    if isinstance(error, DicomError):
        return STATUS_BY_CODE.get(error.code, CANNOT_UNDERSTAND), error.code
    if isinstance(error, GatewayError):
        return PROCESSING_FAILURE, error.code
    return PROCESSING_FAILURE, "internal-error"


def sentence_of(error: Exception) -> str:
    """What the sender's log may show: Error Comment (0000,0902), LO, at most 64 characters, and no PHI."""
    _, word = status_of(error)
    told = f"{word}: {error.message}" if isinstance(error, GatewayError) and error.message else word
    return told.encode("ascii", "replace").decode()[:64].replace("\\", "/")


class IngressScp:
    """The ingress port.

    Parameters
    ----------
    config
        The ``[ingress]`` table.
    routes
        Their called AE titles are the ones that the port answers to.
    receiver
        Where instances go.
    audit
        Every refusal is written, and every association with its counts when it ends.
    tls
        Context of the port; None takes it from `config.tls`, and without that the port is plain.
    counts
        What the limits count, where several processes of the role share a machine; None: this process's own.
    requests
        Where requests for storage commitment are kept, of the peers that may ask; None: nobody may.
    """

    def __init__(
        self,
        config: Ingress,
        routes: Sequence[Route],
        receiver: Receiver,
        audit: AuditLog,
        tls: ssl.SSLContext | None = None,
        counts: Counts | None = None,
        requests: Requests | None = None,
    ) -> None:
        self.config = config
        self.receiver = receiver
        self.requests = requests
        self.audit = audit
        if tls is None and config.tls is not None:
            tls = tls_contexts.server_context(config.tls)
        self._server = ScpServer(
            Listen(
                host=config.host,
                port=config.port,
                called_aes=tuple(route.called_ae for route in routes),
                max_pdu=config.max_pdu,
                max_associations=config.max_associations,
                max_connections=config.max_connections,
                idle_timeout_s=config.idle_timeout_s,
                handshake_timeout_s=config.handshake_timeout_s,
                addresses=tuple(address for peer in config.peers for address in peer.addresses),
                balancers=config.balancers,
                max_connections_per_address=config.max_connections_per_address,
                max_associations_per_ae=config.max_associations_per_ae,
            ),
            audit=audit,
            admit=self._admit,
            contexts=self._contexts,
            handlers=[(evt.EVT_C_ECHO, lambda event: SUCCESS), (evt.EVT_C_STORE, self._store_without_data_set)],
            association_class=lambda ae, mode: _IngressAssociation(ae, mode, self),
            tls=tls,
            on_end=self._association_ended,
            counts=counts,
        )

    def start(self) -> None:
        """Listen and return; raises ConfigError ``cannot-listen``."""
        self._server.start()

    def bind(self, before: IngressScp | None = None) -> None:
        """Listen and accept nothing yet; see `ScpServer.bind`."""
        self._server.bind([before._server] if before else [])

    def stop(self, drain_s: float = 5.0) -> None:
        """Stop listening and let running associations end; see `ScpServer.stop`."""
        self._server.stop(drain_s)

    def pause(self) -> None:
        """Take no more connections; see `ScpServer.pause`."""
        self._server.pause()

    def finish(self) -> None:
        """Wait until every association has ended by itself; see `ScpServer.finish`."""
        self._server.finish()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    def write_audit(self, event: str, outcome: str, **fields: object) -> None:
        """Write an audit line about something that did not happen; a full disk must not hide its DIMSE status."""
        try:
            self.audit.write(event, outcome, **fields)
        except OSError as error:
            _log.error("the audit line %s could not be written: errno %s", event, error.errno)

    def _admit(self, caller: Caller) -> Rejection | None:
        who = self._who(caller)
        return who if isinstance(who, Rejection) else None

    def _who(self, caller: Caller) -> list[Peer] | Rejection:
        """The entries that let a caller in: what another of the same AE title may do is not its own."""
        peers = [peer for peer in self.config.peers if peer.ae_title == caller.calling_ae]
        if not peers:
            return CALLING_AE_UNKNOWN
        peers = [peer for peer in peers if address_listed(caller.address, peer.addresses)]
        if not peers:
            return ADDRESS_NOT_LISTED
        return [
            peer for peer in peers if not peer.is_bound or is_bound(peer, caller.certificate)
        ] or CERTIFICATE_NOT_BOUND

    def _contexts(self, proposed: Sequence[PresentationContext], caller: Caller) -> list[PresentationContext]:
        who = self._who(caller)
        may_ask = (
            self.requests is not None
            and not isinstance(who, Rejection)
            and any(peer.reports is not None for peer in who)
        )
        return [*storage_contexts(proposed), *([build_context(PUSH_MODEL, list(SYNTAXES))] if may_ask else [])]

    def _store_without_data_set(self, event: evt.Event) -> int:
        """EVT_C_STORE, which only a C-STORE-RQ without a data set comes to: the others never enter a queue."""
        self.write_audit(
            events.INSTANCE_REFUSED, "refused", reason="no-data-set", **_ours(event.assoc).known_caller.audit_fields()
        )
        return STATUS_BY_CODE["no-data-set"]

    def _association_ended(self, ended: GatewayAssociation) -> None:
        association = _ours(ended)
        statuses = association.statuses
        received = statuses[SUCCESS]
        self.write_audit(
            events.ASSOCIATION_CLOSED,
            "success" if association.is_released else "failure",
            reason=association.flaw or None,
            received=received,
            failed=statuses.total() - received,
            statuses=dict(statuses),
            bytes=association.bytes_received,
            seconds=round(time.monotonic() - association.began, 3),
            **association.known_caller.audit_fields(),
        )


class _StoreDimse(DIMSEServiceProvider):
    """Takes C-STORE requests out of pynetdicom's way; other messages, which have no data set here, go the stock way."""

    def __init__(self, assoc: _IngressAssociation) -> None:
        super().__init__(assoc)
        self._ingress_association = assoc
        self._command = bytearray()
        self._object: _IncomingObject | CommitmentRequest | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Called in the socket's thread for each P-DATA; an exception ends the association (A-ABORT)."""
        for context_id, fragment in primitive.presentation_data_value_list:
            # Message Control Header, PS3.8 E.2: bit 0 command, bit 1 last fragment
            if fragment[0] & 1:
                self._take_command(context_id, fragment[1:], bool(fragment[0] & 2))
            elif self._object is not None:
                self._take_data(self._object, context_id, fragment[1:], bool(fragment[0] & 2))
            else:
                raise DicomError("bad-command", "a data set without a C-STORE request before it")

    def connection_ended(self) -> None:
        """Forget an object that did not come to its end."""
        if self._object is not None:
            self._object.cut_off()
            self._object = None

    def _take_command(self, context_id: int, data: bytes, last: bool) -> None:
        if self._object is not None:
            raise DicomError("bad-command", "a command in the middle of a data set")
        self._command += data
        if len(self._command) > dimse.LONGEST_COMMAND:
            raise DicomError("bad-command", "a command set of more than 64 KiB")
        if not last:
            return
        encoded = bytes(self._command)
        self._command.clear()
        command = dimse.decode_command(encoded)
        has_data_set = command.get(dimse.DATA_SET_TYPE) != dimse.NO_DATA_SET
        if command[dimse.COMMAND_FIELD] == dimse.C_STORE_RQ and has_data_set:
            self._object = _IncomingObject(self._ingress_association, context_id, command)
        elif command[dimse.COMMAND_FIELD] == dimse.N_ACTION_RQ and has_data_set:
            association = self._ingress_association
            ingress = association.ingress
            self._object = CommitmentRequest(association, context_id, command, ingress.requests, ingress.write_audit)
        elif has_data_set:
            raise DicomError("bad-command", "a request with a data set that is neither C-STORE nor N-ACTION")
        elif self.msg_queue.qsize() >= _MOST_WAITING:
            raise DicomError("too-many-requests", "requests come faster than they are answered")
        else:
            super().receive_primitive(_one_fragment(context_id, b"\x03" + dimse.with_plain_titles(encoded)))

    def _take_data(
        self, incoming: _IncomingObject | CommitmentRequest, context_id: int, data: bytes | memoryview, last: bool
    ) -> None:
        if context_id != incoming.context_id:
            raise DicomError("bad-command", "a data set in another presentation context than its command")
        incoming.write(data)
        if last:
            response = incoming.finish()
            self._object = None
            self.dul.send_pdu(_one_fragment(context_id, b"\x03" + response))


class _IngressAssociation(GatewayAssociation):
    """One association with the archive; counts what came of its C-STOREs."""

    def __init__(self, ae: ApplicationEntity, mode: str, ingress: IngressScp) -> None:
        self.ingress = ingress
        self.statuses: Counter[int] = Counter()
        self.bytes_received = 0
        self.began = time.monotonic()
        super().__init__(ae, mode)

    def make_dimse(self) -> DIMSEServiceProvider:
        return _StoreDimse(self)

    def connection_ended(self) -> None:
        if isinstance(self.dimse, _StoreDimse):
            self.dimse.connection_ended()


def _ours(association: Association) -> _IngressAssociation:
    """What `IngressScp` makes all of its associations."""
    assert isinstance(association, _IngressAssociation)
    return association


class _IncomingObject:
    """One C-STORE request between its command and its response.

    An error on the way in refuses the object, not the association: the rest of its fragments is let through to
    nowhere and the response says why.
    """

    def __init__(self, association: _IngressAssociation, context_id: int, command: dimse.Command) -> None:
        self.context_id = context_id
        self._association = association
        self._ingress = association.ingress
        self._command = command
        self._size = 0
        self._limit = self._ingress.config.max_instance_mib << 20
        self._incoming: Incoming | None = None
        self._refusal: tuple[int, str] | None = None
        self._sentence = ""
        self._transfer_syntax = str(association._accepted_cx[context_id].transfer_syntax[0])  # KeyError: A-ABORT
        try:
            self._begin()
        except Exception as error:
            self._refuse(error)

    def _begin(self) -> None:
        sop_class = str(self._command.get(dimse.AFFECTED_SOP_CLASS_UID, ""))
        sop_instance = str(self._command.get(dimse.AFFECTED_SOP_INSTANCE_UID, ""))
        if sop_class != self._association._accepted_cx[self.context_id].abstract_syntax:
            raise DicomError("sop-class-not-negotiated", "the SOP class of the command is not that of its context")
        if not 0 < len(sop_instance) <= 64 or not set(sop_instance) <= set("0123456789."):
            raise DicomError("missing-uid", "the command has no usable SOP Instance UID")
        caller = self._association.known_caller
        self._ingress.receiver.admit(caller.called_ae, caller.calling_ae, sop_class)
        self._incoming = self._ingress.receiver.begin(
            ReceivedFacts(
                calling_ae=caller.calling_ae,
                called_ae=caller.called_ae,
                peer_address=caller.address,
                association_id=caller.association_id,
                sop_class_uid=sop_class,
                sop_instance_uid=sop_instance,
                transfer_syntax_uid=self._transfer_syntax,
            )
        )

    def write(self, data: bytes | memoryview) -> None:
        """Take one fragment."""
        self._size += len(data)
        if self._refusal is not None:
            return
        try:
            if self._size > self._limit:
                raise DicomError("instance-too-large", f"more than {self._ingress.config.max_instance_mib} MiB")
            assert self._incoming is not None  # or it is refused
            self._incoming.write(data)
        except Exception as error:
            self._refuse(error)

    def finish(self) -> bytes:
        """Commit, and return the command set of the response (C-STORE-RSP, PS3.7 9.3.1.2)."""
        if self._refusal is None:
            try:
                assert self._incoming is not None  # or it is refused
                self._incoming.commit()
            except Exception as error:
                self._refuse(error)
        # From here on the instance is durable, or refused and forgotten: nothing below may change which.
        status, _ = self._refusal or (SUCCESS, "")
        self._association.statuses[status] += 1
        self._association.bytes_received += self._size
        response: dimse.Command = {
            dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: self._command.get(dimse.MESSAGE_ID, 0),
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status,
        }
        for number in (dimse.AFFECTED_SOP_CLASS_UID, dimse.AFFECTED_SOP_INSTANCE_UID):
            uid = dimse.text_in(self._command, number)
            if uid and uid.isascii() and len(uid) <= 64:
                response[number] = uid
        if self._sentence:
            response[dimse.ERROR_COMMENT] = self._sentence
        return dimse.encode_command(response)

    def cut_off(self) -> None:
        """The association ended in the middle of this object."""
        if self._refusal is None:
            self._refusal = (PROCESSING_FAILURE, "aborted-mid-object")
            self._forget()
            self._write_audit("failure", self._refusal)
        self._association.statuses[self._refusal[0]] += 1

    def _refuse(self, error: Exception) -> None:
        self._refusal = refusal = status_of(error)
        self._sentence = sentence_of(error)
        if not isinstance(error, GatewayError):
            _log.error("C-STORE in association %s: %s", self._association.association_id, fault(error))
        self._forget()
        self._write_audit("failure" if refusal[0] in (PROCESSING_FAILURE, OUT_OF_RESOURCES) else "refused", refusal)

    def _forget(self) -> None:
        if self._incoming is None:
            return
        try:
            self._incoming.abort()
        except Exception as error:
            _log.error("could not forget an object of %s: %s", self._association.association_id, fault(error))

    def _write_audit(self, outcome: str, refusal: tuple[int, str]) -> None:
        status, reason = refusal
        caller = self._association.known_caller.audit_fields()
        told = " ".join(str(FIELDS[name](caller[name])) for name in ("calling_ae", "peer_address"))
        _log.info("instance refused: %s, 0x%04X, from %s", reason, status, told)
        self._ingress.write_audit(
            events.INSTANCE_REFUSED,
            outcome,
            reason=reason,
            status=status,
            sop_class_uid=self._command.get(dimse.AFFECTED_SOP_CLASS_UID),
            sop_instance_uid=self._command.get(dimse.AFFECTED_SOP_INSTANCE_UID),
            transfer_syntax_uid=self._transfer_syntax,
            bytes=self._size,
            **self._association.known_caller.audit_fields(),
        )


def _one_fragment(context_id: int, fragment: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, fragment))
    return primitive
