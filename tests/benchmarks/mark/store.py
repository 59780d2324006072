"""Finished cells, kept as they are made: one JSON line each, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Cell = dict[str, object]
"""JSON-able: what was measured (the identity) and what came out."""


def digest(what: object) -> str:
    """Return 16 hexadecimal digits that depend on a JSON-able value and on nothing else."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class CellStore:
    """Cells by identity, in a file that is only ever added to.

    Parameters
    ----------
    path
        JSON lines; made when it is not there. A last line that was cut off is dropped.

    Raises
    ------
    ValueError
        a line in the middle is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, Cell] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8") if path.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:
            path.write_text(whole + "\n" if whole else "", "utf-8")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                cell = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number}: not JSON; delete the line and run again") from error
            self._cells[digest(cell["id"])] = cell

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def get(self, identity: Mapping[str, object]) -> Cell | None:
        """Return the cell of this identity, or None."""
        return self._cells.get(digest(dict(identity)))

    def once(self, identity: Mapping[str, object], make: Callable[[], Mapping[str, object]]) -> Cell:
        """Return the cell of this identity; when there is none, make it and write it down."""
        found = self.get(identity)
        if found is None:
            found = {"id": dict(identity), **make()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            self._cells[digest(found["id"])] = found
        return found
