"""Random numbers from a mark key: never from a global generator, never from arrival order."""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def keyed(key: bytes, purpose: str, position: float | None = None) -> np.random.Generator:
    """Return a generator that depends on the key, on what it is for and, where given, on the slice position (mm)."""
    digest = hashlib.sha256(b"miad-mark/" + purpose.encode("ascii") + b"/" + key)
    if position is not None:
        digest.update(struct.pack(">d", position))
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "big")))
