"""The last step, marked to delivered: one instance to one destination, and what becomes of it when that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog

from gateway.audit import audited, events
from gateway.database import DeliveryRow, InstanceRow
from gateway.errors import CapacityError, GatewayError, HoldError, PermanentError, TransientError, fault
from gateway.flow.backoff import MOST_DEATHS, STEP_ATTEMPTS, delay_s, killed_the_worker
from gateway.flow.context import StepContext
from gateway.flow.faults import Repeated, as_waiting, unexpected
from gateway.flow.leases import LeaseLost
from gateway.flow.leaving import Leaving, not_named
from gateway.flow.ports import Sender

# Codes of errors about a destination's certificate, or ours there: these, and all that begin so.
CERTIFICATE = ("certificate-", "tls-failed")
CERTIFICATE_S = 24 * 3600.0  # how long such a destination is tried before what waits for it is held

Retry = Callable[[int], float]

log = structlog.get_logger(__name__)


class Deliverer:
    """Sends what may leave. It does not raise but for `LeaseLost` and a database that cannot be written to."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._leaving = Leaving(context)
        self._repeated = Repeated()

    def deliver(self, delivery: DeliveryRow, row: InstanceRow, sender: Sender, retry: Retry) -> bool:
        """Send one instance to one destination; see `gateway.flow.steps.Steps.deliver`."""
        try:
            if delivery.deaths >= MOST_DEATHS:
                raise killed_the_worker("delivery", delivery.deaths)
            status = sender.send(delivery.destination, self._leaving.outgoing(delivery, row))
            self._repeated.over(delivery.destination)
            if self._context.store.sent(delivery, status) and row.spool_file:
                self._context.spool.delete(row.spool_file)
                self._context.store.forget_spool_file([row.id])
        except LeaseLost:
            raise
        except TransientError as error:
            return self._later_or_held(delivery, error, retry)
        except (PermanentError, HoldError) as error:
            self._hold(delivery, error)
        except Exception as error:
            return self._failed(delivery, error)
        return True

    def hold_stranded(self) -> int:
        """Hold what waits for destinations that its route does not name any more. Returns how many deliveries."""
        named = {(route.name, name) for route in self._context.routes.values() for name in route.destinations}
        held = 0
        for one in self._context.store.stranded(named):
            code, message, hint = not_named(one.route, one.destination)
            tell = partial(self._tell_held, one.instance_id, one.destination, code)
            try:
                held += self._context.store.hold_stranded(one, code, f"{message} ({hint})", tell)
            except CapacityError as error:  # it waits as it is: it does not leave either, see `Leaving`
                log.error("not held: their routes do not name the destination any more", code=error.code)
                break
        if held:
            log.error("held: their routes do not name the destination any more", deliveries=held)
        return held

    def _later_or_held(self, delivery: DeliveryRow, error: TransientError, retry: Retry) -> bool:
        """A failure that may pass: of the destination's certificate within a time, else within a number of tries."""
        since = None
        wait = retry(delivery.attempts)
        if error.code.startswith(CERTIFICATE):
            since = delivery.failing_since or time.time()
            left = since + CERTIFICATE_S - time.time()
            wait = min(left, retry(1) * 2 ** min(delivery.attempts - 1, 8)) if left > 0 else 0.0
        if not wait:
            self._hold(delivery, error)
            return True
        self._context.store.delivery_later(delivery, wait, error.code, error.message, since)
        count = self._repeated.again(delivery.destination, error.code)
        if count:
            tell = log.error if since else log.warning
            tell("delivery later", destination=delivery.destination, code=error.code, failures=count)
        # The destination aborted on this instance: the others of the batch go on, over a new association.
        return error.about_instance

    def _failed(self, delivery: DeliveryRow, error: Exception) -> bool:
        waits = as_waiting(error)
        if waits is not None:  # a full disk or database: not the instance's fault, for as long as it takes
            self._context.store.delivery_later(delivery, delay_s(delivery.attempts), waits.code, waits.message)
            log.error("delivery waits", destination=delivery.destination, code=waits.code)
            return False
        log.error("delivery failed", instance=delivery.instance_id, fault=fault(error))
        if delivery.attempts < STEP_ATTEMPTS:
            text = fault(error)
            self._context.store.delivery_later(delivery, delay_s(delivery.attempts), "unexpected", text)
        else:
            self._hold(delivery, unexpected(error))
        return True

    def _hold(self, delivery: DeliveryRow, error: GatewayError) -> None:
        tell = partial(self._tell_held, delivery.instance_id, delivery.destination, error.code)
        try:
            self._context.store.delivery_held(delivery, error.code, str(error), tell)
        except CapacityError as full:  # nothing is held untold: it waits until the audit can be written
            self._context.store.delivery_later(delivery, delay_s(delivery.attempts), full.code, full.message)
            log.error("delivery waits", destination=delivery.destination, code=full.code)
            return
        log.warning("delivery held", instance=delivery.instance_id, destination=delivery.destination, code=error.code)

    def _tell_held(self, instance_id: str, destination: str, code: str) -> None:
        what = {"instance_id": instance_id, "destination": destination, "reason": code}
        audited(self._context.audit, events.INSTANCE_HELD, "failure", **what)
