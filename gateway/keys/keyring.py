"""The two key rings: one side can only seal, the other can open (architecture, promise 6)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.config.models import Keys
from gateway.errors import ConfigError
from gateway.keys import pem
from gateway.keys.hpke import key_id
from gateway.keys.pair import check_pair, check_proof
from gateway.keys.signing import Signer, Verifier
from gateway.keys.spoolfile import DerivedCipher, SpoolCipher


@dataclass(frozen=True, repr=False)
class SealingKeys:
    """What the roles that receive and mark hold; nothing here opens an original."""

    restore_public: X25519PublicKey
    signer: Signer
    verifier: Verifier
    spool: SpoolCipher
    derived: DerivedCipher
    uid_key: bytes
    mark_key: bytes

    @property
    def restore_key_id(self) -> str:
        """Names the key that originals are sealed to."""
        return key_id(self.restore_public)

    @classmethod
    def load(cls, keys: Keys) -> SealingKeys:
        """Resolve the references; `restore_private_key` is not touched.

        Raises
        ------
        ConfigError
            ``secret-missing``, ``secret-readable-by-others``, ``bad-key``, ``restore-pair-differs`` (by the proof, if
            there is one), and ``signer-not-trusted`` when `trusted_signers` lacks our own signing key: what we sealed
            now, nobody could restore later.
        """
        signer = Signer(pem.private_key(keys.signing_key.resolve(), Ed25519PrivateKey, "keys.signing_key"))
        verifier = load_verifier(keys)
        if signer.id not in verifier.ids:
            raise ConfigError(
                "signer-not-trusted", "keys.trusted_signers does not list the public half of keys.signing_key"
            )
        spool_key = pem.symmetric_key(keys.spool_key.resolve(), "keys.spool_key")
        mark_key = pem.symmetric_key(keys.mark_key.resolve(), "keys.mark_key")
        public = pem.public_key(
            keys.restore_public_key.resolve(private=False), X25519PublicKey, "keys.restore_public_key"
        )
        check_proof(keys, public, verifier)
        return cls(
            restore_public=public,
            signer=signer,
            verifier=verifier,
            spool=SpoolCipher(spool_key),
            derived=DerivedCipher(mark_key, spool_key),
            uid_key=pem.symmetric_key(keys.uid_key.resolve(), "keys.uid_key"),
            mark_key=mark_key,
        )


@dataclass(frozen=True, repr=False)
class OpeningKeys:
    """What the restore role holds, and no other."""

    restore_private: X25519PrivateKey
    verifier: Verifier
    is_compared: bool = False  # with the public key that is sealed to, or with its proof

    @property
    def restore_key_id(self) -> str:
        """Names the key that this opens."""
        return key_id(self.restore_private.public_key())

    @classmethod
    def load(cls, keys: Keys, *, paired: bool = True) -> OpeningKeys:
        """Resolve the references; ConfigError as `SealingKeys.load`; `paired`: the public half is compared."""
        private = pem.private_key(keys.restore_private_key.resolve(), X25519PrivateKey, "keys.restore_private_key")
        verifier = load_verifier(keys)
        return cls(private, verifier, paired and check_pair(keys, private, verifier))


def load_spool_cipher(keys: Keys) -> SpoolCipher:
    """The one key that a role needs which only receives."""
    return SpoolCipher(pem.symmetric_key(keys.spool_key.resolve(), "keys.spool_key"))


def load_verifier(keys: Keys) -> Verifier:
    """The accepted signers of records."""
    return Verifier(
        pem.public_key(reference.resolve(private=False), Ed25519PublicKey, "keys.trusted_signers")
        for reference in keys.trusted_signers
    )
