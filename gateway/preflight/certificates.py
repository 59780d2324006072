"""Certificates that have run out, or soon will: our own and the authorities that we trust."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from gateway.config import Config, Finding, Tls
from gateway.config.duties import Role
from gateway.config.lines import KeyPath

WARN_DAYS = (3, 7, 30)
"""A certificate that ends within so many days is told of: at the check, and each time a role starts."""

RENEW = "put the renewed certificate in its place and restart the role"


def tls_tables(config: Config, role: Role) -> Iterator[tuple[KeyPath, Tls, bool]]:
    """Every [tls] table that `role` uses, with its path and whether it is a listener's (else we connect with it)."""
    if role in ("all", "ingress") and config.ingress.tls is not None:
        yield ("ingress", "tls"), config.ingress.tls, True
    if role in ("all", "worker"):
        for index, destination in enumerate(config.destinations):
            if destination.tls is not None:
                yield ("destinations", index, "tls"), destination.tls, False
    if role in ("all", "restore") and config.restore is not None and config.restore.tls is not None:
        yield ("restore", "tls"), config.restore.tls, True


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


def read_certificates(file: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, or the one of a DER file; none when the file holds none (TLS says so itself)."""
    try:
        data = file.read_bytes()
        return (
            x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
        )
    except (OSError, ValueError):
        return []


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
    try:
        files = sorted(trust.iterdir()) if trust.is_dir() else [trust]
    except OSError:
        return  # `check_config` tells of it
    known = [(file, certificate) for file in files for certificate in read_certificates(file)]
    valid = [one for one in known if one[1].not_valid_before_utc <= now < one[1].not_valid_after_utc]
    if known and not valid:
        message = f"every certificate in {trust} is out of date: no peer is accepted"
        yield Finding("error", path, message, "put the authority's new certificate there", keeps_from_starting=False)
        return
    for file, certificate in known:
        for finding in _judge(path, file, certificate, now):
            message = finding.message.replace("peers refuse it", "who has a certificate from it is refused")
            yield Finding("warning", path, message, "ask the authority for its new certificate")
