"""Whether the public restore key that originals are sealed to belongs to the private one that opens them.

Whoever has both keys signs the id of the public one (deploy/formats.md, "proof of the pair"). The sealing side, which
never sees the private key, holds its public key against that: another site's key, or one of another time, in its
place is found before anything is sealed to it. The side that has the private key holds it against the public key and
the proof, whichever it can read. This guards against mistakes: whoever holds the signing key can prove any key.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.config.models import PROOF_NAME, Keys
from gateway.config.secret import SecretRef
from gateway.errors import ConfigError, SealError
from gateway.keys import pem
from gateway.keys.hpke import key_id
from gateway.keys.signing import PAIR, Signer, Verifier

PROOFS = "MGPP"  # how a proof of any version begins
_MAGIC = f"{PROOFS}1"
PUT_BACK = f"put the site's own restore.public.pem and {PROOF_NAME} back: what another key seals, nobody can restore"
PROVE = "miad-gateway keys prove [--config FILE], run where the private restore key and the signing key are"

NOT_PROVED = (
    "nothing proves that keys.restore_public_key is the private key's other half: what a wrong one seals is lost"
)
NOT_COMPARED = "neither keys.restore_public_key nor a proof of it can be read here: the restore keys are not compared"


def proof_of(public: X25519PublicKey, signer: Signer) -> bytes:
    """The proof: made where both halves of the restore key are."""
    restore = key_id(public)
    return f"{_MAGIC} {restore} {signer.id} {signer.sign(restore.encode(), PAIR).hex()}\n".encode("ascii")


def read_proof(keys: Keys) -> bytes | None:
    """The proof that `keys` name, or that lies beside the public key; None when none is named and none is there.

    Raises
    ------
    ConfigError
        ``secret-missing`` or ``secret-too-long``: it is named, or there, and cannot be read.
    """
    reference = keys.proof
    if reference is None or (keys.restore_proof is None and reference.is_absent):
        return None
    try:
        return reference.resolve(private=False)
    except ConfigError as error:
        raise ConfigError(
            error.code, f"keys.restore_proof: {error.message}", f"make it readable, or anew: {PROVE}"
        ) from None


def check_proof(keys: Keys, public: X25519PublicKey, verifier: Verifier) -> bool:
    """Hold the public key against its proof; False: there is none (a site made before there were proofs).

    Raises
    ------
    ConfigError
        ``restore-pair-differs``: the proof is another key's, no accepted signer's, or none at all; and those of
        `read_proof`.
    """
    data = read_proof(keys)
    if data is None:
        return False
    _judge(data, keys.proof, public, verifier)
    return True


def check_pair(keys: Keys, private: X25519PrivateKey, verifier: Verifier) -> bool:
    """Hold the private key against the public one and the proof; False: this user can read neither.

    Raises
    ------
    ConfigError
        ``restore-pair-differs``; and those of `read_proof` for a proof that is named in the configuration.
    """
    own = private.public_key()
    data = _if_readable(keys.restore_public_key)
    if data is not None:
        public = pem.public_key(data, X25519PublicKey, "keys.restore_public_key")
        if key_id(public) != key_id(own):
            message = "keys.restore_public_key does not belong to keys.restore_private_key"
            raise ConfigError("restore-pair-differs", message, PUT_BACK)
    proof = read_proof(keys) if keys.restore_proof is not None else _if_readable(keys.proof)
    if proof is not None:
        _judge(proof, keys.proof, own, verifier)
    return data is not None or proof is not None


def _if_readable(reference: SecretRef | None) -> bytes | None:
    """Content of a public file, or None: the restore role need not be let in to it."""
    try:
        return None if reference is None else reference.resolve(private=False)
    except ConfigError as error:
        if error.code == "secret-missing":
            return None
        raise


def _judge(proof: bytes, reference: SecretRef | None, public: X25519PublicKey, verifier: Verifier) -> None:
    again = f"{PUT_BACK}; if they are, make the proof anew: {PROVE}"
    try:
        magic, restore, signer, signature = proof.decode("ascii").split()
        signed = bytes.fromhex(signature)
    except ValueError:
        magic, restore, signer, signed = "", "", "", b""
    if magic != _MAGIC:
        raise ConfigError("restore-pair-differs", f"{reference} is not a proof of the restore keys", again)
    if restore != key_id(public):
        message = f"{reference} is the proof of another restore key than this one, {key_id(public)}"
        raise ConfigError("restore-pair-differs", message, again)
    try:
        verifier.check(restore.encode(), signed, signer, PAIR)
    except SealError as error:
        why = "by a key that keys.trusted_signers does not list" if error.code == "signer-unknown" else "falsely"
        raise ConfigError("restore-pair-differs", f"{reference} is signed {why}", again) from None
