"""The envelope: a data encryption key (DEK) per object, sealed to the restore role's public key."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import SealError
from gateway.keys import hpke
from gateway.keys.canonical import canonical

DEK_SIZE = 32
WRAPPED_SIZE = DEK_SIZE + hpke.OVERHEAD
_LABEL = b"miad/dek/1\0"


def new_dek() -> bytes:
    """A fresh random key of 32 bytes, for one object only."""
    return os.urandom(DEK_SIZE)


def wrap_dek(dek: bytes, public: X25519PublicKey, context: Mapping[str, object]) -> bytes:
    """Seal `dek` to `public`, bound to `context` (as canonical JSON); gives WRAPPED_SIZE bytes."""
    return hpke.seal(public, dek, _LABEL + canonical(context))


def unwrap_dek(wrapped: bytes, private: X25519PrivateKey, context: Mapping[str, object]) -> bytes:
    """Open what `wrap_dek` made; SealError ``unsealing-failed`` for another key, another context or changed bytes."""
    dek = hpke.open(private, wrapped, _LABEL + canonical(context))
    if len(dek) != DEK_SIZE:
        raise SealError("unsealing-failed", "the unsealed key has the wrong length")
    return dek
