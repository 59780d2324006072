"""The last step, marked to delivered: one instance to one destination, and what becomes of it when that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from gateway import tracing
from gateway.audit import Line, audited, audited_all, events
from gateway.database import DeliveryRow, InstanceRow
from gateway.errors import CapacityError, DeliveryError, GatewayError, HoldError, PermanentError, fault
from gateway.flow.backoff import MOST_DEATHS, STEP_ATTEMPTS, delay_s, killed_the_worker
from gateway.flow.changes import DeliveryChange, delivery_held, delivery_later, fell_back, sent, untried
from gateway.flow.context import StepContext
from gateway.flow.failures import counts_anew, is_certificate, is_of_the_place, kind_of
from gateway.flow.faults import Repeated, as_waiting, unexpected
from gateway.flow.leases import LeaseLost
from gateway.flow.leaving import Leaving, not_named
from gateway.flow.outages import Outages
from gateway.flow.outcomes import SETTLE_S
from gateway.flow.ports import Sender
from gateway.flow.sidebyside import side_by_side
from gateway.flow.states import HELD

CERTIFICATE_S = 24 * 3600.0  # how long a certificate that fails is tried before what waits for it is held

Retry = Callable[[str, int], float]
"""Kind of failure and number of the try -> seconds until the next, or 0 to give up and hold."""

log = structlog.get_logger(__name__)


class Deliverer:
    """Sends what may leave. It does not raise but for a database that cannot be written to."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._leaving = Leaving(context)
        self._repeated = Repeated()
        self._outages = Outages(context.destinations)

    def deliver(
        self,
        pairs: Sequence[tuple[DeliveryRow, InstanceRow]],
        sender: Sender,
        retry: Retry,
        pause_s: float,
        stopped: Callable[[], bool],
        at_a_time: int = 1,
    ) -> int:
        """Send instances to one destination; see `gateway.flow.steps.Steps.deliver`."""
        waiting: list[tuple[DeliveryChange, InstanceRow]] = []
        untouched = set(range(len(pairs)))
        done, since, reachable = 0, time.monotonic(), True

        def send(number: int) -> tuple[DeliveryChange, bool]:
            return self._send(*pairs[number], sender, retry)

        def goes_on() -> bool:
            return reachable and not stopped()

        def places() -> int:
            return sender.at_a_time(pairs[0][0].destination)

        for number, (change, is_reachable) in side_by_side(len(pairs), at_a_time, send, goes_on, places):
            untouched.remove(number)
            waiting.append((change, pairs[number][1]))
            if is_reachable and not stopped() and time.monotonic() - since < SETTLE_S:
                done += 1
                continue
            is_lost = self._settle(waiting)
            waiting, since = [], time.monotonic()
            if is_reachable or is_lost:
                done += 1
            else:
                reachable = False
        pause = 0.0 if reachable else pause_s
        waiting += [(untried(pairs[number][0], pause), pairs[number][1]) for number in sorted(untouched)]
        self._settle(waiting)
        return done

    def _send(
        self, delivery: DeliveryRow, row: InstanceRow, sender: Sender, retry: Retry
    ) -> tuple[DeliveryChange, bool]:
        """What became of one; and False when the destination is not reachable for now."""
        name = delivery.destination
        try:
            if delivery.deaths >= MOST_DEATHS:
                raise killed_the_worker("delivery", delivery.deaths)
            if (instead := self._instead(delivery, row)) and self._outages.was_just_tried(name):
                return self._fell_back(delivery, instead, "outage"), True
            outgoing = self._leaving.outgoing(delivery, row)
            told: dict[str, tracing.Value] = {"destination": name, "attempt": delivery.attempts}
            with tracing.span("deliver", row.id, **told), self._context.turns.turn(self._priority(name)):
                status = sender.send(name, outgoing)
            self._repeated.over(name)
            self._outages.over(name)
            return sent(delivery, status, self._commit_after_s(name)), True
        except DeliveryError as error:
            if not is_of_the_place(error):
                return self._later_or_held(delivery, error, retry)
            self._outages.failed(name)
            if instead := self._instead(delivery, row):
                return self._fell_back(delivery, instead, error.code), True
            change, goes_on = self._later_or_held(delivery, error, retry)
            if change.values.get("state") == HELD and (fallback := self._outages.fallback(delivery, row)):
                return self._fell_back(delivery, fallback.name, error.code), True
            return change, goes_on
        except HoldError as error:
            return self._held(delivery, error), True
        except Exception as error:
            return self._failed(delivery, error)

    def _commit_after_s(self, name: str) -> float | None:
        found = self._context.destinations.get(name)
        return found.commitment.after_s if found and found.commitment else None

    def _is_committed_to(self, row: InstanceRow) -> bool:
        route = self._context.routes.get(row.route)
        return any(self._commit_after_s(name) is not None for name in (route.destinations if route else ()))

    def _priority(self, name: str) -> str:
        found = self._context.destinations.get(name)
        return found.priority if found else "medium"

    def _instead(self, delivery: DeliveryRow, row: InstanceRow) -> str | None:
        """The fallback that this goes to now, since its destination has failed for long enough."""
        fallback = self._outages.fallback(delivery, row)
        return fallback.name if fallback and self._outages.is_long(delivery.destination) else None

    def _fell_back(self, delivery: DeliveryRow, instead: str, reason: str) -> DeliveryChange:
        """To the fallback; without this line it does not go there."""
        told = {"instance_id": delivery.instance_id, "destination": delivery.destination, "fallback": instead}
        line = Line(events.DELIVERY_FELL_BACK, "success", {**told, "reason": reason})
        names = {"instance": delivery.instance_id, "destination": delivery.destination, "fallback": instead}
        return fell_back(delivery, instead, [line], partial(log.warning, "delivery to the fallback", **names))

    def _settle(self, batch: Sequence[tuple[DeliveryChange, InstanceRow]]) -> bool:
        """Settle a batch; what its audit line or its values hinder waits. Then delete what is delivered everywhere.

        Returns whether the lease of the last one was lost.
        """
        store, tell = self._context.store, partial(audited_all, self._context.audit)
        self._flush_lines()
        errors, delivered = store.settle_deliveries([change for change, _ in batch], tell)
        again = []
        for (change, row), error in zip(batch, errors, strict=True):
            if isinstance(error, LeaseLost):  # whatever became of it: held by an operator, or with another worker
                log.info("delivery taken over", instance=row.id)
            elif error is not None:
                again.append(self._failed(change.delivery, error)[0])
        if again:
            store.settle_deliveries(again, tell)
        gone = {row.id: row.spool_file for _, row in batch if row.id in delivered and row.spool_file}
        for _, row in batch:  # of an original that passes, the received bytes are all there is to send again
            if row.action == "pass" and self._is_committed_to(row):
                gone.pop(row.id, None)  # the retainer takes them once it is committed
        for name in gone.values():
            self._context.spool.delete(name)
        if gone:
            store.forget_spool_file(list(gone))
        return bool(errors) and isinstance(errors[-1], LeaseLost)

    def _flush_lines(self) -> None:
        """Of what was sent, with one flush for all: what is not settled then is sent, and told of, again."""
        try:
            self._context.audit.flush()
        except OSError as error:  # it has been sent, whatever can be told of it
            log.error("audit lines of deliveries could not be flushed", errno=error.errno)

    def hold_stranded(self) -> int:
        """Hold what waits for destinations that its route does not name any more. Returns how many deliveries."""
        named = self._leaving.named()
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

    def _later_or_held(self, delivery: DeliveryRow, error: DeliveryError, retry: Retry) -> tuple[DeliveryChange, bool]:
        """Of the destination's certificate within a time, else within a number of tries, by the kind of failure."""
        since, kind = None, kind_of(error)
        anew = delivery.failing_since is not None or counts_anew(delivery.reason_code, kind)
        attempts = 1 if anew else delivery.attempts  # a day of tries was not about this
        if is_certificate(error.code):
            since = delivery.failing_since or time.time()
            left = since + CERTIFICATE_S - time.time()
            attempts = delivery.attempts
            wait = min(left, retry(kind, 0) * 2 ** min(attempts, 9)) if left > 0 else 0.0  # no number of tries ends it
        else:
            wait = retry(kind, attempts)
        if not wait:
            return self._held(delivery, error), True
        count = self._repeated.again(delivery.destination, error.code)
        if count:
            tell = log.error if since else log.warning
            tell("delivery later", destination=delivery.destination, code=error.code, failures=count)
        # The destination aborted on this instance, or will not have it: the others of the batch go on.
        goes_on = error.about_instance or (isinstance(error, PermanentError) and not is_of_the_place(error))
        return delivery_later(delivery, wait, error.code, error.message, since, attempts), goes_on

    def _failed(self, delivery: DeliveryRow, error: Exception) -> tuple[DeliveryChange, bool]:
        waits = as_waiting(error)
        if waits is not None:  # a full disk or database: not the instance's fault, for as long as it takes
            log.error("delivery waits", destination=delivery.destination, code=waits.code)
            return delivery_later(delivery, delay_s(delivery.attempts), waits.code, waits.message), False
        log.error("delivery failed", instance=delivery.instance_id, fault=fault(error))
        if delivery.attempts < STEP_ATTEMPTS:
            return delivery_later(delivery, delay_s(delivery.attempts), "unexpected", fault(error)), True
        return self._held(delivery, unexpected(error)), True

    def _held(self, delivery: DeliveryRow, error: GatewayError) -> DeliveryChange:
        told = {"instance_id": delivery.instance_id, "destination": delivery.destination, "reason": error.code}
        line = Line(events.INSTANCE_HELD, "failure", told)
        names = {"instance": delivery.instance_id, "destination": delivery.destination, "code": error.code}
        names["reason"] = error.message
        return delivery_held(delivery, error.code, str(error), [line], partial(log.warning, "delivery held", **names))

    def _tell_held(self, instance_id: str, destination: str, code: str) -> None:
        what = {"instance_id": instance_id, "destination": destination, "reason": code}
        audited(self._context.audit, events.INSTANCE_HELD, "failure", **what)
