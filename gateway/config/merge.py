"""Several TOML texts as one configuration: the file first, then the parts in its folder `conf.d`, by name.

Tables are joined, lists of tables are appended, and a key that stands in two files is an error that names both places:
which of two values would count is nobody's to guess. Where a key stands is kept, with the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.config.lines import KeyLines, KeyPath

Place = tuple[Path, int]
_COPY = object()  # where nothing stood yet


class KeyPlaces:
    """Where each key of the joined table stands: file and line (lines count from 1)."""

    def __init__(self, places: Mapping[KeyPath, Place]) -> None:
        self._places = dict(places)

    def place(self, path: KeyPath) -> Place | None:
        """File and line of the key at `path`; of the nearest table around it when it is not written out; else None."""
        for length in range(len(path), 0, -1):
            if (found := self._places.get(path[:length])) is not None:
                return found
        return None

    def written(self, path: KeyPath) -> Place | None:
        """File and line of the key at `path` itself, None where nobody wrote it."""
        return self._places.get(path)

    def line(self, path: KeyPath) -> int | None:
        """The line of `place`."""
        found = self.place(path)
        return found[1] if found else None


class Doubled(ValueError):
    """Keys that stand in two files: each with its first place and the one that is too many."""

    def __init__(self, found: Sequence[tuple[KeyPath, Place, Place]]) -> None:
        super().__init__("keys are set twice")
        self.found = tuple(found)


def merge(parts: Sequence[tuple[Path, str, dict[str, Any]]]) -> tuple[dict[str, Any], KeyPlaces]:
    """Join the tables of several files, each given with its text.

    Raises
    ------
    Doubled
        A key stands in two of them.
    """
    table: dict[str, Any] = {}
    places: dict[KeyPath, Place] = {}
    doubled: list[tuple[KeyPath, Place, Place]] = []
    for file, text, part in parts:
        lines, offsets = KeyLines(text), dict[KeyPath, int]()
        for path in _join(table, part, (), offsets):
            found = KeyPlaces(places).place(path)
            doubled.append((path, found or (file, 0), (file, lines.line(path) or 0)))
        for path, line in lines.as_mapping().items():
            places.setdefault(_moved(path, offsets), (file, line))
    if doubled:
        raise Doubled(doubled)
    return table, KeyPlaces(places)


def _join(table: dict[str, Any], part: Mapping[str, Any], here: KeyPath, offsets: dict[KeyPath, int]) -> list[KeyPath]:
    """Put `part` into `table`; returns the keys that were there already."""
    doubled: list[KeyPath] = []
    for key, value in part.items():
        path = (*here, key)
        known: Any = table.setdefault(key, _COPY)
        if known is _COPY:
            table[key] = _copied(value)
        elif isinstance(known, dict) and isinstance(value, dict):
            doubled += _join(known, value, path, offsets)
        elif _holds_tables(known) and _holds_tables(value):
            offsets[path] = len(known)
            known.extend(value)
        else:
            doubled.append(path)
    return doubled


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _moved(path: KeyPath, offsets: Mapping[KeyPath, int]) -> KeyPath:
    """The path in the joined table of what a part calls `path`."""
    moved: KeyPath = ()
    for part in path:
        moved = (*moved, part + offsets.get(moved, 0) if isinstance(part, int) else part)
    return moved
