"""What the steps of an instance work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from gateway.audit import AuditLog
from gateway.config.models import Destination, Route
from gateway.database import InstanceRow
from gateway.errors import HoldError
from gateway.flow.passing import Passing
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.spool import Spool
from gateway.flow.store import FlowStore
from gateway.flow.turns import Turns
from gateway.protect import Arrival, Protector


@dataclass(frozen=True)
class StepContext:
    """Where files lie, where rows lie, what the site wants, and who protects."""

    store: FlowStore
    spool: ReceivedSpool
    derived: Spool
    protector: Protector
    routes: dict[str, Route]
    passing: Passing
    audit: AuditLog
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)

    def route(self, row: InstanceRow) -> Route:
        """The route by which an instance came, as it is configured now.

        Raises
        ------
        HoldError
            ``route-gone``.
        """
        try:
            return self.routes[row.route]
        except KeyError:
            raise HoldError("route-gone", f"route {row.route} is not configured any more", "configure it") from None

    def received(self, row: InstanceRow) -> Callable[[], BinaryIO]:
        """What opens the received bytes of an instance anew.

        Raises
        ------
        HoldError
            When it is called: ``spool-purged``, the received bytes are gone.
        """

        def open_file() -> BinaryIO:
            with suppress(FileNotFoundError):
                if row.spool_file is not None:
                    return self.spool.open(row.spool_file)
            # it may have been moved since the row was read (`gateway.flow.segments.reclaim`)
            with suppress(FileNotFoundError):
                if (name := self.store.spool_file(row.id)) is not None:
                    return self.spool.open(name)
            raise HoldError("spool-purged", "the received bytes are gone", "let the archive send the instance again")

        return open_file


def arrival_of(row: InstanceRow) -> Arrival:
    """How an instance came, as rules ask for it."""
    return Arrival(row.calling_ae, row.peer_address, row.received_at)
