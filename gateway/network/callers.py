"""Who calls, and the result, source and reason with which a caller is rejected (PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.network.tls import PeerCertificate


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4) and the word for it in the audit."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 service provider (ACSE), 3 service provider (presentation)
    diagnostic: int
    reason: str


CALLING_AE_UNKNOWN = Rejection(1, 1, 3, "calling-ae-unknown")
CALLING_AE_BLANK = Rejection(1, 1, 3, "calling-ae-blank")
ADDRESS_NOT_LISTED = Rejection(1, 1, 3, "address-not-listed")
CERTIFICATE_NOT_BOUND = Rejection(1, 1, 3, "certificate-not-bound-to-ae")
CERTIFICATE_OF_SEVERAL = Rejection(1, 1, 3, "certificate-bound-to-several")  # of a caller that names no AE title
PLAIN_NOT_ALLOWED = Rejection(1, 1, 3, "plain-not-allowed")
CALLED_AE_UNKNOWN = Rejection(1, 1, 7, "called-ae-unknown")
VERSION_NOT_SUPPORTED = Rejection(1, 2, 2, "protocol-version-not-supported")
TOO_MANY_ASSOCIATIONS = Rejection(2, 3, 2, "too-many-associations")
TOO_MANY_OF_AE = Rejection(2, 3, 2, "too-many-associations-of-this-ae")
INTERNAL_ERROR = Rejection(2, 1, 1, "internal-error")


@dataclass(frozen=True)
class Caller:
    """Who asks for an association.

    Only `address`, a listed balancer's word or what the system says, and `certificate` are facts; AE titles are claims.
    """

    association_id: str
    calling_ae: str
    called_ae: str
    address: str
    port: int
    certificate: PeerCertificate | None
    balancer: str = ""  # who said in a PROXY header that it comes from `address`; empty: it came by itself
    user: str = ""  # over HTTP: whose token it shows besides the certificate

    def audit_fields(self) -> dict[str, object]:
        """The fields of the audit trail that name this caller."""
        return {
            "association_id": self.association_id,
            "calling_ae": self.calling_ae,
            "called_ae": self.called_ae,
            "peer_address": self.address,
            "tls": self.certificate is not None,
            "key_sha256": self.certificate.key_sha256 if self.certificate else None,
            **via(self.balancer),
            **({"user": self.user} if self.user else {}),
        }


def via(balancer: str) -> dict[str, object]:
    """The audit field for who said where a connection comes from; none where it came by itself."""
    return {"balancer_address": balancer} if balancer else {}


def address_listed(address: str, networks: Iterable[str]) -> bool:
    """Whether an IP address is one of, or lies in one of, the given addresses and networks (CIDR)."""
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


def plain_address(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket, as IPv4; everything else as it is, without its zone."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return str(ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else str(ip)
