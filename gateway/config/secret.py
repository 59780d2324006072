"""Secrets by reference: the configuration says where a secret lies, never what it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from gateway.errors import ConfigError


class SecretRef(str):
    """`file:PATH` (relative to the configuration file) or `env:NAME`.

    Resolved only when a role needs it, so that a role which must not hold a key never touches it.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls._checked, core_schema.str_schema())

    @classmethod
    def _checked(cls, value: str) -> SecretRef:
        scheme, _, rest = value.partition(":")
        if scheme not in ("file", "env") or not rest:
            raise ValueError("a secret is given by reference: 'file:PATH' or 'env:NAME'")
        return cls(value)

    def against(self, folder: Path) -> SecretRef:
        """The same reference with a relative (or `~`) file path made absolute against `folder`."""
        path = self.path
        return self if path is None else SecretRef(f"file:{folder / path.expanduser()}")

    @property
    def path(self) -> Path | None:
        """The file that this refers to, or None for an environment variable."""
        return Path(self.partition(":")[2]) if self.startswith("file:") else None

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
        path = self.path
        if path is None:
            name = self.partition(":")[2]
            value = os.environ.get(name)
            if not value:
                raise ConfigError("secret-missing", f"environment variable {name} is not set", "set it, or use file:")
            return value.encode()
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
