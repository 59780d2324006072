"""New UIDs for marked copies: keyed, repeatable, and telling nothing of the original (PS3.5 B.2)."""

from __future__ import annotations

import hmac
from typing import Literal

_LABEL = b"MIAD GATEWAY UID 1"


def derived_uid(uid_key: bytes, level: Literal["instance", "series"], original_uid: str, generation: int = 0) -> str:
    """`2.25.` and the first 128 bits of HMAC-SHA256(uid_key, label | level | original UID | generation).

    The same inputs give the same UID on every machine and in any order of arrival, so that references can be mapped
    before, or without ever, seeing what they point at. The parts are joined by zero bytes, which no UID or level has.

    Parameters
    ----------
    uid_key
        32 secret bytes, made once per site and never rotated.
    level
        "instance" (SOP Instance UID) or "series".
    generation
        Counts different byte strings under one original SOP Instance UID; always 0 for a series, since a reference to
        a series cannot know it.

    Raises
    ------
    ValueError
        For a key that is too short, an unknown level, an empty UID or a generation that cannot be.
    """
    if len(uid_key) < 32:
        raise ValueError("the UID key has at least 32 bytes")
    if level not in ("instance", "series") or not original_uid:
        raise ValueError("a UID is derived from an instance or series UID")
    if generation < 0 or (level == "series" and generation):
        raise ValueError("a generation is 0 or more, and always 0 for a series")
    message = b"\0".join((_LABEL, level.encode(), original_uid.encode("ascii"), str(generation).encode()))
    return f"2.25.{int.from_bytes(hmac.digest(uid_key, message, 'sha256')[:16], 'big')}"
