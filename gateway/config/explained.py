"""The configuration value by value: what is in force, where it comes from, and in what two configurations differ."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.config.base import Model
from gateway.config.lines import KeyPath, format_path
from gateway.config.models import Config
from gateway.config.source import Source

MASK = "(masked)"
_OF_PROFILE = {"without_air", "steps", "surrogates"}  # of a route's mark: unset, the kind of image decides


@dataclass(frozen=True)
class Value:
    """One value in force.

    origin: ``file`` (then `file` and `line` say where), ``default``, or ``profile``: the modality profile of each image
    decides.
    """

    path: str
    value: str
    origin: Literal["file", "default", "profile"]
    file: Path | None = None
    line: int | None = None


@dataclass(frozen=True)
class Difference:
    """A value that differs; None on the side where the table or entry is not there."""

    path: str
    before: str | None
    after: str | None


def explained(source: Source) -> list[Value]:
    """Every value, in the order of the sample configuration; passwords masked.

    Raises
    ------
    InvalidConfigError
        The configuration cannot be used.
    """
    config, places = source.parse(), source.places
    found = []
    for path, value in _values(config, ()):
        place = places.written(path)
        if place is not None:
            found.append(Value(format_path(path), _shown(value), "file", *place))
        elif len(path) > 1 and path[-2] == "mark" and path[-1] in _OF_PROFILE and not value:
            found.append(Value(format_path(path), "", "profile"))
        else:
            found.append(Value(format_path(path), _shown(value), "default"))
    return found


def differences(before: Config, after: Config) -> list[Difference]:
    """Values that differ, entries of lists matched by their names; of secrets only that they differ."""
    old, new = dict(_named(before, "")), dict(_named(after, ""))
    found = []
    for path in dict.fromkeys([*old, *new]):
        if path in old and path in new and old[path] == new[path]:
            continue
        texts = [_shown(side[path]) if path in side else None for side in (old, new)]
        if texts[0] == texts[1]:
            texts[1] = f"{texts[1]} (differs)"
        found.append(Difference(path, texts[0], texts[1]))
    return found


def _values(table: Model, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for name in type(table).model_fields:
        value, here = getattr(table, name), (*path, name)
        if isinstance(value, Model):
            yield from _values(value, here)
        elif _holds_tables(value):
            for index, entry in enumerate(value):
                yield from _values(entry, (*here, index))
        else:
            yield here, value


def _named(table: Model, path: str) -> Iterator[tuple[str, Any]]:
    """As `_values`, with the names of entries instead of their numbers."""
    for name in type(table).model_fields:
        value, here = getattr(table, name), f"{path}.{name}" if path else name
        if isinstance(value, Model):
            yield from _named(value, here)
        elif _holds_tables(value):
            names = [getattr(entry, "name", None) or getattr(entry, "ae_title", None) for entry in value]
            for index, (entry, own) in enumerate(zip(value, names, strict=True)):
                key = own if own is not None and names.count(own) == 1 else str(index)
                yield from _named(entry, f"{here}[{key}]")
        else:
            yield here, value


def _holds_tables(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Model)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    text = str(value)
    return _masked(text) if "://" in text else text


def _masked(url: str) -> str:
    """A URL without what may be secret in it: user, password, options."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    user = f"{MASK}@" if "@" in parts.netloc else ""
    options = f"?{MASK}" if parts.query or parts.fragment else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}{options}"
