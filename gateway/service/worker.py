"""Role worker: spool to vault, marked copies, delivery. It can seal and not open."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from gateway.audit import AuditLog, events
from gateway.config import Config
from gateway.keys.keyring import SealingKeys
from gateway.service.places import database, places
from gateway.service.wiring import build_reports, build_step_context

REPORTS_S = 10.0  # between two looks for studies that came to rest

log = structlog.get_logger(__name__)


def start_worker(config: Config) -> Callable[[], None]:
    """Start sealing, marking, delivering and purging; returns what stops them."""
    from gateway.flow.clock import ClockGuard
    from gateway.flow.retention import Retainer
    from gateway.flow.steps import Steps
    from gateway.flow.store import FlowStore, lease_owner
    from gateway.flow.worker import FlowWorker
    from gateway.network.egress import Egress

    keys = SealingKeys.load(config.keys)
    engine = database(config)
    store = FlowStore(engine, lease_owner())
    context = build_step_context(config, keys, store, engine, AuditLog(places(config).audit("worker")))
    _tell_of_clinical(config, context.audit)
    context.passing.start()
    egress = Egress(config.destinations, context.audit)
    clock = ClockGuard(engine, context.audit)
    retainer = Retainer(
        config.retention, store, context.spool, context.derived, context.protector, clock.believes, context.audit
    )
    further = [("emergencies", context.passing.tend, 1.0)]
    if any(route.report for route in config.routes):
        further.append(("reports", build_reports(config, keys, store, engine, context).once, REPORTS_S))
    worker = FlowWorker(config.worker, config.destinations, store, Steps(context), egress, retainer, further)
    for warning in context.protector.warnings():
        log.warning("surrogates", warning=warning)
    worker.start()

    def stop() -> None:
        worker.stop()
        egress.close()

    return stop


def _tell_of_clinical(config: Config, audit: AuditLog) -> None:
    """Audit and log each destination that gets marked copies although it is clinical, before anything goes there."""
    for destination in config.destinations:
        if destination.type == "clinical":
            audit.write(events.CLINICAL_DESTINATION, "success", destination=destination.name)
            log.warning("clinical destination: marked copies must not be read there", destination=destination.name)
