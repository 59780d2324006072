"""Which originals a retrieval is of: what the index named, looked up in the signed records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from gateway.audit import events
from gateway.errors import GatewayError
from gateway.network.retrieve.session import Access
from gateway.network.retrieve.suboperations import Planned


@dataclass
class Plan:
    """What can be sent, and locator and error code of what cannot be restored for certain."""

    planned: list[Planned] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def plan(access: Access, locators: Iterable[str], named: Collection[str], operation: str) -> Plan:
    """Look every locator up; what fails is audited here.

    Parameters
    ----------
    named
        SOP Instance UIDs that were asked for, as `gateway.restore.Restorer.by_locator` has it.
    """
    found = Plan()
    for locator in locators:
        try:
            with access.services.restorer.by_locator(locator, named) as original:
                found.planned.append(Planned.of(original))
        except GatewayError as error:
            access.audit(events.RESTORE_REFUSED, "failure", operation=operation, locator=locator, reason=error.code)
            found.failed.append((locator, error.code))
    return found
