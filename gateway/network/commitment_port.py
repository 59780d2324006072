"""Where destinations report on associations of their own what they have committed to keep (PS3.4 J.3.3).

They are the SCP, and ask for that role (PS3.7 D.3.3.4); one that forgets to is taken all the same.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext, build_context

from gateway.audit import AuditLog
from gateway.config.models import Commitment, Destination
from gateway.errors import CapacityError, DicomError, fault
from gateway.flow.ports import CommitmentReport
from gateway.network import tls as tls_contexts
from gateway.network.binding import is_bound
from gateway.network.callers import (
    ADDRESS_NOT_LISTED,
    CALLING_AE_UNKNOWN,
    CERTIFICATE_NOT_BOUND,
    Caller,
    Rejection,
    address_listed,
)
from gateway.network.commitment_sets import LONGEST, PUSH_MODEL, SYNTAXES, read_report
from gateway.network.contexts import VERIFICATION
from gateway.network.retrieve.receiving import BoundedBuffer, BoundedDimse, MemoryBudget
from gateway.network.server import Listen, ScpServer
from gateway.network.upper_layer import GatewayAssociation

SUCCESS, PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0000, 0x0110, 0x0115  # PS3.7 annex C
_MOST_ASSOCIATIONS = 20
_MOST_MEMORY = 64 << 20  # bytes of reports in reception, over all associations

Take = Callable[[Collection[str], CommitmentReport], object]
"""What takes a report, given the names of the destinations that it may come from; CapacityError: not now."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reporter:
    """A destination as one that calls us."""

    destination: str
    ae_title: str
    addresses: tuple[str, ...]
    san: tuple[str, ...]  # of its certificate, where the port speaks TLS
    key_sha256: tuple[str, ...] = field(default=())


class CommitmentPort:
    """The port of the ``[commitment]`` table.

    Parameters
    ----------
    destinations
        Those with a ``commitment`` table may report, each from its addresses.
    take
        What is done with a report.
    is_shared
        Other processes of this role listen on the same port.
    """

    def __init__(
        self,
        config: Commitment,
        destinations: Iterable[Destination],
        take: Take,
        audit: AuditLog,
        *,
        is_shared: bool = False,
    ) -> None:
        self._take = take
        self._reporters = [_reporter(one) for one in destinations if one.commitment is not None]
        budget = MemoryBudget(_MOST_MEMORY)
        called = dict.fromkeys(one.calling_ae for one in destinations if one.commitment is not None)
        self._server = ScpServer(
            Listen(
                host=config.host,
                port=config.port,
                called_aes=tuple(called),
                max_associations=_MOST_ASSOCIATIONS,
                addresses=tuple(address for one in self._reporters for address in one.addresses),
                is_shared=is_shared,
            ),
            audit=audit,
            admit=self._admit,
            contexts=_contexts,
            handlers=[(evt.EVT_C_ECHO, lambda event: SUCCESS), (evt.EVT_N_EVENT_REPORT, self._reported)],
            association_class=lambda ae, mode: _Association(ae, mode, budget),
            tls=tls_contexts.server_context(config.tls) if config.tls else None,
        )
        self._needs_certificate = config.tls is not None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    def bind(self, before: CommitmentPort | None = None) -> None:
        """Listen and accept nothing yet; see `ScpServer.bind`."""
        self._server.bind([before._server] if before else [])

    def start(self) -> None:
        """Listen and return."""
        self._server.start()

    def pause(self) -> None:
        """Take no more connections."""
        self._server.pause()

    def finish(self) -> None:
        """Wait until every association has ended by itself."""
        self._server.finish()

    def stop(self) -> None:
        """Stop listening and let running associations end."""
        self._server.stop()

    def _admit(self, caller: Caller) -> Rejection | None:
        who = self._who(caller)
        return who if isinstance(who, Rejection) else None

    def _who(self, caller: Caller) -> list[_Reporter] | Rejection:
        """The destinations that a caller speaks for: another of the same AE title speaks for itself alone."""
        known = [one for one in self._reporters if one.ae_title == caller.calling_ae]
        if not known:
            return CALLING_AE_UNKNOWN
        known = [one for one in known if address_listed(caller.address, one.addresses)]
        if not known:
            return ADDRESS_NOT_LISTED
        if self._needs_certificate:
            known = [one for one in known if is_bound(one, caller.certificate)]
        return known or CERTIFICATE_NOT_BOUND

    def _reported(self, event: evt.Event) -> tuple[int, None]:
        """EVT_N_EVENT_REPORT."""
        association = event.assoc
        assert isinstance(association, GatewayAssociation)
        who = self._who(association.known_caller)
        if isinstance(who, Rejection):  # it was let in, so it is none; else nobody's report is taken
            return PROCESSING_FAILURE, None
        names = [one.destination for one in who]
        information = getattr(event.request, "EventInformation", None)
        data = information.getvalue() if information is not None else b""
        if isinstance(information, BoundedBuffer):
            information.free()
        try:
            self._take(names, read_report(data, str(event.context.transfer_syntax)))
        except DicomError as error:
            _log.warning("a report of %s cannot be read: %s", names[0], error.code)
            return INVALID_ARGUMENT, None
        except CapacityError as error:
            _log.warning("a report of %s cannot be taken now: %s", names[0], error.code)
            return PROCESSING_FAILURE, None
        except Exception as error:
            _log.error("a report of %s: %s", names[0], fault(error))
            return PROCESSING_FAILURE, None
        return SUCCESS, None


class _Association(GatewayAssociation):
    def __init__(self, ae: ApplicationEntity, mode: str, budget: MemoryBudget) -> None:
        self._budget = budget
        super().__init__(ae, mode)

    def make_dimse(self) -> BoundedDimse:
        return BoundedDimse(self, LONGEST, self._budget)

    def connection_ended(self) -> None:
        if isinstance(self.dimse, BoundedDimse):
            self.dimse.connection_ended()


def _contexts(proposed: Sequence[PresentationContext], _: Caller) -> list[PresentationContext]:
    report = build_context(PUSH_MODEL, list(SYNTAXES))
    report.scu_role, report.scp_role = False, True  # the one who asks for the association is the SCP
    return [report, build_context(VERIFICATION, list(SYNTAXES))]


def _reporter(one: Destination) -> _Reporter:
    assert one.commitment is not None
    addresses = one.commitment.addresses
    if not addresses:
        try:
            addresses = (str(ipaddress.ip_address("127.0.0.1" if one.host == "localhost" else one.host)),)
        except ValueError:
            addresses = ()  # `config check` says so
    return _Reporter(one.name, one.ae_title, addresses, (one.host,))
