"""`IngressWeb`: the ingress's port for STOW-RS.

A sender is its certificate: all entries of `ingress.peers` that are bound to it have to be of one AE title, and the
connection has to come from an address of theirs. There is no port without TLS, and no sender without a certificate of
its own. The path names the route. From there on the way is that of C-STORE: the same limits before the first byte, the
same spool, and no success before the bytes are flushed.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from gateway.audit import AuditLog, Line, events
from gateway.audit.refusals import Refusals
from gateway.config.models import Ingress, Peer, Route
from gateway.errors import ConfigError, DeliveryError, GatewayError, fault
from gateway.flow.ports import Incoming, ReceivedFacts, Receiver
from gateway.log import get_logger
from gateway.network.admission import Counts, Places
from gateway.network.binding import is_bound
from gateway.network.callers import (
    ADDRESS_NOT_LISTED,
    CERTIFICATE_NOT_BOUND,
    CERTIFICATE_OF_SEVERAL,
    Caller,
    Rejection,
    address_listed,
)
from gateway.network.door import Door, DoorLimits
from gateway.network.http import Answered, Exchange, HttpListen, HttpsServer
from gateway.network.http.media import accepted
from gateway.network.incoming import OUT_OF_RESOURCES, PROCESSING_FAILURE, status_of
from gateway.network.stow.parts import Body, Stored, Wanted, boundary_of
from gateway.network.tls import PeerCertificate, server_context

ROOT = "/dicomweb"
OPERATION = "STOW-RS"
DICOM_JSON = "application/dicom+json"
_PATH = re.compile(rf"{ROOT}(?:/(?P<route>[a-z0-9][a-z0-9_-]{{0,31}}))?/studies", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)
_LATER = (("retry-after", "10"),)
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # PS3.18 table I.2-2

log = get_logger(__name__)


class IngressWeb:
    """The port; limits and counts are shared with the C-STORE port.

    Parameters
    ----------
    receiver
        Where instances go.
    counts
        What the limits count, over all ports and processes of the role.

    Raises
    ------
    ConfigError
        The TLS files cannot be used.
    """

    def __init__(
        self, config: Ingress, routes: Sequence[Route], receiver: Receiver, audit: AuditLog, counts: Counts
    ) -> None:
        if config.dicomweb_port is None or config.tls is None:
            raise ConfigError("no-dicomweb", "the ingress has no dicomweb_port, or no [ingress.tls]")
        self._config = config
        self._routes = {route.name: route for route in routes}
        self._receiver = receiver
        self._audit = audit
        self._counts = counts
        self._refusals = Refusals(audit)
        addresses = tuple(address for peer in config.peers for address in peer.addresses)
        self._server = HttpsServer(
            HttpListen(
                config.host,
                config.dicomweb_port,
                config.handshake_timeout_s,
                config.idle_timeout_s,
                is_shared=config.processes > 1,
            ),
            server_context(config.tls),
            Door(
                DoorLimits(config.max_connections, config.max_connections_per_address, addresses, config.balancers),
                counts,
                self._refusals,
            ),
            self._serve,
            every_moment=self._refusals.sum_up,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    def bind(self, before: IngressWeb | None = None) -> None:
        """See `HttpsServer.bind`."""
        self._server.bind(before._server if before else None)

    def start(self) -> None:
        """Serve, and return."""
        self._server.start()

    def pause(self) -> None:
        """Take no more connections."""
        self._server.pause()

    def finish(self) -> None:
        """Wait until every request has ended by itself."""
        self._server.finish()
        self._refusals.sum_up(all_of_them=True)

    def stop(self, drain_s: float = 5.0) -> None:
        """Give requests `drain_s` seconds to end, break off what is left."""
        self._server.stop(drain_s)
        self._refusals.sum_up(all_of_them=True)

    def _serve(self, exchange: Exchange) -> None:
        peer = peer_of(self._config.peers, exchange.address, exchange.certificate)
        name = "" if isinstance(peer, Rejection) else peer
        caller = exchange.caller(name, "")
        if isinstance(peer, Rejection):
            self._refuse(caller, peer.reason)
            raise Answered(403, "not authorised")
        places = Places(self._counts)
        own = (f"associations of {name}", self._config.max_associations_per_ae)
        if places.take([("associations", self._config.max_associations), own]):
            self._refuse(caller, "too-many-requests")
            raise Answered(503, "too many requests at once", _LATER)
        try:
            boundary = self._check(exchange)
            route = self._route(exchange.path)
            self._store(exchange, caller, route, boundary)
        finally:
            places.give_back()

    def _check(self, exchange: Exchange) -> str:
        """Refuse by the head of the request what need not be read; the boundary of its body."""
        if exchange.method != "POST":
            raise Answered(405, "instances are stored here, and nothing else", [("allow", "POST")])
        if exchange.header("content-encoding"):
            raise Answered(415, "no content coding is taken")
        if not any(one.type in (DICOM_JSON, "application/*", "*/*") for one in accepted(exchange.header("accept"))):
            raise Answered(406, "stores are answered in application/dicom+json")
        length = exchange.header("content-length")
        if length and exchange.header("transfer-encoding"):
            raise Answered(400, "a body has one length")
        if length and (not _LENGTH.fullmatch(length) or int(length) > self._limit):
            raise Answered(413, f"a request has at most {self._config.dicomweb_max_mib} MiB")
        return boundary_of(exchange.header("content-type"))

    @property
    def _limit(self) -> int:
        return self._config.dicomweb_max_mib << 20

    def _route(self, path: str) -> Route:
        found = _PATH.fullmatch(path)
        if found is None:
            raise Answered(404, "there is no such resource: store to /dicomweb/ROUTE/studies")
        if found["route"] is not None and found["route"] in self._routes:
            return self._routes[found["route"]]
        if found["route"] is None and len(self._routes) == 1:
            return next(iter(self._routes.values()))
        raise Answered(404, "there is no such route: store to /dicomweb/ROUTE/studies")

    def _store(self, exchange: Exchange, caller: Caller, route: Route, boundary: str) -> None:
        begun = time.monotonic()
        caller = replace(caller, called_ae=route.called_ae)
        done: list[tuple[Stored, int]] = []
        refused: list[Line] = []

        def begin(sop_class: str, sop_instance: str, syntax: str) -> Incoming:
            self._receiver.admit(route.called_ae, caller.calling_ae, sop_class)
            facts = ReceivedFacts(
                calling_ae=caller.calling_ae,
                called_ae=route.called_ae,
                peer_address=caller.address,
                association_id=caller.association_id,
                sop_class_uid=sop_class,
                sop_instance_uid=sop_instance,
                transfer_syntax_uid=syntax,
            )
            return self._receiver.begin(facts)

        def finished(stored: Stored) -> None:
            done.append((stored, self._told(caller, stored, refused)))

        body = Body(boundary, Wanted(begin, finished))
        failure: Answered | None = None
        try:
            read = 0
            while data := exchange.read():
                read += len(data)
                if read > self._limit:
                    raise Answered(413, f"a request has at most {self._config.dicomweb_max_mib} MiB")
                body.write(data)
            body.finish()
        except Answered as answered:  # of what was stored before the sender has to learn all the same
            body.cut_off()
            failure = answered
        except DeliveryError:
            body.cut_off()
            self._close(caller, done, refused, begun, "aborted-mid-object")
            raise
        self._close(caller, done, refused, begun, "" if failure is None else "bad-body")
        if not done:
            raise failure or Answered(400, "the body holds no instance")
        status = _http_status([status for _, status in done], broken=failure is not None)
        later = _LATER if status == 503 else ()
        if failure is not None:
            later = (*later, ("connection", "close"))  # what is left of the body is not read
        exchange.answer(status, DICOM_JSON, _answer(done, broken=failure is not None), later)

    def _told(self, caller: Caller, stored: Stored, refused: list[Line]) -> int:
        """Note a refusal for the audit; the failure reason of a part, 0 where it is stored."""
        if stored.error is None:
            return 0
        if getattr(stored.error, "code", "") == "transfer-syntax-unknown":
            status, reason = TRANSFER_SYNTAX_NOT_SUPPORTED, "transfer-syntax-unknown"
        else:
            status, reason = status_of(stored.error)
        if not isinstance(stored.error, GatewayError):
            log.error("STOW-RS failed", association_id=caller.association_id, fault=fault(stored.error))
        log.info("instance refused", reason=reason, status=f"0x{status:04X}")
        outcome = "failure" if status in (PROCESSING_FAILURE, OUT_OF_RESOURCES) else "refused"
        fields: dict[str, object] = {
            "operation": OPERATION,
            "reason": reason,
            "status": status,
            "sop_class_uid": stored.sop_class_uid or None,
            "sop_instance_uid": stored.sop_instance_uid or None,
            "transfer_syntax_uid": stored.transfer_syntax_uid or None,
            "bytes": stored.size,
            **caller.audit_fields(),
        }
        refused.append(Line(events.INSTANCE_REFUSED, outcome, fields))
        return status

    def _close(
        self, caller: Caller, done: list[tuple[Stored, int]], refused: list[Line], begun: float, reason: str
    ) -> None:
        """Audit what was refused, and the request as an association that ends, with one flush before the answer."""
        statuses = Counter(status for _, status in done)
        fields: dict[str, object] = {
            "operation": OPERATION,
            "reason": reason or None,
            "received": statuses[0],
            "failed": statuses.total() - statuses[0],
            "statuses": dict(statuses),
            "bytes": sum(stored.size for stored, _ in done),
            "seconds": round(time.monotonic() - begun, 3),
            **caller.audit_fields(),
        }
        try:
            self._audit.write_all([*refused, Line(events.STORE_REQUEST, "failure" if reason else "success", fields)])
        except OSError as error:  # a full disk must not hide what became of an instance
            log.error("lines of the audit could not be written", lines=len(refused) + 1, errno=error.errno)

    def _refuse(self, caller: Caller, reason: str) -> None:
        fields = {name: value or None for name, value in caller.audit_fields().items()}
        self._refusals.write(events.REQUEST_REFUSED, reason, caller.address, **fields)


def peer_of(peers: Sequence[Peer], address: str, certificate: PeerCertificate | None) -> str | Rejection:
    """The AE title that a certificate from this address stands for, or why it stands for none."""
    bound = [peer for peer in peers if peer.is_bound and is_bound(peer, certificate)]
    if not bound:
        return CERTIFICATE_NOT_BOUND
    titles = {peer.ae_title for peer in bound if address_listed(address, peer.addresses)}
    if not titles:
        return ADDRESS_NOT_LISTED
    return titles.pop() if len(titles) == 1 else CERTIFICATE_OF_SEVERAL


def _http_status(statuses: list[int], *, broken: bool) -> int:
    """PS3.18 table 10.5.3-1: 200 all are stored, 202 some are, 409 none; 503 none, for want of room alone."""
    if all(status == 0 for status in statuses):
        return 202 if broken else 200
    if any(status == 0 for status in statuses):
        return 202
    if broken:
        return 400
    return 503 if all(status == OUT_OF_RESOURCES for status in statuses) else 409


def _answer(done: list[tuple[Stored, int]], *, broken: bool) -> bytes:
    """The Store Instances Response Module (PS3.18 I.2) in JSON."""
    stored, failed, others = [], [], []
    for part, status in done:
        if not part.sop_instance_uid:
            others.append({"00081197": {"vr": "US", "Value": [status]}})
            continue
        reference = {
            "00081150": {"vr": "UI", "Value": [part.sop_class_uid]},
            "00081155": {"vr": "UI", "Value": [part.sop_instance_uid]},
        }
        if status == 0:
            stored.append(reference)
        else:
            failed.append(reference | {"00081197": {"vr": "US", "Value": [status]}})
    if broken:
        others.append({"00081197": {"vr": "US", "Value": [PROCESSING_FAILURE]}})
    model: dict[str, object] = {"00081190": {"vr": "UR"}}
    for tag, items in (("00081199", stored), ("00081198", failed), ("0008119A", others)):
        if items:
            model[tag] = {"vr": "SQ", "Value": items}
    return json.dumps(model).encode()
