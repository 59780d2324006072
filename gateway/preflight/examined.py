"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Examined:
    """One thing that was looked at. unreachable: a peer or the database did not answer, which may heal by itself."""

    area: str
    level: Level
    where: str
    message: str
    hint: str = ""
    unreachable: bool = False
