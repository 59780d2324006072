"""Certificates of the demo: an authority of its own that signs the restore server and two workstations.

For this demo only. A site brings certificates of its own authority.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.keys.generate import write_key_file

VALIDITY = datetime.timedelta(days=3650)  # nothing outside this folder trusts the authority
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
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    for leaf, usage in LEAVES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _leaf(leaf, usage, key.public_key(), authority, authority_key)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_key_file(folder / f"{leaf}.key", pem, 0o600)
        write_key_file(folder / f"{leaf}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    write_key_file(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), 0o644)


def key_sha256(certificate: Path) -> str:
    """SHA-256 of the certificate's SubjectPublicKeyInfo, hexadecimal: what binds it to an AE title."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("MIAD Gateway demo authority")
    builder = _builder(name, name, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(leaf=False), critical=True).sign(key, hashes.SHA256())


def _leaf(
    name: str,
    usage: x509.ObjectIdentifier,
    public: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    builder = _builder(_name(f"MIAD Gateway demo {name}"), authority.subject, public)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(leaf=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
    )
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    return builder.sign(authority_key, hashes.SHA256())
