"""Secrets by reference: the configuration says where a secret lies, never what it is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from gateway.errors import ConfigError

SCHEMES = ("file:", "env:", "credential:")
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=


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

    def resolve(self, *, private: bool = True) -> bytes:
        """Read the secret.

        Parameters
        ----------
        private
            Refuse a file that group or others can read.

        Raises
        ------
        ConfigError
            Codes ``secret-missing`` and ``secret-readable-by-others``.
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
            mode = path.stat().st_mode
            data = path.read_bytes()
        except OSError as error:
            hint = "correct the path, or make the keys: miad-gateway keys make"
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
            mode = path.stat().st_mode
            data = path.read_bytes()
        except OSError as error:
            message = f"cannot read the credential {name} in {folder}: {error.strerror}"
            raise ConfigError("secret-missing", message, f"the unit needs LoadCredential={name}:PATH") from None
        # systemd lets the service's user in by an ACL, whose mask stands where the group's bits are: only others count.
        if private and mode & stat.S_IRWXO:
            raise ConfigError("secret-readable-by-others", f"{path} can be read by others", f"chmod o= {path}")
        return data
