"""The people who may log in to the page: one line each, ``name:role:hash``, in a file that `page user` keeps.

Role page compares passwords; the worker reads names and roles, so that what somebody asked for is done only while that
person may.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.errors import ConfigError

UserRole = Literal["viewer", "operator"]
USER_ROLES: tuple[UserRole, ...] = ("viewer", "operator")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_HEAD = "# Users of the status page: miad-gateway page user add|ls|remove\n"


@dataclass(frozen=True)
class Account:
    """One person: what they may do, and the argon2 hash of their password."""

    name: str
    role: UserRole
    password_hash: str


def check_name(name: str) -> str:
    """The name itself; ConfigError ``bad-user``."""
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name of a user"
        raise ConfigError("bad-user", message, "1 to 32 lower-case letters, digits, '.', '-' or '_'")
    return name


def read_accounts(file: Path) -> dict[str, Account]:
    """All users by name; none where there is no such file.

    Raises
    ------
    ConfigError
        ``users-unreadable``: it cannot be read, or a line in it is not as it has to be.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError("users-unreadable", f"cannot read {file}: {reason}", "see who may read it") from None
    found: dict[str, Account] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        role, _, password_hash = rest.partition(":")
        if not _NAME.fullmatch(name) or role not in USER_ROLES or not password_hash or name in found:
            message = f"{file}, line {number}: not name:role:hash, or a name twice"
            raise ConfigError("users-unreadable", message, "miad-gateway page user add makes such lines")
        found[name] = Account(name, role, password_hash)
    return found


def write_accounts(file: Path, accounts: Mapping[str, Account]) -> None:
    """Put the file in its place whole, so that nobody reads half of it.

    A new one may be read by its folder's group and no further; one that is there keeps owner, group and mode.
    """
    text = _HEAD + "".join(f"{one.name}:{one.role}:{one.password_hash}\n" for one in accounts.values())
    try:
        old = file.stat()
        owner, group, mode = old.st_uid, old.st_gid, old.st_mode & 0o770
    except FileNotFoundError:
        owner, group, mode = -1, file.parent.stat().st_gid, 0o640
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            os.fchown(out.fileno(), owner, group)
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
