"""Which originals a retrieval is of: what the index named, looked up in the signed records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from gateway.audit import events
from gateway.errors import GatewayError
from gateway.network.retrieve.session import Access
from gateway.network.retrieve.suboperations import Planned

LOOKED_UP = 500  # records in one statement


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
    asked = iter(locators)
    while part := list(islice(asked, LOOKED_UP)):
        try:
            originals = access.services.restorer.by_locators(part, named)
        except GatewayError as error:  # of the database, or of the list: of each of them nothing is certain
            originals = dict.fromkeys(part, error)
        for locator in part:
            original = originals[locator]
            if isinstance(original, GatewayError):
                code = original.code
                access.audit(events.RESTORE_REFUSED, "failure", operation=operation, locator=locator, reason=code)
                found.failed.append((locator, code))
            else:
                with original:
                    found.planned.append(Planned.of(original))
    return found
