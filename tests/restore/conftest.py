"""The vault of real parts, for restoring."""

from tests.vault.conftest import vault

__all__ = ["vault"]
