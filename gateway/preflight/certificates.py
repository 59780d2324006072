"""Certificates that have run out, or soon will: our own and the authorities that we trust."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from gateway.config import Config, Finding
from gateway.config.duties import Role
from gateway.config.lines import KeyPath
from gateway.errors import ConfigError
from gateway.keys.certificate_files import certificate_files, read_certificates, tls_tables

WARN_DAYS = (3, 7, 30)
"""A certificate that ends within so many days is told of: at the check, and each time a role starts."""

RENEW = "put the renewed certificate in its place: it is taken over by itself, or by `miad-gateway reload`"


def check_certificates(config: Config, role: Role, now: datetime | None = None) -> Iterator[Finding]:
    """What is out of date in the TLS files of `role`, or soon will be.

    A role with such a certificate starts all the same: a peer that looks at dates will refuse it, and the others, and
    the other tables of the role, go on.
    """
    now = now or datetime.now(UTC)
    for path, tls, _ in tls_tables(config, role):
        for certificate in read_certificates(tls.certificate):
            yield from _judge((*path, "certificate"), tls.certificate, certificate, now)
        yield from _judge_trust((*path, "trust"), tls.trust, now)
        if tls.crl is not None:
            yield from _judge_lists((*path, "crl"), tls.crl, now)


def _judge_lists(path: KeyPath, lists: Path, now: datetime) -> Iterator[Finding]:
    """A revocation list that has run out lets nobody in whose certificate is from its authority."""
    from gateway.network.tls import revocation_lists  # brings the network libraries: not for every caller

    try:
        found = revocation_lists(lists)
    except ConfigError:
        return  # where the TLS files are tried it is told of
    for one in found:
        ends, issuer = one.next_update_utc, one.issuer.rfc4514_string()
        if ends is not None and ends <= now:
            message = f"the revocation list of {issuer} in {lists} ended on {ends.date().isoformat()}"
            hint = "fetch the new list: until then every certificate of this authority is refused"
            yield Finding("error", path, message, hint, keeps_from_starting=False)


def _judge(path: KeyPath, file: Path, certificate: x509.Certificate, now: datetime) -> Iterator[Finding]:
    ends = certificate.not_valid_after_utc
    day = ends.date().isoformat()
    if ends <= now:
        message = f"{file} ended on {day}: peers refuse it"
        yield Finding("error", path, message, RENEW, keeps_from_starting=False)
    elif certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc.date().isoformat()
        message = f"{file} is valid from {begins} on only: peers refuse it"
        yield Finding("error", path, message, "look at this machine's clock too", keeps_from_starting=False)
    elif days := next((days for days in WARN_DAYS if ends - now <= timedelta(days=days)), None):
        left = (ends - now).days
        when = f"in {left} days" if left > 1 else ("tomorrow" if left == 1 else "within a day")
        level = "LAST DAYS: " if days == WARN_DAYS[0] else ""
        yield Finding("warning", path, f"{level}{file} ends {when} ({day})", RENEW)


def _judge_trust(path: KeyPath, trust: Path, now: datetime) -> Iterator[Finding]:
    """An authority that has ended is an error only when none is left: a folder may keep old ones beside their heirs."""
    known = [(file, certificate) for file in certificate_files(trust) for certificate in read_certificates(file)]
    valid = [one for one in known if one[1].not_valid_before_utc <= now < one[1].not_valid_after_utc]
    if known and not valid:
        message = f"every certificate in {trust} is out of date: no peer is accepted"
        yield Finding("error", path, message, "put the authority's new certificate there", keeps_from_starting=False)
        return
    for file, certificate in known:
        for finding in _judge(path, file, certificate, now):
            message = finding.message.replace("peers refuse it", "who has a certificate from it is refused")
            yield Finding("warning", path, message, "ask the authority for its new certificate")
