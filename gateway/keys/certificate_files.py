"""The certificates that a configuration names: which tables, which files, and what stands in them. No private key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from gateway.config import Config, Tls
from gateway.config.duties import Role
from gateway.config.lines import KeyPath


def tls_tables(config: Config, role: Role) -> Iterator[tuple[KeyPath, Tls, bool]]:
    """Every [tls] table that `role` uses, with its path and whether it is a listener's (else we connect with it)."""
    if role in ("all", "ingress") and config.ingress.tls is not None:
        yield ("ingress", "tls"), config.ingress.tls, True
    if role in ("all", "worker"):
        for index, destination in enumerate(config.destinations):
            if destination.tls is not None:
                yield ("destinations", index, "tls"), destination.tls, False
    if role in ("all", "worker") and config.commitment is not None and config.commitment.tls is not None:
        yield ("commitment", "tls"), config.commitment.tls, True
    if role in ("all", "restore") and config.restore is not None and config.restore.tls is not None:
        yield ("restore", "tls"), config.restore.tls, True


def read_certificates(file: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, or the one of a DER file; none when the file holds none (TLS says so itself)."""
    try:
        data = file.read_bytes()
        return (
            x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
        )
    except (OSError, ValueError):
        return []


def certificate_files(place: Path) -> list[Path]:
    """`place` itself, or all files of a folder; none when it cannot be looked into (`check_config` tells of it)."""
    try:
        return sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    except OSError:
        return []
