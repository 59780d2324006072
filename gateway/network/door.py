"""Who may connect at all: the places for connections, given by address before a word is said.

An address that no peer is listed with finds a handful of places kept for its like, enough to be told that it is not
listed, and takes none from the listed ones; of those no address can take all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.audit import events
from gateway.network.admission import Counts, Places
from gateway.network.refusals import Refusals

UNLISTED_PLACES = 4  # connections at a time from addresses that are not listed


@dataclass(frozen=True)
class DoorLimits:
    """How many connections, and from where.

    `addresses` are those of the peers (None: every address is listed); `per_address` counts within `connections` (None:
    three quarters of them).
    """

    connections: int
    per_address: int | None = None
    addresses: tuple[str, ...] | None = None


class Door:
    """The door of one port. Safe for any number of threads.

    Parameters
    ----------
    limits
        Of the port.
    counts
        Shared with the role's other ports and processes.
    refusals
        Where is written who had to go.
    """

    def __init__(self, limits: DoorLimits, counts: Counts, refusals: Refusals) -> None:
        self._limits = limits
        self._counts = counts
        self._refusals = refusals
        self._networks = None if limits.addresses is None else _networks(limits.addresses)

    def enter(self, address: str) -> Places | None:
        """A place for one more connection from this address, or None when it has to go."""
        limits = self._limits
        places = Places(self._counts)
        if self._is_listed(address):
            per_address = limits.per_address
            if per_address is None:
                per_address = limits.connections - limits.connections // 4
            own = f"connections of {address}"
            full = places.take([("connections", limits.connections), (own, per_address)])
            reason = "too-many-connections-of-this-address" if full == own else "too-many-connections"
        else:
            full = places.take([("connections of unlisted addresses", UNLISTED_PLACES)])
            reason = "address-not-listed"
        if not full:
            return places
        self.refuse(address, reason)
        return None

    def refuse(self, address: str, reason: str) -> None:
        """Write that a connection ended before anything was asked."""
        self._refusals.write(events.NODE_REFUSED, reason, address)

    def _is_listed(self, address: str) -> bool:
        if self._networks is None:
            return True
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks)


def _networks(addresses: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(address, strict=False) for address in addresses]
