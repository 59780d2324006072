"""New UIDs for marked copies: keyed, repeatable, and telling nothing of the original (PS3.5 B.2)."""

from __future__ import annotations

import hmac
from typing import Literal

_LABEL = b"MIAD GATEWAY UID 1"


Level = Literal["instance", "series", "study"]


def derived_uid(uid_key: bytes, level: Level, original_uid: str, generation: int = 0) -> str:
    """`2.25.` and the first 128 bits of HMAC-SHA256(uid_key, label | level | original UID | generation).

    The same inputs give the same UID on every machine and in any order of arrival, so that references can be mapped
    before, or without ever, seeing what they point at. The parts are joined by zero bytes, which no UID or level has.

    Parameters
    ----------
    uid_key
        32 secret bytes, made once per site and never rotated.
    level
        "instance" (SOP Instance UID), "series" or "study".
    generation
        Counts different byte strings under one original SOP Instance UID; always 0 for a series or study, since
        a reference to one cannot know it.

    Raises
    ------
    ValueError
        For a key that is too short, an unknown level, an empty UID or a generation that cannot be.
    """
    if len(uid_key) < 32:
        raise ValueError("the UID key has at least 32 bytes")
    if level not in ("instance", "series", "study") or not original_uid:
        raise ValueError("a UID is derived from an instance, series or study UID")
    if generation < 0 or (level != "instance" and generation):
        raise ValueError("a generation is 0 or more, and always 0 for a series or study")
    message = b"\0".join((_LABEL, level.encode(), original_uid.encode("ascii"), str(generation).encode()))
    return f"2.25.{int.from_bytes(hmac.digest(uid_key, message, 'sha256')[:16], 'big')}"


def in_new_study(original_uid: str) -> str:
    """What UIDs of instances and series are derived from where their study gets a derived UID as well.

    Not the original UID itself: a series that is copied with and without a new study would be one series in two.
    """
    return f"{original_uid}/study"
