"""The configuration as the page shows it: each value, whether the file or a default gave it, and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.config import Config, SecretRef, format_path
from gateway.config.base import Model
from gateway.config.lines import KeyPath
from gateway.database.reach import parse_url
from gateway.errors import ConfigError

MASK = "••••"
_URLS = {"url", "database_url"}


@dataclass(frozen=True)
class Setting:
    """One value of the configuration, as text."""

    path: str
    value: str
    source: Literal["file", "default"]


def settings_of(config: Config) -> list[Setting]:
    """Every value, in the order of the sample configuration."""
    return list(_walk(config, (), "file"))


def masked_url(url: str) -> str:
    """A database's URL down to its kind, host and name: users, passwords and options are left out."""
    try:
        parts = parse_url(url)
    except ConfigError:
        return MASK
    if parts.get_backend_name() == "sqlite":
        return f"sqlite:{parts.database or ''}"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.drivername}://{MASK}@{parts.host or 'localhost'}{port}/{parts.database or ''}"


def _walk(table: Model, path: KeyPath, source: Literal["file", "default"]) -> Iterator[Setting]:
    for name in type(table).model_fields:
        value = getattr(table, name)
        here = (*path, name)
        given: Literal["file", "default"] = "file" if source == "file" and name in table.model_fields_set else "default"
        if isinstance(value, Model):
            yield from _walk(value, here, given)
        elif isinstance(value, tuple) and value and isinstance(value[0], Model):
            for index, entry in enumerate(value):
                yield from _walk(entry, (*here, index), given)
        else:
            yield Setting(format_path(here), _text(name, value), given)


def _text(name: str, value: object) -> str:
    if isinstance(value, SecretRef):
        return f"{value.partition(':')[0]}:{MASK}"
    if isinstance(value, tuple):
        return ", ".join(_text(name, entry) for entry in value)
    if name in _URLS and isinstance(value, str) and value:
        return masked_url(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
