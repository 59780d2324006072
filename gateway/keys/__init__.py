"""Sealing, opening, tokens, signatures and key rings. It knows bytes, never what they mean."""

from gateway.keys.canonical import canonical
from gateway.keys.chunked import ChunkedReader, ChunkedWriter, Scratch
from gateway.keys.derive import hkdf, mark_seed
from gateway.keys.generate import make_keys
from gateway.keys.hpke import key_id
from gateway.keys.keyring import OpeningKeys, SealingKeys, load_spool_cipher, load_verifier
from gateway.keys.signing import Signer, Verifier
from gateway.keys.spoolfile import DerivedCipher, SpoolCipher
from gateway.keys.token import TOKEN_SIZE, TokenContent, make_token, read_token

__all__ = [
    "TOKEN_SIZE",
    "ChunkedReader",
    "ChunkedWriter",
    "DerivedCipher",
    "OpeningKeys",
    "Scratch",
    "SealingKeys",
    "Signer",
    "SpoolCipher",
    "TokenContent",
    "Verifier",
    "canonical",
    "hkdf",
    "key_id",
    "load_spool_cipher",
    "load_verifier",
    "make_keys",
    "make_token",
    "mark_seed",
    "read_token",
]
