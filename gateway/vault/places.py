"""Where a site keeps its vault, as its configuration says."""

from __future__ import annotations

from pathlib import Path

from gateway.config.models import Config

VAULT = "vault"
RESTORE_LIST = Path("restore/records.sqlite")
"""Below the state folder: the restore role's own list of records."""
LIST_RECOVERED = "recovered.json"
"""Beside that list, once, where it came from a backup: what the restore role tells of at its next start."""


def vault_folder(config: Config) -> Path:
    """The folder of the sealed payloads: `<site.state>/vault`."""
    return config.site.state / VAULT


def restore_list(config: Config) -> Path:
    """The restore role's own list of records, which that role alone writes."""
    return config.site.state / RESTORE_LIST
