"""Certificates for DICOM over TLS: a small authority of the site's own, what it signs, and requests to another one.

Elliptic-curve keys (P-256), which Orthanc, DCMTK and Java viewers take; names stand in the Subject Alternative Name,
the only place where the gateway and its peers look for them (RFC 9525 6.3). Every leaf may serve and connect: a
workstation also receives (C-MOVE), and the gateway's ingress certificate is shown to destinations too.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import ConfigError
from gateway.keys.generate import sync_folder, write_key_file

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
BACKDATED = timedelta(minutes=5)  # a peer whose clock is a little behind accepts it at once
_DNS = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.I)


def general_name(text: str) -> x509.GeneralName:
    """A host as it stands in a certificate: an IP address as an address, ``URI:...`` as a URI, the rest a DNS name.

    Raises
    ------
    ConfigError
        ``bad-name``: it is none of them (a wildcard is none: no check expands one).
    """
    if text.startswith("URI:"):
        return x509.UniformResourceIdentifier(text.removeprefix("URI:"))
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _DNS.fullmatch(text) or text.replace(".", "").isdigit():
        message = f"{text!r} is no host name and no IP address"
        raise ConfigError("bad-name", message, "write the name that others connect to, in ASCII")
    return x509.DNSName(text)


@dataclass(frozen=True)
class Authority:
    """An authority that signs certificates of this site: its certificate, and the key that must stay with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str, days: float) -> Authority:
        """A new one, self-signed, that may sign leaves only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = _builder(subject, subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(leaf=False), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """One that was made before.

        Raises
        ------
        ConfigError
            ``authority-unusable``: a file cannot be read, or the two do not belong together.
        """
        try:
            authority = x509.load_pem_x509_certificate(certificate.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
            if isinstance(private, ec.EllipticCurvePrivateKey) and authority.public_key() == private.public_key():
                return cls(authority, private)
        except (OSError, ValueError, TypeError):
            pass
        message = f"{key} cannot be used as the key of the authority {certificate}"
        raise ConfigError("authority-unusable", message, "put both back, or make new ones in another folder")

    def issue(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        days: float,
        usages: Sequence[x509.ObjectIdentifier] = BOTH,
    ) -> x509.Certificate:
        """A certificate for `public`, valid for `days` and never longer than the authority itself."""
        builder = _builder(_name(name), self.certificate.subject, public, days, self.certificate.not_valid_after_utc)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(leaf=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def make_authority(folder: Path, name: str, days: float) -> tuple[Authority, bool]:
    """The authority in `folder` (``ca.pem``, ``ca.key``), made when neither is there; and whether it was made now.

    Its certificate also lies in ``trust/``, which a configuration may name as whom it trusts.

    Raises
    ------
    ConfigError
        ``authority-unusable``: one of the two is there and cannot be used with the other.
    """
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if os.path.lexists(certificate) or os.path.lexists(key):
        return Authority.load(certificate, key), False
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.make(name, days)
    pem = _pem(authority.certificate)
    write_key_file(key, _private_pem(authority.key), 0o600)
    write_key_file(certificate, pem, 0o644)
    (folder / "trust").mkdir(mode=0o755, exist_ok=True)
    if not os.path.lexists(folder / "trust" / "ca.pem"):
        write_key_file(folder / "trust" / "ca.pem", pem, 0o644)
    sync_folder(folder)
    return authority, True


def make_leaf(
    folder: Path,
    stem: str,
    authority: Authority,
    names: Sequence[x509.GeneralName],
    days: float,
    *,
    renew: bool = False,
) -> bool:
    """Write ``STEM.key`` and ``STEM.pem``; what is there stays. Returns whether a certificate was written.

    renew: write the certificate anew under the key that is there, so that every ``key_sha256`` that names it holds.

    Raises
    ------
    ConfigError
        ``certificate-unusable``: a certificate without its key, or a key that is none of ours.
    """
    certificate, key_file = folder / f"{stem}.pem", folder / f"{stem}.key"
    if os.path.lexists(certificate) and not os.path.lexists(key_file):
        message = f"{certificate} is there and {key_file} is not"
        raise ConfigError("certificate-unusable", message, "put the key back, or move the certificate away")
    if os.path.lexists(certificate) and not renew:
        return False
    key = own_key(key_file)
    issued = authority.issue(stem, key.public_key(), names, days)
    with tempfile.TemporaryDirectory(prefix=".certificate-", dir=folder) as made:
        write_key_file(Path(made) / certificate.name, _pem(issued), 0o644)
        os.replace(Path(made) / certificate.name, certificate)
    sync_folder(folder)
    return True


def own_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in `file`, made there (mode 0600) when it is missing.

    Raises
    ------
    ConfigError
        ``certificate-unusable``: something else is there.
    """
    if not os.path.lexists(file):
        key = ec.generate_private_key(ec.SECP256R1())
        write_key_file(file, _private_pem(key), 0o600)
        return key
    try:
        found = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ConfigError("certificate-unusable", f"{file} is no elliptic-curve key in PEM", "name another file")
    return found


def write_pkcs12(folder: Path, stem: str, authority: Authority) -> tuple[Path, Path, Path]:
    """The same certificate as Java viewers want it: key store, trust store, and the passphrase of both.

    ``STEM.p12`` (key, certificate, authority), ``STEM-trust.p12`` (the authority, marked as trusted for Java) and
    ``STEM.p12.passphrase`` (random, mode 0600; kept when it is there). Both stores are written anew.
    """
    store, trust, words = (folder / f"{stem}{end}" for end in (".p12", "-trust.p12", ".p12.passphrase"))
    if not os.path.lexists(words):
        write_key_file(words, secrets.token_hex(16).encode(), 0o600)
    passphrase = words.read_bytes().strip()
    encryption = serialization.BestAvailableEncryption(passphrase)
    certificate = x509.load_pem_x509_certificate((folder / f"{stem}.pem").read_bytes())
    name = stem.lower().encode()
    data = {
        store: pkcs12.serialize_key_and_certificates(
            name, own_key(folder / f"{stem}.key"), certificate, [authority.certificate], encryption
        ),
        trust: pkcs12.serialize_java_truststore(
            [pkcs12.PKCS12Certificate(authority.certificate, b"miad-gateway-authority")], encryption
        ),
    }
    with tempfile.TemporaryDirectory(prefix=".certificate-", dir=folder) as made:
        for file, content in data.items():
            write_key_file(Path(made) / file.name, content, 0o600)
            os.replace(Path(made) / file.name, file)
    sync_folder(folder)
    return store, trust, words


def request_certificate(folder: Path, stem: str, names: Sequence[x509.GeneralName]) -> Path:
    """Write ``STEM.csr`` (PKCS#10, RFC 2986) for the key ``STEM.key``, which is made when it is missing.

    Raises
    ------
    ConfigError
        ``request-exists``; ``certificate-unusable``, as `own_key`.
    """
    file = folder / f"{stem}.csr"
    if os.path.lexists(file):
        raise ConfigError("request-exists", f"{file} is there already", "send that one, or move it away")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = own_key(folder / f"{stem}.key")
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(stem))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(_usage(leaf=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
    request = builder.sign(key, hashes.SHA256())
    write_key_file(file, request.public_bytes(serialization.Encoding.PEM), 0o644)
    return file


def chain_of(certificate: x509.Certificate, known: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The authorities above a certificate as far as `known` holds them, each by its signature, the nearest first."""
    chain: list[x509.Certificate] = []
    lowest = certificate
    while lowest.subject != lowest.issuer:
        above = next((one for one in known if one not in chain and _issued(one, lowest)), None)
        if above is None:
            break
        chain.append(above)
        lowest = above
    return chain


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # of many kinds: another name, another key, another algorithm; none of them is its issuer
        return False
    return True


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: float,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(end, latest) if latest else end)
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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
