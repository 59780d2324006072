"""Seal to a public key, open with the private one: HPKE (RFC 9180) base mode, one message per encapsulation.

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. `cryptography` offers `info` and no `aad`; what a message
is bound to therefore goes into `info`, which enters the key schedule. Sealed bytes are `enc` (32) || ciphertext || tag
(16). Sealing proves no origin: anyone with the public key can seal.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from gateway.errors import SealError

OVERHEAD = 32 + 16  # bytes that sealing adds
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal(public_key: X25519PublicKey, plaintext: bytes, info: bytes) -> bytes:
    """Seal `plaintext`, bound to `info`; gives `len(plaintext) + OVERHEAD` bytes."""
    return _SUITE.encrypt(plaintext, public_key, info=info)


def open(private_key: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
    """Open what `seal` made.

    Raises
    ------
    SealError
        ``unsealing-failed``: another key, another `info`, or changed bytes; which of them cannot be told.
    """
    try:
        return _SUITE.decrypt(sealed, private_key, info=info)
    except (InvalidTag, ValueError):
        raise SealError(
            "unsealing-failed",
            "the sealed bytes cannot be opened: wrong key or context, or changed",
        ) from None


def key_id(public_key: X25519PublicKey | Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the key's SubjectPublicKeyInfo."""
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()[:16]
