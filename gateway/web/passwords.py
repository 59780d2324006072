"""Passwords of the page's users: argon2id, with the library's own parameters (RFC 9106, low memory)."""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.errors import ConfigError

SHORTEST = 12  # characters
LONGEST = 256
_AT_ONCE = threading.Semaphore(2)  # each takes 64 MiB: many at once must not fill the memory


def hash_password(password: str) -> str:
    """The hash to keep; ConfigError ``bad-password`` when it is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        message = f"a password has {SHORTEST} to {LONGEST} characters"
        raise ConfigError("bad-password", message, "a sentence is easy to keep in mind")
    return PasswordHasher().hash(password)


def is_right(password_hash: str | None, password: str) -> bool:
    """Whether the password is that of the hash; for None (no such user) False, after as much work."""
    with _AT_ONCE:
        nobody = _hash_of_nobody()  # made at the first question, whoever it is about
        try:
            return PasswordHasher().verify(password_hash or nobody, password[:LONGEST]) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False


@cache
def _hash_of_nobody() -> str:
    return PasswordHasher().hash("nobody has this password")
