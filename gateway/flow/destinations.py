"""What an operator does to a destination: pause it, resume it, ask whether it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError

from gateway.audit import AuditLog, audited, events
from gateway.database import PausedRow, Wakes, changed, reading, transaction
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.states import to


class DestinationOperator:
    """What a person may do to destinations; each is told of in the audit before it counts.

    Parameters
    ----------
    names
        The destinations that are configured now.
    echo
        Asks a destination whether it answers (C-ECHO); raises what keeps it from answering.
    wakes
        Told of what waits for a destination that is resumed; None: the worker finds it when it looks.
    told
        More that each audit line says, as who asked for it.

    Each method raises CapacityError ``audit-full`` when it could not be told of.
    """

    def __init__(
        self,
        engine: Engine,
        names: Iterable[str],
        audit: AuditLog,
        echo: Callable[[str], None],
        wakes: Wakes | None = None,
        told: Mapping[str, object] | None = None,
    ) -> None:
        self._engine = engine
        self._names = frozenset(names)
        self._audit = audit
        self._echo = echo
        self._wakes = wakes or Wakes()
        self._told = dict(told or {})

    def pause(self, name: str) -> int:
        """Claim nothing more for a destination until it is resumed; what is being sent goes on. 0: it was paused.

        Raises
        ------
        NotFoundError
            ``no-such-destination``.
        """
        self._check(name)
        try:
            with transaction(self._engine) as session:
                if session.get(PausedRow, name) is not None:
                    return 0
                session.add(PausedRow(destination=name, paused_at=time.time()))
                session.flush()
                audited(self._audit, events.DESTINATION_PAUSED, "success", destination=name, **self._told)
        except IntegrityError:  # somebody else did, at this moment
            return 0
        return 1

    def resume(self, name: str) -> int:
        """Send to a destination again, also to one that is not configured any more. 0: it was not paused."""
        with transaction(self._engine) as session:
            done = changed(session, delete(PausedRow).where(PausedRow.destination == name))
            if done:
                audited(self._audit, events.DESTINATION_RESUMED, "success", destination=name, **self._told)
        if done:
            self._wakes.tell([to(name)])
        return done

    def echo(self, name: str) -> int:
        """Ask whether it answers, as the gateway would connect to it, TLS and AE titles included; 1: it does.

        Raises
        ------
        NotFoundError
            ``no-such-destination``.
        GatewayError
            Why it does not.
        """
        self._check(name)
        try:
            self._echo(name)
        except GatewayError as error:
            told = {"destination": name, "reason": error.code, **self._told}
            audited(self._audit, events.DESTINATION_ASKED, "failure", **told)
            raise
        audited(self._audit, events.DESTINATION_ASKED, "success", destination=name, **self._told)
        return 1

    def _check(self, name: str) -> None:
        if name not in self._names:
            message = f"the configuration has no destination {name}"
            raise NotFoundError("no-such-destination", message, "the names stand in [[destinations]]")


def paused(engine: Engine) -> dict[str, float]:
    """The destinations that are paused, and since when (seconds since 1970)."""
    with reading(engine) as session:
        return {row.destination: row.paused_at for row in session.scalars(select(PausedRow))}
