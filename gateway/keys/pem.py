"""Keys from text: PEM for asymmetric keys, hexadecimal for symmetric ones. Errors never show key material."""

from __future__ import annotations

from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import ConfigError

Private = TypeVar("Private", X25519PrivateKey, Ed25519PrivateKey)
Public = TypeVar("Public", X25519PublicKey, Ed25519PublicKey)


def private_key(pem: bytes, kind: type[Private], name: str) -> Private:
    """PKCS#8 PEM (not encrypted) to a private key of `kind`; ConfigError ``bad-key`` names `name`."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    return _of_kind(key, kind, name)


def public_key(pem: bytes, kind: type[Public], name: str) -> Public:
    """SubjectPublicKeyInfo PEM to a public key of `kind`; ConfigError ``bad-key`` names `name`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    return _of_kind(key, kind, name)


def symmetric_key(text: bytes, name: str) -> bytes:
    """64 hexadecimal digits, white space around them allowed, to 32 bytes; ConfigError ``bad-key`` names `name`."""
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError("bad-key", f"{name} is not 64 hexadecimal digits", "make one with miad-gateway keys make")
    return key


def _of_kind(key, kind, name):
    if not isinstance(key, kind):
        raise ConfigError("bad-key", f"{name} is not a PEM file with an {kind.__name__}", "see deploy/formats.md")
    return key
