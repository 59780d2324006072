"""Which certificates a configured peer or workstation is known by.

By the SHA-256 of its public key, or by a subject alternative name. A name counts only as what it is: an entry that
reads like a DNS name is held against the certificate's DNS names, an IP address against its IP addresses, a URI against
its URIs. So an authority that lets somebody put any URI into a certificate gives away no DNS name with it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import Literal, Protocol

from gateway.network.tls import PeerCertificate

NameKind = Literal["DNS", "URI", "IP"]
_KINDS: dict[str, NameKind] = {"DNS:": "DNS", "URI:": "URI", "IP:": "IP"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)  # RFC 3986 3.1


class Bindable(Protocol):
    """An entry of the configuration that names certificates."""

    @property
    def key_sha256(self) -> tuple[str, ...]: ...

    @property
    def san(self) -> tuple[str, ...]: ...


def is_bound(entry: Bindable, certificate: PeerCertificate | None) -> bool:
    """Whether this certificate is one of the entry's own. That it is trusted at all, TLS has checked.

    Names are compared without regard to case; no wildcard is ever expanded.
    """
    if certificate is None:
        return False
    if any(hmac.compare_digest(listed, certificate.key_sha256) for listed in entry.key_sha256):
        return True
    wanted = {kind_of_name(name) for name in entry.san}
    # An entry without a name (`san = [""]`, an IP address that is none) names nobody.
    return any(name and (kind, name.lower()) in wanted for kind, name in certificate.typed_names)


def kind_of_name(entry: str) -> tuple[NameKind, str]:
    """What kind of name a `san` entry is, and the name in lower case: ``DNS:``, ``URI:`` or ``IP:`` before it decide.

    Without one an IP address is an IP address, what begins with a scheme (``urn:``, ``dicom:``) a URI, the rest DNS.
    """
    for prefix, kind in _KINDS.items():
        if entry.startswith(prefix):
            name = entry.removeprefix(prefix)
            return kind, (_address(name) if kind == "IP" else name).lower()
    if address := _address(entry):
        return "IP", address
    return ("URI" if _SCHEME.match(entry) else "DNS"), entry.lower()


def _address(text: str) -> str:
    """An IP address in its one written form, or nothing where it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
