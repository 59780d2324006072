"""Role worker: spool to vault, marked copies, delivery. It can seal and not open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gateway.audit import AuditLog, audited, events
from gateway.config import Config
from gateway.database import open_wakes
from gateway.keys.keyring import SealingKeys
from gateway.service.places import database
from gateway.service.viewing import view_folder
from gateway.service.wiring import build_commitments, build_reports, build_requested, build_step_context

if TYPE_CHECKING:
    from gateway.flow.context import StepContext
    from gateway.flow.worker import FlowWorker
    from gateway.network.commitment_port import CommitmentPort
    from gateway.network.egress import Egress
    from gateway.service.view_port import ViewPort
    from gateway.web.sessions import Sessions

CLOCK_S = 10.0  # between two looks whether the clock was set back
COMMITMENTS_S = 1.0  # between two looks for commitments that are to be asked for, or answered
REPORTS_S = 10.0  # between two looks for studies that came to rest
REQUESTS_S = 1.0  # between two looks for what people at the page asked for

log = structlog.get_logger(__name__)


class WorkerParts:
    """Builds what the role runs; what outlives a reload is held here."""

    def __init__(self, config: Config, audit: AuditLog) -> None:
        from gateway.flow.gate import Gate

        self._audit = audit
        self._engine = database(config)
        self._logins: tuple[object, Sessions] | None = None  # of who sees pictures; a reload logs nobody out
        self._gate = Gate()  # what is suspected is done alone, beside the threads of an older part too

    def build(self, config: Config, before: WorkerPart | None) -> WorkerPart:
        """What seals, marks, delivers and purges."""
        from gateway.flow.clock import BackwardJumps, ClockGuard
        from gateway.flow.retention import Retainer
        from gateway.flow.steps import Steps
        from gateway.flow.store import FlowStore, lease_owner
        from gateway.flow.worker import FlowWorker
        from gateway.network.egress import Egress

        keys, engine, audit = SealingKeys.load(config.keys), self._engine, self._audit
        store = FlowStore(engine, lease_owner(), open_wakes(engine))
        context = build_step_context(config, keys, store, engine, audit)
        clock = ClockGuard(engine, audit)
        retainer = Retainer(
            config.retention, store, context.spool, context.derived, context.protector, clock.believes, audit
        )
        further = [("emergencies", context.passing.tend, 1.0)]
        if any(route.report for route in config.routes):
            further.append(("reports", build_reports(config, keys, store, engine, context).once, REPORTS_S))
        beside = [("clock", BackwardJumps(engine, config.worker.lease_s).once, CLOCK_S)]
        if config.page is not None:
            beside.append(("requests", build_requested(config, engine, store, audit).once, REQUESTS_S))
        asked, promises, port = build_commitments(config, engine, store, audit)
        if asked is not None:
            further.append(("commitments", asked.once, COMMITMENTS_S))
        if promises is not None:
            further.append(("promises", promises.once, COMMITMENTS_S))
        if port is not None:
            port.bind(before.port if before else None)
        for warning in context.protector.warnings():
            log.warning("surrogates", warning=warning)
        try:
            egress = Egress(config.destinations, audit)
        except BaseException:
            if port is not None:
                port.pause()
            raise
        worker = FlowWorker(
            config.worker, config.destinations, store, Steps(context), egress, retainer, further, self._gate, beside
        )
        return WorkerPart(config, context, worker, egress, port, self._view_port(config, context, before))

    def _view_port(self, config: Config, context: StepContext, before: WorkerPart | None) -> ViewPort | None:
        """What shows pictures to the page, where that is wanted."""
        page = config.page
        if page is None or not page.viewer:
            return None
        from gateway.flow.viewing import Viewing
        from gateway.service.identity import proofs_of
        from gateway.service.view_port import ViewPort, sessions_of

        about = (page.users, page.session_minutes, page.oidc)
        if self._logins is None or self._logins[0] != about:
            self._logins = (about, sessions_of(page))
        proofs = proofs_of(page.oidc) if page.oidc is not None else None
        port = ViewPort(view_folder(config), Viewing(context, self._engine), self._logins[1], self._audit, proofs)
        port.bind(before.views if before else None)
        return port


class WorkerPart:
    """The threads, and the associations with destinations (`gateway.service.part`)."""

    def __init__(
        self,
        config: Config,
        context: StepContext,
        worker: FlowWorker,
        egress: Egress,
        port: CommitmentPort | None = None,
        views: ViewPort | None = None,
    ) -> None:
        self.port = port
        self.views = views
        self._config = config
        self._context = context
        self._worker = worker
        self._egress = egress

    def start(self) -> None:
        """Tell of bold choices, then begin."""
        _tell_of_clinical(self._config, self._context.audit)
        self._context.passing.start()
        self._worker.start()
        if self.port is not None:
            self.port.start()
        if self.views is not None:
            self.views.start()

    def pause(self) -> None:
        """Claim nothing more; of a batch that is delivered no further instance is sent."""
        if self.port is not None:
            self.port.pause()
        if self.views is not None:
            self.views.pause()
        self._worker.pause()

    def finish(self) -> None:
        """Let the batches at hand come to their end."""
        if self.port is not None:
            self.port.finish()
        if self.views is not None:
            self.views.finish()
        self._worker.stop(None)
        self._egress.close()

    def stop(self) -> None:
        """Give the batches at hand half a minute."""
        if self.port is not None:
            self.port.stop()
        if self.views is not None:
            self.views.stop()
        self._worker.stop()
        self._egress.close()

    def discard(self) -> None:
        """Nothing was claimed, no association opened."""
        if self.port is not None:
            self.port.pause()
        if self.views is not None:
            self.views.discard()
        self._egress.close()


def _tell_of_clinical(config: Config, audit: AuditLog) -> None:
    """Audit and log each destination that gets marked copies although it is clinical, before anything goes there."""
    for destination in config.destinations:
        if destination.type == "clinical":
            audited(audit, events.CLINICAL_DESTINATION, "success", destination=destination.name)
            log.warning("clinical destination: marked copies must not be read there", destination=destination.name)
