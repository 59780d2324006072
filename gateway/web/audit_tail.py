"""The newest lines of the audit, of all roles whose files this user may read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.audit import EVENTS, FIELDS

TAIL_BYTES = 262_144  # of each file: some hundred lines
_ALWAYS = ("time", "event", "outcome")


@dataclass(frozen=True)
class Tail:
    """Lines, the newest first, each a mapping of the audit's own fields; and the roles whose files cannot be read."""

    lines: tuple[Mapping[str, Any], ...]
    closed: tuple[str, ...]


def tail(files: Mapping[str, Path], limit: int = 50, only: Collection[str] = (), most_bytes: int = TAIL_BYTES) -> Tail:
    """The newest `limit` lines, of these events or of all; what is no field of the audit is left out.

    most_bytes: of the end of each file that are read.
    """
    lines: list[dict[str, Any]] = []
    closed = []
    for role, path in files.items():
        try:
            data = _end_of(path, most_bytes)
        except FileNotFoundError:
            continue
        except OSError:
            closed.append(role)
            continue
        wanted = data.splitlines()
        if only:  # thousands of lines of a busy site are not read for the few that are asked for
            words = [event.encode() for event in only]
            wanted = [line for line in wanted if any(word in line for word in words)]
        lines += [{"log": role, **line} for line in map(_read, wanted) if line]
    if only:
        lines = [line for line in lines if line["event"] in only]
    lines.sort(key=lambda line: line["time"])
    lines.reverse()  # of lines of one millisecond the later in its file is the newer
    return Tail(tuple(lines[:limit]), tuple(closed))


def _end_of(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        data = file.read(most)
    return data if size <= most else data.partition(b"\n")[2]


def _read(data: bytes) -> dict[str, Any] | None:
    """A line as `AuditLog` wrote it; None for what is torn, or is no line of it."""
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in _ALWAYS):
        return None
    if line["event"] not in EVENTS:
        return None
    return {name: _told(value) for name, value in line.items() if name in _ALWAYS or name in FIELDS}


def _told(value: Any) -> Any:
    """A value as `AuditLog` writes them; of any other kind (a role that was taken over wrote it) only that it is."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [_told(one) for one in value]
    if isinstance(value, dict) and all(isinstance(one, int) for one in value.values()):
        return {_told(name): one for name, one in value.items()}
    return "(malformed)"
