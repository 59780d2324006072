"""Secrets by reference: the configuration says where a secret lies, never what it is."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from gateway.config.users import run_as
from gateway.errors import ConfigError

SCHEMES = ("file:", "env:", "credential:")
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
LONGEST = 65_536  # bytes; a file that is longer, or never ends, was named by mistake


class SecretRef(str):
    """`file:PATH` (relative to the configuration file), `env:NAME`, or `credential:NAME`.

    A credential is a file that the service manager lays out for this one service (systemd's ``LoadCredential=``), in
    the folder that the variable ``CREDENTIALS_DIRECTORY`` names. Resolved only when a role needs it, so that a role
    which must not hold a key never touches it.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls._checked, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": "^(file|env|credential):."}

    @classmethod
    def _checked(cls, value: str) -> SecretRef:
        scheme, colon, rest = value.partition(":")
        if scheme + colon not in SCHEMES or not rest:
            raise ValueError("a secret is given by reference: 'file:PATH', 'env:NAME' or 'credential:NAME'")
        if scheme == "credential" and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", rest):
            raise ValueError("the name of a credential has letters, digits, '_', '.' and '-'")
        return cls(value)

    def against(self, folder: Path) -> SecretRef:
        """The same reference with a relative (or `~`) file path made absolute against `folder`."""
        path = self.path
        return self if path is None else SecretRef(f"file:{folder / path.expanduser()}")

    @property
    def path(self) -> Path | None:
        """The file that this names, or None for an environment variable or a credential."""
        return Path(self.partition(":")[2]) if self.startswith("file:") else None

    @property
    def variable(self) -> str | None:
        """The environment variable that this names, or None."""
        return self.partition(":")[2] if self.startswith("env:") else None

    @property
    def is_absent(self) -> bool:
        """Whether nothing is there, as far as this user can see; what is there and cannot be read is not absent."""
        if self.variable is not None:
            return not os.environ.get(self.variable)
        path = self.file
        return path is None or not os.path.lexists(path)

    @property
    def file(self) -> Path | None:
        """The file behind this reference, a credential's too; None for a variable, and outside of a service's unit."""
        folder = os.environ.get(CREDENTIALS)
        if self.startswith("credential:") and folder:
            return Path(folder) / self.partition(":")[2]
        return self.path

    def resolve(self, *, private: bool = True) -> bytes:
        """Read the secret.

        Parameters
        ----------
        private
            Refuse a file that group or others can read.

        Raises
        ------
        ConfigError
            Codes ``secret-missing``, ``secret-too-long`` (over `LONGEST`) and ``secret-readable-by-others``.
        """
        if (name := self.variable) is not None:
            value = os.environ.get(name)
            if not value:
                raise ConfigError("secret-missing", f"environment variable {name} is not set", "set it, or use file:")
            return value.encode()
        if self.startswith("credential:"):
            return self._credential(self.partition(":")[2], private)
        path = Path(self.partition(":")[2])
        try:
            mode, data = _read(path)
        except OSError as error:
            hint = (run_as(path) if isinstance(error, PermissionError) else "") or _HINT
            raise ConfigError("secret-missing", f"cannot read {path}: {error.strerror}", hint) from None
        if private and stat.S_IMODE(mode) & 0o077:
            raise ConfigError(
                "secret-readable-by-others", f"{path} can be read by group or others", f"chmod 600 {path}"
            )
        return data

    @staticmethod
    def _credential(name: str, private: bool) -> bytes:
        folder = os.environ.get(CREDENTIALS)
        if not folder:
            message = f"there is no credential {name}: the variable {CREDENTIALS} is not set"
            hint = (
                f"the service's unit needs LoadCredential={name}:PATH; by hand, set {CREDENTIALS} to the keys' folder"
            )
            raise ConfigError("secret-missing", message, hint)
        path = Path(folder) / name
        try:
            mode, data = _read(path)
        except OSError as error:
            message = f"cannot read the credential {name} in {folder}: {error.strerror}"
            raise ConfigError("secret-missing", message, f"the unit needs LoadCredential={name}:PATH") from None
        # systemd lets the service's user in by an ACL, whose mask stands where the group's bits are: only others count.
        if private and mode & stat.S_IRWXO:
            raise ConfigError("secret-readable-by-others", f"{path} can be read by others", f"chmod o= {path}")
        return data


_HINT = "correct the path, or make the keys: miad-gateway keys make"


def _read(path: Path) -> tuple[int, bytes]:
    """Mode and content of one and the same regular file; nothing that could block or be without end is read."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        message = f"{path} has more than {LONGEST} bytes, and no key or proof is so long"
        raise ConfigError("secret-too-long", message, "name the right file")
    return mode, data
