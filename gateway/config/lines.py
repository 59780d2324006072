"""Where a key stands in a TOML text: `tomllib` gives values without lines, people need the line.

The text must be valid TOML (`tomllib` has read it), so this scanner only finds keys and never judges syntax.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r""" "(?:\\.|[^"\\\n])*" | '[^'\n]*' """, re.VERBOSE)
_STRING = re.compile(
    r'''  """ (?:\\.|[^\\])*? """ "{0,2}      # multi-line basic: up to two quotes may stand before the closing three
        | \'\'\' .*? \'\'\' '{0,2}          # multi-line literal
        | " (?:\\.|[^"\\\n])* "
        | ' [^'\n]* '
    ''',
    re.VERBOSE | re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


class KeyLines:
    """The lines of all keys of one TOML text.

    Parameters
    ----------
    text
        Valid TOML. Lines count from 1.
    """

    def __init__(self, text: str) -> None:
        self._lines = _Scanner(text).scan()

    def line(self, path: KeyPath) -> int | None:
        """Line of the key at `path`; of the nearest table around it when it is not written in the text; else None."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return None

    def as_mapping(self) -> Mapping[KeyPath, int]:
        """All paths that the text writes out, tables and array entries included, with their lines."""
        return dict(self._lines)


def format_path(path: KeyPath) -> str:
    """`("routes", 0, "called_ae")` as ``routes[0].called_ae``; an empty path is the whole file."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{key}" if text else key
    return text


class _Scanner:
    """One walk over a text. `at` is the offset of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[KeyPath, int] = {}
        self.implied: set[KeyPath] = set()  # parents that stand in the text only as a part of a longer key
        self.entries: dict[KeyPath, int] = {}  # arrays of tables: how many [[entries]] so far

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_GAP) < len(self.text):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)
        return self.lines

    def _header(self) -> KeyPath:
        start, is_entry = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if is_entry else 1
        keys = self._keys()
        self.at += 2 if is_entry else 1
        table: KeyPath
        if is_entry:
            array: KeyPath = (*self._in_newest_entries(keys[:-1]), keys[-1])
            table = (*array, self.entries.get(array, 0))
            self.entries[array] = self.entries.get(array, 0) + 1
        else:
            table = self._in_newest_entries(keys)
        self._note(table, start)
        return table

    def _in_newest_entries(self, keys: list[str]) -> KeyPath:
        """`[routes.mark]` belongs to the newest `[[routes]]` above it."""
        table: KeyPath = ()
        for key in keys:
            table = (*table, key)
            if table in self.entries:
                table = (*table, self.entries[table] - 1)
        return table

    def _pair(self, table: KeyPath) -> None:
        start = self.at
        path = (*table, *self._keys())
        self._note(path, start)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening in "\"'":
            self._skip(_STRING)
        elif opening in "[{":
            self._list(path, opening)
        else:
            self._skip(_SCALAR)

    def _list(self, path: KeyPath, opening: str) -> None:
        """An array or an inline table, up to and with its closing bracket."""
        self.at += 1
        closing, index = "]" if opening == "[" else "}", 0
        while self.text[self._skip(_GAP)] != closing:
            if opening == "[":
                self._note((*path, index), self.at)
                self._value((*path, index))
                index += 1
            else:
                self._pair(path)
            if self.text[self._skip(_GAP)] == ",":
                self.at += 1
        self.at += 1

    def _keys(self) -> list[str]:
        """A dotted key, and the blanks behind it."""
        keys = []
        while True:
            self._skip(_BLANK)
            quoted = _QUOTED.match(self.text, self.at) if self.text[self.at] in "\"'" else None
            token = quoted or _BARE_KEY.match(self.text, self.at)
            assert token  # the text is valid TOML
            self.at = token.end()
            keys.append(tomllib.loads(f"key = {token[0]}")["key"] if quoted else token[0])
            if self.text[self._skip(_BLANK)] != ".":
                return keys
            self.at += 1

    def _note(self, path: KeyPath, offset: int) -> None:
        line = bisect_right(self.starts, offset)
        if path not in self.lines or path in self.implied:
            self.lines[path] = line
            self.implied.discard(path)
        for length in range(1, len(path)):
            if path[:length] not in self.lines:
                self.lines[path[:length]] = line
                self.implied.add(path[:length])

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        assert found  # patterns of what may be skipped match the empty text too
        self.at = found.end()
        return self.at
