"""A configuration as it was read at one moment: the texts of its file and of the parts in its folder ``conf.d``.

What is checked, shared between roles, compared and swapped is always one such reading, whatever becomes of the files
meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gateway.config.load import joined, parse_texts, read_texts
from gateway.config.merge import KeyPlaces
from gateway.config.models import Config


@dataclass(frozen=True)
class Source:
    """Paths and texts, the file itself first."""

    texts: tuple[tuple[Path, str], ...]

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """Read the file at `path` and the parts beside it.

        Raises
        ------
        InvalidConfigError
            Codes ``config-missing`` and ``config-syntax``: one of them cannot be read.
        """
        return cls(read_texts(Path(path)))

    @classmethod
    def of_texts(cls, texts: Iterable[tuple[str, str]]) -> Source:
        """What another process has read: its `as_texts`."""
        return cls(tuple((Path(path), text) for path, text in texts))

    def as_texts(self) -> list[tuple[str, str]]:
        """Paths and texts, for another process; paths are absolute."""
        return [(str(path.absolute()), text) for path, text in self.texts]

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.texts[0][0]

    @property
    def digest(self) -> str:
        """SHA-256 of what was read; without parts that of the text alone."""
        digest = hashlib.sha256(self.texts[0][1].encode())
        for path, text in self.texts[1:]:
            digest.update(b"\0" + path.name.encode() + b"\0" + text.encode())
        return digest.hexdigest()

    def parse(self) -> Config:
        """The validated configuration; see `load_config`."""
        return parse_texts(self.texts)

    @cached_property
    def _joined(self) -> tuple[dict[str, Any], KeyPlaces]:
        return joined(self.texts)

    @property
    def table(self) -> dict[str, Any]:
        """What is written, joined, before it is validated."""
        return self._joined[0]

    @property
    def places(self) -> KeyPlaces:
        """Where each key stands."""
        return self._joined[1]
