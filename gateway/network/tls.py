"""TLS for DICOM: contexts after PS3.15 B.12 (BCP 195: TLS 1.2 or newer), and what a peer's certificate says.

Both sides always show a certificate and check the other's against the configured trust: an AE title is only a name.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.config.check import TRUST_SUFFIXES
from gateway.config.models import Tls
from gateway.errors import ConfigError

_log = logging.getLogger(__name__)

# BCP 195 (RFC 9325 4.2): forward secrecy and AEAD only. TLS 1.3 brings its own list, all of it of this kind.
TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK"

CRL_SUFFIXES = (".crl", ".pem", ".der")
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True)
class PeerCertificate:
    """What binds a TLS peer to an AE title.

    Attributes
    ----------
    key_sha256
        SHA-256 of the SubjectPublicKeyInfo (DER), 64 lower-case hexadecimal digits: stays when a certificate is renewed
        under the same key.
    typed_names
        DNS names, URIs and IP addresses of the Subject Alternative Name extension, each with its kind.
    der
        The certificate itself.
    """

    key_sha256: str
    typed_names: tuple[tuple[Literal["DNS", "URI", "IP"], str], ...]
    der: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """The names without their kinds, for people."""
        return tuple(name for _, name in self.typed_names)


def server_context(tls: Tls) -> ssl.SSLContext:
    """Context for a listening port; a client without a certificate from our trust does not get in.

    Raises
    ------
    ConfigError
        Codes ``tls-file-missing``, ``tls-file-unusable``, ``secret-readable-by-others``.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # no resumption: every connection shows its certificate anew
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """Context for connecting; the server's certificate must be from our trust and name the host that we call.

    Raises
    ------
    ConfigError
        As `server_context`.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls)  # CERT_REQUIRED and check_hostname are this protocol's defaults


def trusting_context(
    trust: Path | None, certificate: Path | None = None, private_key: Path | None = None
) -> ssl.SSLContext:
    """Context for asking a service that need not know our certificate; its own is checked all the same.

    Parameters
    ----------
    trust
        Authorities of the service, file or folder; None: those of the system.
    certificate, private_key
        Shown to it, where both are given.

    Raises
    ------
    ConfigError
        As `server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    if trust is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _load_trust(context, trust)
    if certificate is not None and private_key is not None:
        _load_own(context, certificate, private_key)
    return context


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate | None:
    """What the peer's certificate says, or None when it showed none; call it after the handshake."""
    der = connection.getpeercert(binary_form=True)
    return certificate_facts(der) if der else None


def certificate_facts(der: bytes) -> PeerCertificate:
    """Read one certificate (DER)."""
    certificate = x509.load_der_x509_certificate(der)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: list[tuple[Literal["DNS", "URI", "IP"], str]] = []
    else:
        names = [("DNS", name) for name in extension.get_values_for_type(x509.DNSName)]
        names += [("URI", uri) for uri in extension.get_values_for_type(x509.UniformResourceIdentifier)]
        names += [("IP", str(address)) for address in extension.get_values_for_type(x509.IPAddress)]
    return PeerCertificate(hashlib.sha256(key).hexdigest(), tuple(names), der)


def _context(protocol: int, tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    _harden(context)
    _load_own(context, tls.certificate, tls.private_key)
    # What lies in the trust is trusted as it is: an intermediate authority without its root, or one certificate alone.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_trust(context, tls.trust)
    if tls.crl is not None:
        _load_revoked(context, tls.crl)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_own(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    _check_private(private_key)
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable(certificate, error) from None


def _load_trust(context: ssl.SSLContext, trust: Path) -> None:
    """Trust the certificates of one file, PEM or DER, or of all such files of a folder.

    A file of a folder that holds none is left out, with one line in the log: that trusts less, never more.
    """
    usable = 0
    for path in _trust_files(trust):
        try:
            context.load_verify_locations(cadata=_certificates(path))
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            failure = _unusable(path, error)
            if path == trust:
                raise failure from None
            _log.warning("left out of the trust: %s", failure.message)
        else:
            usable += 1
    if not usable:
        raise ConfigError("tls-file-unusable", f"no usable certificate in {trust}", "put the trusted CA there")


def _load_revoked(context: ssl.SSLContext, lists: Path) -> None:
    """Refuse whose certificate is on a list, and whose authority has none, or one that has run out (RFC 5280 6.3)."""
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in revocation_lists(lists))
    handle = os.memfd_create("crl", os.MFD_CLOEXEC)  # OpenSSL takes lists from a file only
    try:
        os.write(handle, pem)
        context.load_verify_locations(cafile=f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def revocation_lists(lists: Path) -> list[x509.CertificateRevocationList]:
    """The lists in a file, PEM or DER, or in all such files of a folder.

    Raises
    ------
    ConfigError
        ``tls-file-missing``, ``tls-file-unusable``: one that cannot be read must not pass for one that revokes nothing.
    """
    files = sorted(p for p in lists.iterdir() if p.suffix.lower() in CRL_SUFFIXES) if lists.is_dir() else [lists]
    found = []
    for path in files:
        try:
            data = path.read_bytes()
            blocks = _PEM_CRL.findall(data)
            found += [x509.load_pem_x509_crl(block) for block in blocks] if blocks else [x509.load_der_x509_crl(data)]
        except (OSError, ValueError) as error:
            raise _unusable(path, error) from None
    if not found:
        hint = f"put the authority's list there ({', '.join(CRL_SUFFIXES)}), or take `crl` out"
        raise ConfigError("tls-file-missing", f"there is no revocation list in {lists}", hint)
    return found


def _certificates(path: Path) -> str | bytes:
    """What `load_verify_locations` takes as `cadata`: PEM as text, DER as bytes."""
    data = path.read_bytes()
    if b"-----BEGIN" in data:
        return data.decode("ascii", "replace")
    x509.load_der_x509_certificate(data)  # ValueError: OpenSSL's own word for it would be "not enough data"
    return data


def _no_password() -> str:
    """Without this, OpenSSL would ask for the pass phrase of an encrypted key on the terminal of a service."""
    raise OSError("the private key is encrypted")


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unusable(path, error) from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError("secret-readable-by-others", f"{path} can be read by group or others", f"chmod 600 {path}")


def _trust_files(trust: Path) -> list[Path]:
    """The certificate files of a trust folder (hashed names are not needed), or the one trust file."""
    files = sorted(p for p in trust.iterdir() if p.suffix.lower() in TRUST_SUFFIXES) if trust.is_dir() else [trust]
    if not files:
        raise ConfigError(
            "tls-file-missing", f"no {', '.join(TRUST_SUFFIXES)} file in {trust}", "put the trusted CA there"
        )
    return files


def _unusable(path: Path, error: OSError | ValueError) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError("tls-file-missing", f"there is no {path}", "check the [tls] table of the configuration")
    if isinstance(error, OSError):
        reason = getattr(error, "reason", None) or error.strerror or str(error)
    else:
        reason = "neither PEM nor DER"
    hint = "certificates as PEM or DER, keys as PEM, and a key that belongs to its certificate are needed"
    return ConfigError("tls-file-unusable", f"cannot use {path}: {reason}", hint)
