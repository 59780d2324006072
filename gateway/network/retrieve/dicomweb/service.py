"""`RestoreWeb`: the restore role's port for DICOMweb.

A caller is its certificate: exactly one workstation's entry has to be bound to it, and the connection has to come from
an address of that entry. There is no port without TLS. From there on the way is that of the restore SCP: the same
scope, the same records and checks, the same lines in the audit before anything leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.audit import AuditLog, events
from gateway.audit.refusals import Refusals
from gateway.config.models import Restore
from gateway.errors import CapacityError, ConfigError
from gateway.network.admission import Counts, Places
from gateway.network.callers import Caller, Rejection
from gateway.network.door import Door, DoorLimits
from gateway.network.http import Answered, Exchange, HttpListen, HttpsServer
from gateway.network.retrieve.access import bound_to
from gateway.network.retrieve.dicomweb.bearer import Bearer, TokenRefused
from gateway.network.retrieve.dicomweb.originals import serve_retrieve
from gateway.network.retrieve.dicomweb.search import serve_search
from gateway.network.retrieve.dicomweb.targets import Kind, Target, target_of
from gateway.network.retrieve.dicomweb.views import serve_view
from gateway.network.retrieve.session import Access, Index, Restorer, Services, Viewer
from gateway.network.tls import server_context

_SERVICES: dict[Kind, Callable[[Access, Exchange, Target], None]] = {
    "search": serve_search,
    "retrieve": serve_retrieve,
    "metadata": serve_view,
    "rendered": serve_view,
    "bulk": serve_view,
}
_LATER = (("retry-after", "2"),)


class RestoreWeb:
    """The port; all as of `gateway.network.retrieve.RestoreScp`, whose limits it shares by `counts`.

    Parameters
    ----------
    viewer
        Makes metadata and pictures out of originals, where no key is.
    bearer
        Checks the token that each request has to show besides the certificate; None: none is asked for.

    Raises
    ------
    ConfigError
        The TLS files cannot be used.
    """

    def __init__(
        self,
        settings: Restore,
        index: Index,
        restorer: Restorer,
        audit: AuditLog,
        counts: Counts,
        viewer: Viewer,
        bearer: Bearer | None = None,
    ) -> None:
        if settings.dicomweb_port is None or settings.tls is None:
            raise ConfigError("no-dicomweb", "the restore role has no dicomweb_port, or no [restore.tls]")
        self._settings = settings
        self._counts = counts
        self._viewer = viewer
        self._bearer = bearer
        self._services = Services(settings, index, restorer, audit, None, viewer=viewer)
        self._refusals = Refusals(audit)
        addresses = tuple(address for one in settings.workstations for address in one.addresses)
        limits = DoorLimits(
            settings.max_connections, settings.max_connections_per_address, addresses, settings.balancers
        )
        self._server = HttpsServer(
            HttpListen(settings.host, settings.dicomweb_port, settings.handshake_timeout_s, settings.idle_timeout_s),
            server_context(settings.tls),
            Door(limits, counts, self._refusals),
            self._serve,
            every_moment=self._refusals.sum_up,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    def bind(self, before: RestoreWeb | None = None) -> None:
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
        self._viewer.close()
        self._refusals.sum_up(all_of_them=True)

    def stop(self, drain_s: float = 5.0) -> None:
        """Give requests `drain_s` seconds to end, break off what is left."""
        self._server.stop(drain_s)
        self._viewer.close()
        self._refusals.sum_up(all_of_them=True)

    def _serve(self, exchange: Exchange) -> None:
        workstation = bound_to(self._settings.workstations, exchange.address, exchange.certificate)
        name = "" if isinstance(workstation, Rejection) else workstation.ae_title
        caller = exchange.caller(name, self._settings.ae_title)
        if isinstance(workstation, Rejection):
            self._refuse(caller, workstation.reason)
            raise Answered(403, "not authorised")
        places = Places(self._counts)
        own = (f"associations of {name}", self._settings.max_associations_per_ae)
        if places.take([("associations", self._settings.max_associations), own]):
            self._refuse(caller, "too-many-requests")
            raise Answered(503, "too many requests at once", _LATER)
        try:
            _check(exchange)
            target = target_of(exchange.path)
            caller = self._with_token(caller, exchange, target)
            _SERVICES[target.kind](Access(self._services, caller, workstation), exchange, target)
        except CapacityError as error:
            raise Answered(503, error.message, _LATER) from None
        finally:
            places.give_back()

    def _with_token(self, caller: Caller, exchange: Exchange, target: Target) -> Caller:
        """The caller, with whose token it shows; Answered where it shows none that counts."""
        if self._bearer is None:
            return caller
        try:
            user = self._bearer.check(exchange.header("authorization"), exchange.certificate, target.kind)
        except TokenRefused as refused:
            self._refuse(caller, refused.reason)
            raise refused.answer from None
        return replace(caller, user=user)

    def _refuse(self, caller: Caller, reason: str) -> None:
        fields = caller.audit_fields()
        fields["calling_ae"] = caller.calling_ae or None
        self._refusals.write(events.REQUEST_REFUSED, reason, caller.address, **fields)


def _check(exchange: Exchange) -> None:
    """Refuse what no request of ours needs: it would be read differently by somebody on the way."""
    if exchange.method != "GET":
        raise Answered(405, "originals can be read, and nothing else", [("allow", "GET")])
    if exchange.header("content-encoding"):
        raise Answered(415, "no content coding is taken")
    if exchange.header("transfer-encoding") or exchange.header("content-length") not in ("", "0"):
        raise Answered(400, "a request to read has no body")
