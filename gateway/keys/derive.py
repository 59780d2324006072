"""Keys from keys: HKDF-SHA256 (RFC 5869) with a label per use, so that no two uses share a key."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MARK_SEED_LABEL = "miad/mark-seed/1"


def hkdf(key: bytes, label: str, *parts: bytes, length: int = 32) -> bytes:
    """Derive `length` bytes from `key` for the use named by `label`.

    `info` is the label, a zero byte, and every part after its length (32 bit, big-endian): no two lists of parts give
    one `info`. The salt is empty; callers that need one give it as a part.
    """
    info = label.encode("ascii") + b"\0" + b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)


def mark_seed(mark_key: bytes, series_uid: str) -> bytes:
    """32 bytes that seed the mark of one series (its *original* Series Instance UID), so that its slices agree."""
    return hkdf(mark_key, MARK_SEED_LABEL, series_uid.encode("ascii"))
