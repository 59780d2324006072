"""Where a site keeps its vault, as its configuration says."""

from __future__ import annotations

from pathlib import Path

from gateway.config.models import Config
from gateway.vault.payloads import Payloads, PayloadStore

VAULT = "vault"
RESTORE_LIST = Path("restore/records.sqlite")
"""Below the state folder: the restore role's own list of records."""
LIST_RECOVERED = "recovered.json"
"""Beside that list, once, where it came from a backup: what the restore role tells of at its next start."""


def vault_folder(config: Config) -> Path:
    """The folder of the sealed payloads: `<site.state>/vault`."""
    return config.site.state / VAULT


def open_payloads(config: Config, scratch: Path | None = None) -> Payloads:
    """The site's sealed payloads: in the object store that ``[store]`` names, else in the vault's folder.

    Parameters
    ----------
    scratch
        A folder that this role may write, where sealed bytes lie on their way; None: the vault's.

    Raises
    ------
    ConfigError
        As `gateway.vault.objects.ObjectPayloads`.
    """
    if config.store is None:
        return PayloadStore(vault_folder(config))
    from gateway.vault.objects import ObjectPayloads

    return ObjectPayloads(config.store, scratch or vault_folder(config))


def restore_list(config: Config) -> Path:
    """The restore role's own list of records, which that role alone writes."""
    return config.site.state / RESTORE_LIST
