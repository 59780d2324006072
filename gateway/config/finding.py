"""What `config check` has to say of one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.config.lines import KeyPath, format_path


@dataclass(frozen=True)
class Finding:
    """Something seen at `path`: an error keeps a role from working, a warning is a choice to know of.

    keeps_from_starting: of an error; False where the role starts all the same and does not do this one thing.
    """

    level: Literal["error", "warning"]
    path: KeyPath
    message: str
    hint: str = ""
    keeps_from_starting: bool = True

    @property
    def where(self) -> str:
        """The path as text, e.g. ``restore.workstations[0].plain``."""
        return format_path(self.path)
