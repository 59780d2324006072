"""A vault of real parts in a temporary folder: keys, SQLite, payload files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.default import default_config
from gateway.keys import make_keys
from tests.support.vault import Vault, open_vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    config = default_config(tmp_path / "site")
    make_keys(tmp_path / "site" / "keys")
    return open_vault(config)
