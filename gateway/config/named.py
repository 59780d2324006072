"""The files that a configuration names, and when they were changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway.config.base import Model
from gateway.config.lines import KeyPath
from gateway.config.models import Config
from gateway.config.secret import SecretRef

State = dict[
    str, tuple[int, int, int]
]  # path -> inode, size, time of change (ns); a path that is not there is left out


def named_paths(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Path]]:
    """Every path in a configuration, with the setting that holds it."""
    if isinstance(value, Path):
        yield path, value
    elif isinstance(value, Model):
        for name in type(value).model_fields:
            yield from named_paths(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from named_paths(entry, (*path, index))


def watched(config: Config | None, files: Iterable[Path]) -> State:
    """What a change of the configuration shows in: its own files, and those that it names, as they are now.

    Parameters
    ----------
    files
        The configuration's own, and its folder of parts. Of a folder the files in it count.
    config
        None: these files alone.
    """
    named = [one for setting, one in named_paths(config) if setting != ("site", "state")]
    keys = [one.path for one in secret_references(config) if one.path is not None]
    found: State = {}
    for place in (*files, *named, *keys):
        _note(found, place)
        if os.path.isdir(place):  # as Path.is_dir, but never raises: a folder above it may be closed to this user
            for name in sorted(_names(place)):
                _note(found, place / name)
    return found


def secret_references(value: object) -> Iterator[SecretRef]:
    """Every reference to a secret in a configuration."""
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, Model):
        for name in type(value).model_fields:
            yield from secret_references(getattr(value, name))
    elif isinstance(value, tuple):
        for entry in value:
            yield from secret_references(entry)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _note(found: State, place: Path) -> None:
    try:
        state = os.stat(place)
    except OSError:
        return
    found[str(place)] = (state.st_ino, state.st_size, state.st_mtime_ns)
