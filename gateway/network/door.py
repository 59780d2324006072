"""Who may connect at all: the places for connections, given by address before a word is said.

An address that no peer is listed with finds a handful of places kept for its like, enough to be told that it is not
listed, and takes none from the listed ones; of those no address can take all.

A balancer's connections wait in places of their own until their PROXY header has said who they are from
(`gateway.network.proxy_protocol`); then the client's address is looked at, as if it had come by itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.audit import events
from gateway.audit.refusals import Refusals
from gateway.network.admission import Counts, Places
from gateway.network.callers import via

UNLISTED_PLACES = 4  # connections at a time from addresses that are not listed


@dataclass(frozen=True)
class DoorLimits:
    """How many connections, and from where.

    `addresses` are those of the peers (None: every address is listed); `per_address` counts within `connections` (None:
    three quarters of them). `balancers` are the addresses of which a PROXY header is demanded.
    """

    connections: int
    per_address: int | None = None
    addresses: tuple[str, ...] | None = None
    balancers: tuple[str, ...] = ()


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
        self._balancers = _networks(limits.balancers)

    def is_balancer(self, address: str) -> bool:
        """Whether a connection from here has to say in a PROXY header who it is from."""
        return bool(self._balancers) and _lies_in(address, self._balancers)

    def await_header(self, balancer: str) -> Places | None:
        """A place to wait for a PROXY header in, or None when the connection has to go."""
        places = Places(self._counts)
        if not places.take([("connections that await a PROXY header", self._limits.connections)]):
            return places
        self.refuse(balancer, "too-many-connections")
        return None

    def enter(self, address: str, balancer: str = "") -> Places | None:
        """A place for one more connection from this address, or None when it has to go; `balancer` as in `refuse`."""
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
        self.refuse(address, reason, balancer)
        return None

    def refuse(self, address: str, reason: str, balancer: str = "") -> None:
        """Write that a connection ended before anything was asked; `balancer`: who said that it is from `address`."""
        self._refusals.write(events.NODE_REFUSED, reason, address, **via(balancer))

    def _is_listed(self, address: str) -> bool:
        if self._networks is None:
            return True
        return _lies_in(address, self._networks)


def _lies_in(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks)


def _networks(addresses: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(address, strict=False) for address in addresses]
