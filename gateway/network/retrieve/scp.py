"""`RestoreScp`: the Query/Retrieve SCP that gives authorized workstations bit-exact originals, on up to two ports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pynetdicom import evt
from pynetdicom.presentation import PresentationContext

from gateway.audit import AuditLog, events
from gateway.config.models import Restore
from gateway.log import get_logger
from gateway.network.admission import Counts
from gateway.network.callers import Caller, Rejection
from gateway.network.retrieve.access import decide
from gateway.network.retrieve.association import RestoreAssociation
from gateway.network.retrieve.negotiation import RecentlyHeld, supported_contexts
from gateway.network.retrieve.receiving import MemoryBudget
from gateway.network.retrieve.session import Index, Restorer, Services
from gateway.network.server import Listen, ScpServer
from gateway.network.tls import client_context, server_context
from gateway.network.upper_layer import GatewayAssociation
from gateway.vault.index import Scope

log = get_logger(__name__)


class RestoreScp:
    """The restore role's ports.

    Parameters
    ----------
    settings
        The ``[restore]`` table.
    index
        Answers C-FIND and selects what C-MOVE and C-GET name.
    restorer
        Opens originals.
    audit
        Every decision goes there.
    counts
        What the limits count, where several processes of the role share a machine; None: this process's own. Both ports
        count together in either case.

    Raises
    ------
    ConfigError
        The TLS files cannot be used.
    """

    def __init__(
        self, settings: Restore, index: Index, restorer: Restorer, audit: AuditLog, counts: Counts | None = None
    ) -> None:
        self.settings = settings
        self._audit = audit
        client_tls = None
        if settings.tls is not None:
            client_tls = client_context(settings.tls)
            # The certificate is bound to the workstation's own entry, which says more than the name of its host.
            client_tls.check_hostname = False
        self._held = RecentlyHeld(index.transfer_syntaxes)
        self._counts = counts or Counts()
        memory = MemoryBudget(settings.max_memory_mib << 20)
        self._services = Services(settings, index, restorer, audit, client_tls, memory)
        self._tls_server = None if settings.tls_port is None else self._server(settings.tls_port, over_tls=True)
        self._plain_server = None if settings.plain_port is None else self._server(settings.plain_port, over_tls=False)

    def bind(self, before: RestoreScp | None = None) -> None:
        """Listen on the configured ports and accept nothing yet; see `ScpServer.bind`.

        Raises
        ------
        ConfigError
            Code ``cannot-listen``; then no port is left open.
        """
        try:
            for server in self._servers:
                server.bind(before._servers if before else [])
        except BaseException:
            self.pause()
            raise

    def start(self) -> None:
        """Listen on the configured ports, where `bind` did not, and return.

        Raises
        ------
        ConfigError
            Code ``cannot-listen``; then no port is left open.
        """
        for workstation in self.settings.workstations:
            if workstation.plain:
                log.warning(
                    "PLAIN WORKSTATION: gets originals without TLS, known by AE title and address only",
                    ae_title=workstation.ae_title,
                    addresses=workstation.addresses,
                )
            if workstation.host and workstation.receive_plain:
                log.warning(
                    "PLAIN DESTINATION: originals go there without TLS",
                    ae_title=workstation.ae_title,
                    host=workstation.host,
                )
        try:
            for server in self._servers:
                server.start()
        except BaseException:
            self.stop(drain_s=0)
            raise

    def stop(self, drain_s: float = 5.0) -> None:
        """Take no more connections, give associations `drain_s` seconds to end, abort what is left."""
        for server in self._servers:
            server.stop(drain_s)

    def pause(self) -> None:
        """Take no more connections; see `ScpServer.pause`."""
        for server in self._servers:
            server.pause()

    def finish(self) -> None:
        """Wait until every association has ended by itself; see `ScpServer.finish`."""
        for server in self._servers:
            server.finish()

    @property
    def tls_port(self) -> int | None:
        """The TLS port that is listened on."""
        return self._tls_server.port if self._tls_server else None

    @property
    def plain_port(self) -> int | None:
        """The port without TLS that is listened on."""
        return self._plain_server.port if self._plain_server else None

    @property
    def _servers(self) -> list[ScpServer]:
        return [server for server in (self._tls_server, self._plain_server) if server is not None]

    def _server(self, port: int, *, over_tls: bool) -> ScpServer:
        settings = self.settings
        return ScpServer(
            Listen(
                host=settings.host,
                port=port,
                called_aes=(settings.ae_title,),
                max_pdu=settings.max_pdu,
                max_associations=settings.max_associations,
                max_connections=settings.max_connections,
                idle_timeout_s=settings.idle_timeout_s,
                handshake_timeout_s=settings.handshake_timeout_s,
                addresses=tuple(address for one in settings.workstations for address in one.addresses),
                balancers=settings.balancers,
                max_connections_per_address=settings.max_connections_per_address,
                max_associations_per_ae=settings.max_associations_per_ae,
            ),
            audit=self._audit,
            admit=partial(self._admit, over_tls=over_tls),
            contexts=partial(self._contexts, over_tls=over_tls),
            handlers=[(evt.EVT_ESTABLISHED, self._opened)],
            association_class=partial(RestoreAssociation, services=self._services),
            tls=server_context(settings.tls) if over_tls and settings.tls is not None else None,
            on_end=self._closed,
            counts=self._counts,
        )

    def _admit(self, caller: Caller, *, over_tls: bool) -> Rejection | None:
        entry = decide(self.settings.workstations, caller, over_tls=over_tls)
        return entry if isinstance(entry, Rejection) else None

    def _contexts(
        self, proposed: Sequence[PresentationContext], caller: Caller, *, over_tls: bool
    ) -> list[PresentationContext]:
        """What is supported for this caller: of the vault's contents it learns only what lies in its scope."""
        entry = decide(self.settings.workstations, caller, over_tls=over_tls)
        studies = () if isinstance(entry, Rejection) else entry.studies
        return supported_contexts(proposed, partial(self._held, Scope(studies)))

    def _opened(self, event: evt.Event) -> None:
        if not isinstance(event.assoc, GatewayAssociation):
            return
        caller = event.assoc.known_caller
        opened = events.PLAIN_CONNECTION if caller.certificate is None else events.ASSOCIATION_OPENED
        self._audit.write(opened, "success", **caller.audit_fields())

    def _closed(self, association: GatewayAssociation) -> None:
        outcome = "success" if association.is_released else "failure"
        fields = association.known_caller.audit_fields()
        try:
            self._audit.write(events.ASSOCIATION_CLOSED, outcome, reason=association.flaw or None, **fields)
        except OSError as error:  # nothing can leave any more: what would have left has a line before it, or did not
            log.error("the audit cannot be written", error=error.strerror)
