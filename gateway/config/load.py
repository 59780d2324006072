"""Reads the one configuration file: TOML to `Config`, with every problem told by path, line and suggestion."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config.base import AnyModel, Model
from gateway.config.lines import KeyLines, format_path
from gateway.config.models import Config
from gateway.config.problems import ConfigProblem, InvalidConfigError, explain_errors
from gateway.config.secret import SecretRef


def load_config(path: str | Path) -> Config:
    """Read and validate the configuration file at `path`.

    Relative paths and relative ``file:`` references in it are meant against its own folder, and absolute in the
    result. No file that it names is opened and no secret is resolved here: `check_config` looks at those.

    Raises
    ------
    InvalidConfigError
        A `ConfigError` that lists every problem; code ``config-missing``, ``config-syntax`` or ``config-invalid``.
    """
    file = Path(path)
    return parse_config(read_text(file), file)


def parse_config(text: str, file: Path) -> Config:
    """Validate `text`, the content of `file` (see `load_config`)."""
    table = _parse_toml(text, file)
    lines = KeyLines(text)
    dates = [ConfigProblem(format_path(p), lines.line(p), "must not be a date or time") for p in _find_dates(table, ())]
    if dates:
        raise InvalidConfigError("config-invalid", file, dates)
    try:
        # JSON is the way to strict types ("11112" is no port, "false" no switch) with lists and paths still welcome.
        config = Config.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise InvalidConfigError("config-invalid", file, explain_errors(error, lines)) from None
    return make_absolute(config, file.absolute().parent)


def read_text(file: Path) -> str:
    """The text of a configuration file, with ``\\n`` line ends and without a byte order mark.

    Raises
    ------
    InvalidConfigError
        Codes ``config-missing`` (cannot be read) and ``config-syntax`` (not UTF-8).
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        problem = ConfigProblem("", None, f"cannot be read: {error.strerror}", "name the file with --config")
        raise InvalidConfigError("config-missing", file, [problem]) from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        problem = ConfigProblem("", data[: error.start].count(b"\n") + 1, "is not UTF-8", "save the file as UTF-8")
        raise InvalidConfigError("config-syntax", file, [problem]) from None


def make_absolute(table: AnyModel, folder: Path) -> AnyModel:
    """A copy of a table in which every path and every ``file:`` reference is absolute against `folder`."""
    return table.model_copy(update={name: _absolute(getattr(table, name), folder) for name in type(table).model_fields})


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, Model):
        return make_absolute(value, folder)
    if isinstance(value, tuple):
        return tuple(_absolute(entry, folder) for entry in value)
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, SecretRef):
        return value.against(folder)
    return value


def _parse_toml(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        column = f" at column {place[2]}" if place and place[2] else ""
        reason = message[: place.start()] if place else message
        problem = ConfigProblem(
            "", line, f"is not TOML: {reason[:1].lower()}{reason[1:]}{column}", _syntax_hint(text, line)
        )
        raise InvalidConfigError("config-syntax", file, [problem]) from None


def _syntax_hint(text: str, line: int) -> str:
    """What is most often wrong on such a line."""
    written = text.split("\n")[line - 1]
    if re.fullmatch(r"""\s*[\w.-]+\s*=\s*[^\s\d"'\[{tf+-].*""", written):
        return 'text stands in quotes: key = "text"'
    if re.fullmatch(r"\s*[\w.-]+\s*:.*", written):
        return "a key and its value are joined by =, not by a colon"
    return ""


def _find_dates(value: Any, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
    """Paths of TOML dates and times where no key wants one: JSON has none, and as text they would pass for a name."""
    if path[-2:] == ("break_glass", "until"):
        return []
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _find_dates(inner, (*path, key))]
    if isinstance(value, list):
        return [found for index, inner in enumerate(value) for found in _find_dates(inner, (*path, index))]
    return [] if isinstance(value, str | int | float) else [path]
