"""Certificates of the demo: an authority of its own that signs the restore server and two workstations.

For this demo only. A site makes its own with ``miad-gateway certificates``, or brings those of its authority.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.keys.certificates import Authority, general_name, own_key
from gateway.keys.generate import write_key_file

DAYS = 3650  # nothing outside this folder trusts the authority
LEAVES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "workstation": ExtendedKeyUsageOID.CLIENT_AUTH,
    "stranger": ExtendedKeyUsageOID.CLIENT_AUTH,
}


def make_certificates(folder: Path) -> None:
    """Write ``ca.pem`` and, for each of `LEAVES`, ``NAME.pem`` and ``NAME.key`` (mode 0600), EC P-256.

    Made once: nothing happens when all of them are there. The authority's key is not kept, so a folder with some of
    them missing is written anew.
    """
    names = ["ca.pem", *(f"{leaf}{suffix}" for leaf in LEAVES for suffix in (".pem", ".key"))]
    if all((folder / name).is_file() for name in names):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    authority = Authority.make("MIAD Gateway demo authority", DAYS)
    here = [general_name("localhost"), general_name("127.0.0.1")]
    for leaf, usage in LEAVES.items():
        public = own_key(folder / f"{leaf}.key").public_key()
        certificate = authority.issue(f"MIAD Gateway demo {leaf}", public, here, DAYS, [usage])
        write_key_file(folder / f"{leaf}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    write_key_file(folder / "ca.pem", authority.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def key_sha256(certificate: Path) -> str:
    """SHA-256 of the certificate's SubjectPublicKeyInfo, hexadecimal: what binds it to an AE title."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
