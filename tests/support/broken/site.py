"""A sound site in a folder, one change to it, and what the gateway says then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.keys.generate import make_keys
from tests.support.cli_certificates import make_certificate
from tests.support.ports import free_port

SOUND = """\
version = 1

[site]
name = "hospital"

[ingress]
port = {ingress}

[[ingress.peers]]
ae_title = "ARCHIVE"
addresses = ["127.0.0.1"]

[[routes]]
name = "research"
called_ae = "RESEARCH"
destinations = ["pacs"]

[[destinations]]
name = "pacs"
type = "research"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}

[restore]
tls_port = {restore}

[restore.tls]
certificate = "tls/own.pem"
private_key = "tls/own.key"
trust = "tls/trust"

[[restore.workstations]]
ae_title = "READER"
addresses = ["127.0.0.1"]
san = ["reader.example"]

[page]
port = {page}
"""


def make_template(folder: Path) -> None:
    """Keys and certificates, made once and copied for each site."""
    make_keys(folder / "keys")
    make_certificate(folder / "tls", "own")


class Site:
    """A sound site, on ports of its own that nobody listens on."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder, self.file = folder, folder / "gateway.toml"
        shutil.copytree(template, folder, dirs_exist_ok=True)
        self.ports = {name: free_port() for name in ("ingress", "pacs", "restore", "page")}
        self.file.write_text(SOUND.format(**self.ports))
        self.held = ExitStack()
        """What a row keeps open while the command runs: a port, say."""

    def put(self, old: str, new: str) -> None:
        """Write `new` in the place of `old` in gateway.toml."""
        text = self.file.read_text()
        assert text.count(old) == 1, old
        self.file.write_text(text.replace(old, new))

    def add(self, text: str) -> None:
        """Add lines at the end of gateway.toml."""
        self.file.write_text(f"{self.file.read_text()}\n{text}\n")


@dataclass(frozen=True)
class Row:
    """One broken site.

    what
        What is wrong, in words; the row's name.
    breaks
        Makes it so.
    code
        Exit code of `command`.
    said
        Words that the output has: place, reason, cure.
    command
        As ``config check``, ``doctor`` or ``serve --role ingress``; ``--config`` is added.
    variables
        Of the environment.
    rights
        False: the command runs without what root may do to the files of others and to ports.
    """

    what: str
    breaks: Callable[[Site], object]
    code: int
    said: tuple[str, ...]
    command: str = "config check"
    variables: dict[str, str] = field(default_factory=dict)
    rights: bool = True


def put(old: str, new: str) -> Callable[[Site], None]:
    """A change of gateway.toml."""
    return lambda site: site.put(old, new)


def add(text: str) -> Callable[[Site], None]:
    """An addition to gateway.toml."""
    return lambda site: site.add(text)


def all_rows() -> Iterator[Row]:
    """Every row, as the modules of this package name them."""
    from tests.support.broken import choices, environment, files, words

    for module in (words, choices, files, environment):
        yield from module.ROWS
