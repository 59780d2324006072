"""Sealing and opening what a marked copy carries (`carried` restoration; architecture, life of an instance, step 3).

Two elements of the private block: the sealed key (xx10), a fresh DEK and the digest of the original by HPKE to the
restore role's public key; and the sealed payload (xx11), chunked AES-256-GCM under that DEK. Both are bound to the
*derived* SOP Instance UID, so that in another object they open nothing. Inside lies a document that the gateway signed,
with all that a record says of the original and the digest of the body that follows it
(`gateway.dicom.copy.carried_body`): nothing of the body is looked at before signer, signature and digest are right.
Layout: deploy/formats.md, "carried original".
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import struct
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import SealError, VaultError
from gateway.keys import ChunkedReader, ChunkedWriter, Signer, Verifier, canonical, hpke, key_id
from gateway.keys.envelope import DEK_SIZE, new_dek
from gateway.keys.signing import CARRIED as SIGNED_FOR
from gateway.vault.record import CARRIED, FIRST_VERSION, SHARED, VaultRecord

KEY_MAGIC = b"MGK"
PAYLOAD_MAGIC = b"MGCP"
VERSION = 1
_DIGEST = 32
_KEY_HEAD = struct.Struct(">3sB8s")  # magic, version, key id
KEY_SIZE = _KEY_HEAD.size + DEK_SIZE + _DIGEST + hpke.OVERHEAD  # even, as an OB value must be
_PAYLOAD_HEAD = struct.Struct(">4sBQ")  # magic, version, bytes of the chunked file: a zero may follow it (padding)
_INNER_HEAD = struct.Struct(">I8s64s")  # bytes of the document, signer, signature
_KEY_LABEL = b"miad/carried-key/1\0MIAD GATEWAY 1\0"
_PAYLOAD_LABEL = b"miad/carried/1\0"
# Of a record, what is known before the copy is derived; the vectors hold the list of version 1.
_FROM_RECORD = (*(name for name in SHARED if name not in ("derived_sha256", "payload_file")), "key_id")
_NUMBERS = ("version", "generation", "original_size", "created_ms")
_KEYS = frozenset((*_FROM_RECORD, "version", "vault", "created_ms", "body_sha256"))


@dataclass(frozen=True, repr=False)
class Carried:
    """What was opened: the original's facts as the gateway signed them, and the body to rebuild it from."""

    record: VaultRecord
    body: bytes


def seal_carried(body: bytes, record: VaultRecord, public: X25519PublicKey, signer: Signer) -> tuple[bytes, bytes]:
    """Seal `body` for the marked copy of `record`; gives the values of xx10 (KEY_SIZE bytes) and xx11.

    Keys and nonces are fresh: the same body never gives the same bytes again.

    Raises
    ------
    VaultError
        ``other-restore-key`` when the record names another key than `public`.
    """
    if key_id(public) != record.key_id:
        raise VaultError("other-restore-key", f"record {record.locator} names another restore key")
    dek, digest = new_dek(), bytes.fromhex(record.original_sha256)
    head = _KEY_HEAD.pack(KEY_MAGIC, VERSION, bytes.fromhex(record.key_id))
    sealed_key = head + hpke.seal(public, dek + digest, _key_info(head, record.derived_sop_uid))
    document = _document(record, body)
    inner = _INNER_HEAD.pack(len(document), bytes.fromhex(signer.id), signer.sign(document, SIGNED_FOR)) + document
    chunks = io.BytesIO()
    writer = ChunkedWriter(chunks, dek, _context(sealed_key, digest, record.derived_sop_uid))
    writer.write(inner)
    writer.write(body)
    writer.close()
    sealed = chunks.getvalue()
    return sealed_key, _PAYLOAD_HEAD.pack(PAYLOAD_MAGIC, VERSION, len(sealed)) + sealed


def open_carried(
    sealed_key: bytes, payload: bytes, derived_sop_uid: str, private: X25519PrivateKey, verifier: Verifier
) -> Carried:
    """Open what was found in the marked copy `derived_sop_uid`; a byte of padding behind either value is ignored.

    Raises
    ------
    SealError
        ``carried-format`` (not these elements, or of an unknown version), ``carried-other-key`` (sealed to another
        restore key), ``carried-not-for-this-object`` (another object's, or a changed key), ``carried-truncated``,
        ``carried-tampered``, ``signer-unknown``, ``signature-wrong``.
    """
    sealed_key = sealed_key[:KEY_SIZE]
    dek, digest = _open_key(sealed_key, derived_sop_uid, private)
    sealed = io.BytesIO(_sealed_part(payload))
    try:
        plain = ChunkedReader(sealed, dek, _context(sealed_key, digest, derived_sop_uid)).read()
    except SealError as error:
        raise SealError(
            "carried-tampered", f"the carried payload was changed, or is another's: {error.message}"
        ) from None
    return _read(plain, digest, derived_sop_uid, verifier)


def _sealed_part(payload: bytes) -> bytes:
    """The chunked file within the payload, without padding."""
    if len(payload) < _PAYLOAD_HEAD.size:
        raise SealError("carried-truncated", "the carried payload ends inside its header")
    magic, version, length = _PAYLOAD_HEAD.unpack_from(payload)
    if magic != PAYLOAD_MAGIC or version != VERSION:
        raise SealError("carried-format", "this is not a carried payload of a version that is known here")
    sealed = payload[_PAYLOAD_HEAD.size : _PAYLOAD_HEAD.size + length]
    if len(sealed) < length:
        raise SealError("carried-truncated", "the carried payload ends too early")
    return sealed


def _open_key(sealed_key: bytes, derived_sop_uid: str, private: X25519PrivateKey) -> tuple[bytes, bytes]:
    """DEK and digest of the original."""
    head = sealed_key[: _KEY_HEAD.size]
    if len(sealed_key) != KEY_SIZE or head[:3] != KEY_MAGIC or head[3] != VERSION:
        raise SealError("carried-format", "this is not a carried key of a version that is known here")
    if head[4:].hex() != key_id(private.public_key()):
        raise SealError("carried-other-key", "the carried original is sealed to another restore key")
    try:
        opened = hpke.open(private, sealed_key[_KEY_HEAD.size :], _key_info(head, derived_sop_uid))
    except SealError:
        raise SealError(
            "carried-not-for-this-object", "the carried key belongs to another object, or was changed"
        ) from None
    return opened[:DEK_SIZE], opened[DEK_SIZE:]


def _read(plain: bytes, digest: bytes, derived_sop_uid: str, verifier: Verifier) -> Carried:
    if len(plain) < _INNER_HEAD.size:
        raise _unknown()
    length, signer, signature = _INNER_HEAD.unpack_from(plain)
    document = plain[_INNER_HEAD.size : _INNER_HEAD.size + length]
    body = plain[_INNER_HEAD.size + length :]
    verifier.check(document, signature, signer.hex(), SIGNED_FOR)
    content = _parse(document)
    if not hmac.compare_digest(hashlib.sha256(body).hexdigest(), content["body_sha256"]):
        raise SealError("carried-tampered", "the body of the carried payload is not the one that was signed")
    if content["derived_sop_uid"] != derived_sop_uid or content["original_sha256"] != digest.hex():
        raise SealError("carried-not-for-this-object", "the signed document is of another object")
    record = VaultRecord(
        vault_id=content["vault"],
        created_at=content["created_ms"] / 1000,
        derived_sha256=None,
        payload_file=CARRIED,
        token=b"",
        attributes={},
        version=FIRST_VERSION,
        **{name: content[name] for name in _FROM_RECORD},
    )
    return Carried(record, body)


def _document(record: VaultRecord, body: bytes) -> bytes:
    content: dict[str, object] = {name: getattr(record, name) for name in _FROM_RECORD}
    content |= {
        "version": VERSION,
        "vault": record.vault_id,
        "created_ms": round(record.created_at * 1000),
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }
    return canonical(content)


def _parse(document: bytes) -> dict[str, Any]:
    try:
        content = json.loads(document)
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("version") != VERSION or set(content) != _KEYS:
        raise _unknown()
    if not all(isinstance(value, int if name in _NUMBERS else str) for name, value in content.items()):
        raise _unknown()
    return content


def _unknown() -> SealError:
    return SealError("carried-format", "the carried original's document is of no version that is known here")


def _key_info(head: bytes, derived_sop_uid: str) -> bytes:
    return _KEY_LABEL + head + derived_sop_uid.encode("ascii")


def _context(sealed_key: bytes, digest: bytes, derived_sop_uid: str) -> bytes:
    return _PAYLOAD_LABEL + sealed_key + digest + derived_sop_uid.encode("ascii")
