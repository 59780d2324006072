"""Does what people at the page asked for, after looking anew at everything that the page could have got wrong.

The page holds no rights over instances: all that it can do is to add a request. Whether it is done is decided here, by
the state of the instance, the routes as they are configured, and whether that person may act now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from sqlalchemy import Engine, delete, or_, select, update

from gateway.audit import AuditLog, audited, events
from gateway.config.models import Route
from gateway.database import InstanceRow, RequestRow, changed, reading, transaction
from gateway.errors import CapacityError, DeliveryError, GatewayError, UnreachableError
from gateway.flow.destinations import DestinationOperator
from gateway.flow.operations import Operator
from gateway.flow.requests import ACTIONS, ASKED, DONE, OF_DESTINATIONS, REFUSED, TAKEN
from gateway.flow.selection import Filter, ids_of
from gateway.flow.states import DELIVERED, HELD, MARKED, RECEIVED, SEALED

MAY_ACT = "operator"
TOO_OLD_S = 3600.0  # what the worker finds later than that may not be meant any more
TAKEN_S = 600.0  # a worker that took it and has not told for so long is gone
KEPT_S = 30 * 86_400.0
_AT_ONCE = 20
_TOGETHER = 50  # instances, in one transaction
_STATES: Mapping[str, tuple[str, ...]] = {
    "release": (HELD,),
    "retry": (RECEIVED, SEALED, MARKED),
    "replay": (DELIVERED,),
    "discard": (HELD,),
}

log = structlog.get_logger(__name__)


class Requested:
    """Looks for requests and does them.

    Parameters
    ----------
    operator
        Makes an `Operator` whose audit lines also say what it is given: who asked.
    destinations
        The same for what is done to destinations.
    role_of
        The role of a user now, by name and proof (an ID token, or ""), or None when there is no such user any more.
    """

    def __init__(
        self,
        engine: Engine,
        routes: Iterable[Route],
        operator: Callable[[Mapping[str, object]], Operator],
        destinations: Callable[[Mapping[str, object]], DestinationOperator],
        role_of: Callable[[str, str], str | None],
        audit: AuditLog,
    ) -> None:
        self._engine = engine
        self._routes = {route.name for route in routes}
        self._operator = operator
        self._destinations = destinations
        self._role_of = role_of
        self._audit = audit

    def once(self) -> int:
        """Do what waits; returns how many requests there were.

        Raises
        ------
        CapacityError, UnreachableError
            Some are tried again later.
        """
        now = time.time()
        stale = (RequestRow.state == TAKEN) & (RequestRow.taken_at < now - TAKEN_S)
        with reading(self._engine) as session:
            waiting = or_(RequestRow.state == ASKED, stale)
            query = select(RequestRow.id).where(waiting).order_by(RequestRow.proof != "", RequestRow.asked_at)
            # who asks whether a destination answers may have to wait long: after the others, and one at a time
            found = list(session.scalars(query.where(RequestRow.action != "echo").limit(_AT_ONCE)))
            found += session.scalars(query.where(RequestRow.action == "echo").limit(1))
        done, later = 0, None
        for one in found:
            with transaction(self._engine) as session:
                mine = update(RequestRow).where(RequestRow.id == one, or_(RequestRow.state == ASKED, stale))
                if not changed(session, mine.values(state=TAKEN, taken_at=now)):
                    continue  # another worker's
                row = session.get(RequestRow, one)
                proof = row.proof if row is not None else ""
            if row is not None:
                try:
                    self._answer(row, proof)
                    done += 1
                except UnreachableError as error:  # who vouches for people is away: others need not wait for it
                    later = error
        if done:
            with transaction(self._engine) as session:
                session.execute(delete(RequestRow).where(RequestRow.done_at < now - KEPT_S))
        if later is not None:
            raise later
        return done

    def _answer(self, row: RequestRow, proof: str) -> None:
        told = {"user": row.user_name, "session_id": row.session_id, "request_id": row.id}
        try:
            ids = self._checked(row, proof)
            count, result = self._do(row, ids, told)
        except (CapacityError, UnreachableError):  # of the disk, or of who vouches for people: later
            self._settle(row, ASKED, None, None)
            raise
        except GatewayError as error:
            audited(
                self._audit,
                events.ACTION_REFUSED,
                "refused",
                operation=row.action,
                reason=error.code,
                instance_id=row.instance_id,
                **told,
            )
            log.warning("request refused", request=row.id, reason=error.code)
            self._settle(row, REFUSED, 0, error.code)
            return
        self._settle(row, DONE, count, result)

    def _checked(self, row: RequestRow, proof: str) -> list[str]:
        """The instances that it is about; GatewayError when it is not to be done."""
        if row.action not in ACTIONS:
            raise GatewayError("unknown-action", f"request {row.id}: there is no such action")
        if not -60 <= time.time() - row.asked_at <= TOO_OLD_S:
            raise GatewayError("too-old", f"request {row.id} waited for too long", "ask again")
        if self._role_of(row.user_name, proof) != MAY_ACT:
            raise GatewayError("not-an-operator", f"request {row.id}: this user may not act, or not any more")
        if row.action in OF_DESTINATIONS:
            if not row.destination or row.instance_id or row.reason_code or row.route:
                raise GatewayError("no-choice", f"request {row.id} names no destination, or more than that")
            return []
        if row.action == "discard" and (row.instance_id is None or row.confirmation != row.instance_id):
            raise GatewayError("not-confirmed", f"request {row.id}: the instance's id has to be typed to discard it")
        if row.instance_id is not None:
            ids = [row.instance_id]
        elif row.reason_code or row.route or row.destination:
            ids = [
                one
                for state in _STATES[row.action]
                for one in ids_of(self._engine, Filter(state, row.reason_code, row.destination, row.route))
            ]
        else:
            raise GatewayError("no-choice", f"request {row.id} names no instance and no choice")
        return self._of_our_routes(row, ids)

    def _of_our_routes(self, row: RequestRow, ids: list[str]) -> list[str]:
        """Of routes that are configured, and received before somebody asked: what came later nobody has seen."""
        with reading(self._engine) as session:
            query = select(InstanceRow.id, InstanceRow.route, InstanceRow.received_at)
            known = {
                one: (route, at)
                for start in range(0, len(ids), 500)
                for one, route, at in session.execute(query.where(InstanceRow.id.in_(ids[start : start + 500])))
            }
        if row.instance_id is not None:
            if row.instance_id not in known:
                raise GatewayError("no-such-instance", f"request {row.id}: there is no such instance")
            if row.action != "discard" and known[row.instance_id][0] not in self._routes:
                raise GatewayError("route-gone", f"request {row.id}: the route is not configured any more")
            return ids
        return [one for one in ids if one in known and known[one][0] in self._routes and known[one][1] <= row.asked_at]

    def _do(self, row: RequestRow, ids: list[str], told: Mapping[str, object]) -> tuple[int, str | None]:
        """How many instances were changed, and why not all; of a choice each that can be."""
        if row.action in OF_DESTINATIONS:
            return self._do_to(row.action, row.destination or "", told)
        operator = self._operator(told)
        actions: Mapping[str, Callable[[list[str]], int]] = {
            "release": operator.release,
            "retry": operator.retry,
            "replay": operator.replay,
            "discard": lambda some: operator.discard(some, row.confirmation),
        }
        act, count, result = actions[row.action], 0, None
        for start in range(0, len(ids), _TOGETHER):
            some = ids[start : start + _TOGETHER]
            self._still_here(row)
            try:
                count += act(some)
            except CapacityError:
                raise
            except GatewayError:
                if row.instance_id is not None:
                    raise
                more, result = _each(act, some)
                count += more
        if not count and result is None:
            result = "nothing-to-do"
        return count, result

    def _do_to(self, action: str, name: str, told: Mapping[str, object]) -> tuple[int, str | None]:
        """Something about a destination: 1 when it is done or answers, else 0 and why."""
        operator = self._destinations(told)
        try:
            done = {"pause": operator.pause, "resume": operator.resume, "echo": operator.echo}[action](name)
        except DeliveryError as error:
            return 0, error.code
        return done, None if done else "nothing-to-do"

    def _still_here(self, row: RequestRow) -> None:
        """Say now and then that a worker is at it: many instances take long, and no other worker is to begin anew."""
        now = time.time()
        if now - (row.taken_at or 0.0) > TAKEN_S / 10:
            row.taken_at = now
            with transaction(self._engine) as session:
                session.execute(update(RequestRow).where(RequestRow.id == row.id).values(taken_at=now))

    def _settle(self, row: RequestRow, state: str, count: int | None, result: str | None) -> None:
        values = {"state": state, "done": count, "result": result, "done_at": time.time() if state != ASKED else None}
        if state != ASKED:
            values["proof"] = ""
        with transaction(self._engine) as session:
            session.execute(update(RequestRow).where(RequestRow.id == row.id).values(values))


def _each(act: Callable[[list[str]], int], ids: list[str]) -> tuple[int, str | None]:
    """Each by itself: how many were changed, and why not all; CapacityError when nothing can be changed now."""
    count, result = 0, None
    for one in ids:
        try:
            count += act([one])
        except CapacityError:
            raise
        except GatewayError as error:
            result = error.code
    return count, result
