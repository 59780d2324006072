"""The keys of a TLS table."""

from __future__ import annotations

from pathlib import Path

from gateway.config.base import Model


class Tls(Model):
    """One side of a TLS connection: our certificate and key, and whom we trust."""

    certificate: Path
    private_key: Path
    trust: Path  # file (PEM, DER) or folder of files with the accepted authorities, or single certificates
    crl: Path | None = None  # file (PEM, DER) or folder of revocation lists; then every authority needs a valid one
