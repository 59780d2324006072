"""A configuration whose keys and certificates exist: what `check_config` has nothing to say against."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, load_config
from gateway.keys.generate import make_keys

GOOD = """
[[ingress.peers]]
ae_title = "ARCHIVE"
addresses = ["10.0.0.1"]

[[routes]]
name = "research"
called_ae = "RESEARCH"
destinations = ["pacs"]

[[destinations]]
name = "pacs"
type = "research"
ae_title = "PACS"
host = "localhost"
port = 11113

[restore]
[restore.tls]
certificate = "tls/own.pem"
private_key = "tls/own.key"
trust = "tls/trust"

[[restore.workstations]]
ae_title = "READER"
addresses = ["10.0.0.2"]
san = ["reader.example"]

[page]
"""


class Site:
    """A folder with keys, TLS files and a configuration text that tests change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_keys(folder / "keys")
        (folder / "tls" / "trust").mkdir(parents=True)
        for name, mode in (("own.pem", 0o644), ("own.key", 0o600), ("trust/ca.pem", 0o644)):
            (folder / "tls" / name).write_text("looked at from outside only")
            (folder / "tls" / name).chmod(mode)

    def config(self, changed: dict[str, str] | None = None, added: str = "") -> Config:
        """The good configuration with some texts in it replaced and others added at the end."""
        text = GOOD
        for old, new in (changed or {}).items():
            assert old in text
            text = text.replace(old, new)
        file = self.folder / "gateway.toml"
        file.write_text(text + added)
        return load_config(file)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
