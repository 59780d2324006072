"""The key reference that a marked object carries: where its original lies, readable by the restore role only.

Fixed length, and bound to the *derived* SOP Instance UID: cut out and pasted into another object it opens nothing
(architecture, the private block). It holds no key, no original UID and no patient data. Layout: deploy/formats.md,
"token".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import SealError
from gateway.keys import hpke

MAGIC = b"MGT"
VERSION = 1
_HEAD = struct.Struct(">3sB8s")  # magic, version, key id
_BODY = struct.Struct(">32s16s")  # vault id (ASCII, zero-padded), locator
TOKEN_SIZE = _HEAD.size + _BODY.size + hpke.OVERHEAD  # even, as an OB value must be
_LABEL = b"miad/token/1\0MIAD GATEWAY 1\0"


@dataclass(frozen=True)
class TokenContent:
    """What a token says: the vault's id, and the record's locator there (32 hexadecimal digits)."""

    vault_id: str
    locator: str


def make_token(public: X25519PublicKey, vault_id: str, locator: str, derived_sop_uid: str) -> bytes:
    """Make the token of the object `derived_sop_uid`: TOKEN_SIZE bytes.

    Parameters
    ----------
    vault_id
        1 to 32 ASCII characters.
    locator
        32 hexadecimal digits.
    """
    name = vault_id.encode("ascii")
    place = bytes.fromhex(locator)
    if not 1 <= len(name) <= 32 or len(place) != 16:
        raise ValueError("a vault id has 1 to 32 characters and a locator 32 hexadecimal digits")
    head = _HEAD.pack(MAGIC, VERSION, bytes.fromhex(hpke.key_id(public)))
    return head + hpke.seal(public, _BODY.pack(name, place), _info(head, derived_sop_uid))


def read_token(private: X25519PrivateKey, token: bytes, derived_sop_uid: str) -> TokenContent:
    """Read a token that was found in the object `derived_sop_uid`.

    Raises
    ------
    SealError
        ``token-format`` (not a token, or of an unknown version), ``token-other-key`` (sealed to another key),
        ``token-not-for-this-object`` (another object's, or changed).
    """
    if len(token) != TOKEN_SIZE or token[:3] != MAGIC or token[3] != VERSION:
        raise SealError("token-format", "this is not a key reference of a known version")
    head, sealed = token[: _HEAD.size], token[_HEAD.size :]
    if head[4:].hex() != hpke.key_id(private.public_key()):
        raise SealError("token-other-key", "the key reference is sealed to another restore key")
    try:
        body = hpke.open(private, sealed, _info(head, derived_sop_uid))
    except SealError:
        raise SealError(
            "token-not-for-this-object", "the key reference belongs to another object, or was changed"
        ) from None
    name, place = _BODY.unpack(body)
    if not name.isascii():  # anyone with the public key can seal anything
        raise SealError("token-format", "the key reference names a vault by a name that no vault can have")
    return TokenContent(name.rstrip(b"\0").decode("ascii"), place.hex())


def _info(head: bytes, derived_sop_uid: str) -> bytes:
    return _LABEL + head + derived_sop_uid.encode("ascii")
