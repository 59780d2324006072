"""Where a site keeps its vault, as its configuration says."""

from __future__ import annotations

from pathlib import Path

from gateway.config.models import Config

VAULT = "vault"


def vault_folder(config: Config) -> Path:
    """The folder of the sealed payloads: `<site.state>/vault`."""
    return config.site.state / VAULT
