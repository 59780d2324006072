"""Who made a record: Ed25519 (RFC 8032) over a label and the document's bytes."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.errors import SealError
from gateway.keys.hpke import key_id

# A signature made for one use is worth nothing for another.
RECORD = b"miad/record/1\0"
CARRIED = b"miad/carried/1\0"
PAIR = b"miad/pair-proof/1\0"
REPORT = b"miad/report/1\0"


class Signer:
    """Signs documents with one key; `id` names the key (see `gateway.keys.hpke.key_id`)."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.id = key_id(private.public_key())

    def sign(self, document: bytes, label: bytes = RECORD) -> bytes:
        """64 bytes, good for the use that `label` names."""
        return self._private.sign(label + document)


class Verifier:
    """Accepts the listed signers only."""

    def __init__(self, publics: Iterable[Ed25519PublicKey]) -> None:
        self._publics = {key_id(public): public for public in publics}

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the accepted signers."""
        return frozenset(self._publics)

    def check(self, document: bytes, signature: bytes, signer_id: str, label: bytes = RECORD) -> None:
        """Return when `signature` is the signer's over `document`, made for the use that `label` names.

        Raises
        ------
        SealError
            ``signer-unknown`` or ``signature-wrong``.
        """
        public = self._publics.get(signer_id)
        if public is None:
            raise SealError("signer-unknown", "a record is signed by a key that is not trusted", "keys.trusted_signers")
        try:
            public.verify(signature, label + document)
        except InvalidSignature:
            raise SealError("signature-wrong", "the signature of a record is not valid for it") from None
