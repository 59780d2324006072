"""Whether the public restore key that originals are sealed to belongs to the private one that opens them.

Whoever makes both keys signs the id of the public one (deploy/formats.md, "proof of the pair"). The sealing side, which
never sees the private key, holds its public key against that: another site's key, or one of another time, in its
place is found before anything is sealed to it. It guards against mistakes; whoever holds the signing key can sign a
proof for any key. The side that has the private key compares the pair itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.config.secret import SecretRef
from gateway.errors import ConfigError, SealError
from gateway.keys import pem
from gateway.keys.hpke import key_id
from gateway.keys.signing import PAIR, Signer, Verifier

PROOF_NAME = "restore.proof"  # beside the public key
_MAGIC = "MGPP1"
_HINT = "put the site's own restore.public.pem and restore.proof back: what another key seals, nobody can restore"


def proof_of(public: X25519PublicKey, signer: Signer) -> bytes:
    """The proof file: made where both halves of the restore key are."""
    restore = key_id(public)
    return f"{_MAGIC} {restore} {signer.id} {signer.sign(restore.encode(), PAIR).hex()}\n".encode("ascii")


def check_proof(reference: SecretRef, public: X25519PublicKey, verifier: Verifier) -> None:
    """Hold the public key against the proof beside its file; a site made before there were proofs has none.

    Raises
    ------
    ConfigError
        ``restore-pair-differs``: the proof is another key's, or no accepted signer's.
    """
    path: Path | None = reference.path
    proof = path.with_name(PROOF_NAME) if path is not None else None
    if proof is None or not os.path.exists(proof):
        return
    try:
        magic, restore, signer, signature = proof.read_bytes().decode("ascii").split()
        if (magic, restore) != (_MAGIC, key_id(public)):
            raise ValueError
        verifier.check(restore.encode(), bytes.fromhex(signature), signer, PAIR)
    except (ValueError, SealError):
        message = f"keys.restore_public_key is not the key that {proof} vouches for"
        raise ConfigError("restore-pair-differs", message, _HINT) from None


def check_pair(reference: SecretRef, private: X25519PrivateKey) -> None:
    """Compare both halves of the restore key, where the public one can be read here.

    Raises
    ------
    ConfigError
        ``restore-pair-differs``.
    """
    if reference.path is not None and not os.path.exists(reference.path):  # nor where it may not be read
        return
    try:
        public = pem.public_key(reference.resolve(private=False), X25519PublicKey, "keys.restore_public_key")
    except ConfigError as error:
        if error.code == "secret-missing":
            return
        raise
    if key_id(public) != key_id(private.public_key()):
        message = "keys.restore_public_key does not belong to keys.restore_private_key"
        raise ConfigError("restore-pair-differs", message, _HINT)
