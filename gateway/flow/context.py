"""What the steps of an instance work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from gateway.audit import AuditLog
from gateway.config.models import Route
from gateway.database import InstanceRow
from gateway.errors import HoldError
from gateway.flow.passing import Passing
from gateway.flow.spool import Spool
from gateway.flow.store import FlowStore
from gateway.protect import Protector


@dataclass(frozen=True)
class StepContext:
    """Where files lie, where rows lie, what the site wants, and who protects."""

    store: FlowStore
    spool: Spool
    derived: Spool
    protector: Protector
    routes: dict[str, Route]
    passing: Passing
    audit: AuditLog

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
        name = row.spool_file

        def open_file() -> BinaryIO:
            try:
                if name is not None:
                    return self.spool.open(name)
            except FileNotFoundError:
                pass
            raise HoldError("spool-purged", "the received bytes are gone", "let the archive send the instance again")

        return open_file
