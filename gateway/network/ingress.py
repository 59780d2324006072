"""The C-STORE SCP that faces the archive: every storage SOP class, every transfer syntax, bytes as they come.

The data set of a C-STORE goes fragment by fragment from the socket's thread to `Incoming.write`: no data set is ever
whole in memory, in a temporary file, or decoded here. Success is answered only after `Incoming.commit`.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext, build_context

from gateway.audit import AuditLog, events
from gateway.config.models import Ingress, Peer, Route
from gateway.errors import DicomError, fault
from gateway.flow.ports import Receiver, Requests
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
from gateway.network.incoming import STATUS_BY_CODE, SUCCESS, IncomingObject
from gateway.network.scu_pdus import WHOLE_COMMAND, data_pdu
from gateway.network.server import Listen, ScpServer
from gateway.network.upper_layer import GatewayAssociation
from gateway.network.window import Window, agreed

_MOST_WAITING = 16  # messages other than C-STORE
_log = logging.getLogger(__name__)


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
                is_shared=config.processes > 1,
            ),
            audit=audit,
            admit=self._admit,
            contexts=self._contexts,
            handlers=[(evt.EVT_C_ECHO, lambda event: SUCCESS), (evt.EVT_C_STORE, self._store_without_data_set)],
            association_class=lambda ae, mode: IngressAssociation(ae, mode, self),
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
        association.window.end()
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

    def __init__(self, assoc: IngressAssociation) -> None:
        super().__init__(assoc)
        self._ingress_association = assoc
        self._command = bytearray()
        self._object: IncomingObject | CommitmentRequest | None = None

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
            if isinstance(self._object, IncomingObject):
                self._ingress_association.count(self._object.status, 0)
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
            self._object = self._ingress_association.incoming(context_id, command)
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
        self, incoming: IncomingObject | CommitmentRequest, context_id: int, data: bytes | memoryview, last: bool
    ) -> None:
        if context_id != incoming.context_id:
            raise DicomError("bad-command", "a data set in another presentation context than its command")
        incoming.write(data)
        if not last:
            return
        self._object = None
        if isinstance(incoming, IncomingObject):
            self._ingress_association.window.run(incoming.instance, lambda: self._answer_store(incoming))
        else:
            self.dul.send_pdu(_one_fragment(context_id, b"\x03" + incoming.finish()))

    def _answer_store(self, incoming: IncomingObject) -> None:
        response = incoming.finish()
        self._ingress_association.count(incoming.status, incoming.size)
        dul = self._ingress_association.dul
        dul.answer(data_pdu(incoming.context_id, WHOLE_COMMAND, response))
        dul.begin_idle_time()


class IngressAssociation(GatewayAssociation):
    """One association with the archive; counts what came of its C-STOREs."""

    def __init__(self, ae: ApplicationEntity, mode: str, ingress: IngressScp) -> None:
        self.ingress = ingress
        self.statuses: Counter[int] = Counter()
        self.bytes_received = 0
        self.began = time.monotonic()
        self.window = Window()
        self._counting = threading.Lock()
        super().__init__(ae, mode)

    def agree_window(self, invoked: int) -> int:
        most = agreed(self.ingress.config.async_operations, invoked)
        self.window = Window(most, self._window_failed)
        return self.window.most

    def _window_failed(self, error: Exception) -> None:
        _log.error("C-STORE in association %s: %s", self.association_id, fault(error))
        self.abort(block=False)

    def count(self, status: int, size: int) -> None:
        """Count what came of a C-STORE; any of the window's threads may call it."""
        with self._counting:
            self.statuses[status] += 1
            self.bytes_received += size

    def incoming(self, context_id: int, command: dimse.Command) -> IncomingObject:
        """Begin to take a C-STORE request."""
        longest = self.ingress.config.max_instance_mib << 20
        return IncomingObject(self, context_id, command, self.ingress.receiver, longest, self.ingress.write_audit)

    def make_dimse(self) -> DIMSEServiceProvider:
        return _StoreDimse(self)

    def before_release(self) -> None:
        self.window.settle()

    def is_busy(self) -> bool:
        return self.window.is_busy

    def connection_ended(self) -> None:
        if isinstance(self.dimse, _StoreDimse):
            self.dimse.connection_ended()


def _ours(association: Association) -> IngressAssociation:
    """What `IngressScp` makes all of its associations."""
    assert isinstance(association, IngressAssociation)
    return association


def _one_fragment(context_id: int, fragment: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, fragment))
    return primitive
