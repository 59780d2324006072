"""What people at the page ask for: asked here, done by `gateway.flow.requested`."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine, select

from gateway.database import RequestRow, reading, transaction

Action = Literal["release", "retry", "replay", "discard", "pause", "resume", "echo"]
ACTIONS: tuple[Action, ...] = ("release", "retry", "replay", "discard", "pause", "resume", "echo")
OF_DESTINATIONS = frozenset({"pause", "resume", "echo"})  # of a destination itself, not of instances on their way there
ASKED, TAKEN, DONE, REFUSED = "asked", "taken", "done", "refused"


@dataclass(frozen=True)
class Wanted:
    """One instance, or all that a reason, route and destination have in common, or a destination; and what to do."""

    action: Action
    instance_id: str | None = None
    reason: str | None = None
    route: str | None = None
    destination: str | None = None
    confirmation: str = ""


@dataclass(frozen=True)
class Request:
    """A request, and what became of it. Times are seconds since 1970."""

    id: str
    asked_at: float
    user_name: str
    session_id: str
    action: str
    instance_id: str | None
    reason_code: str | None
    route: str | None
    destination: str | None
    state: str
    done_at: float | None
    done: int | None
    result: str | None


def new_id() -> str:
    """A name for a request that is told of in the audit before it is there."""
    return secrets.token_hex(16)


def ask(engine: Engine, request_id: str, wanted: Wanted, user_name: str, session_id: str, proof: str = "") -> None:
    """Put a request where the worker finds it; CapacityError while the database does not take it."""
    with transaction(engine) as session:
        session.add(
            RequestRow(
                id=request_id,
                asked_at=time.time(),
                user_name=user_name,
                session_id=session_id,
                action=wanted.action,
                instance_id=wanted.instance_id,
                reason_code=wanted.reason,
                route=wanted.route,
                destination=wanted.destination,
                confirmation=wanted.confirmation[:32],
                proof=proof,
                state=ASKED,
            )
        )


def list_requests(engine: Engine, limit: int = 50) -> list[Request]:
    """The newest requests."""
    with reading(engine) as session:
        rows = session.scalars(select(RequestRow).order_by(RequestRow.asked_at.desc()).limit(limit)).all()
    return [Request(**{name: getattr(row, name) for name in Request.__dataclass_fields__}) for row in rows]
