"""Who may use the restore SCP: decides one association request against the listed workstations.

An AE title is a name, not an identity (architecture, promise 5): over TLS the client certificate has to be bound to the
AE title, by the SHA-256 of its SubjectPublicKeyInfo or by a subject alternative name; without TLS the workstation has
to be listed as `plain`. In both cases the connection has to come from a listed address. Everything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.models import Workstation
from gateway.network.binding import is_bound
from gateway.network.callers import (
    ADDRESS_NOT_LISTED,
    CALLING_AE_UNKNOWN,
    CERTIFICATE_NOT_BOUND,
    CERTIFICATE_OF_SEVERAL,
    PLAIN_NOT_ALLOWED,
    Caller,
    Rejection,
    address_listed,
)
from gateway.network.tls import PeerCertificate


def decide(workstations: Iterable[Workstation], caller: Caller, *, over_tls: bool) -> Workstation | Rejection:
    """The workstation's entry that lets this caller in, or why there is none.

    The reason for a refusal is the furthest check that any entry of that AE title came to, so that an administrator
    reads in the audit what to mend; the peer itself is only ever told (1, 1, 3).
    """
    reached, rejection = 0, CALLING_AE_UNKNOWN
    for workstation in workstations:
        if workstation.ae_title != caller.calling_ae:
            continue
        if not address_listed(caller.address, workstation.addresses):
            step, reason = 1, ADDRESS_NOT_LISTED
        elif over_tls and not is_bound(workstation, caller.certificate):
            step, reason = 2, CERTIFICATE_NOT_BOUND
        elif not over_tls and not workstation.plain:
            step, reason = 2, PLAIN_NOT_ALLOWED
        else:
            return workstation
        if step > reached:
            reached, rejection = step, reason
    return rejection


def bound_to(
    workstations: Iterable[Workstation], address: str, certificate: PeerCertificate | None
) -> Workstation | Rejection:
    """The one workstation's entry that a certificate is bound to, of a caller that names no AE title (DICOMweb).

    Refused where there is none, where it may not come from that address, and where there are several: their scopes may
    differ, and nobody can tell which one is meant.
    """
    bound = [one for one in workstations if is_bound(one, certificate)]
    if not bound:
        return CERTIFICATE_NOT_BOUND
    listed = [one for one in bound if address_listed(address, one.addresses)]
    if not listed:
        return ADDRESS_NOT_LISTED
    return listed[0] if len(listed) == 1 else CERTIFICATE_OF_SEVERAL


def in_scope(workstation: Workstation, study_uid: str) -> bool:
    """Whether the workstation may see this study."""
    return "*" in workstation.studies or study_uid in workstation.studies
