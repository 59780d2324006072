"""Reads the configuration: TOML to `Config`, with every problem told by file, path, line and suggestion.

One file, and the parts in the folder ``conf.d`` beside it (`gateway.config.merge`).
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from gateway.config.base import AnyModel, Model
from gateway.config.lines import KeyPath, format_path
from gateway.config.merge import Doubled, KeyPlaces, merge
from gateway.config.models import Config
from gateway.config.problems import ConfigProblem, InvalidConfigError, explain_errors, shown
from gateway.config.secret import SecretRef
from gateway.config.users import run_as

PARTS = "conf.d"  # the folder with further parts, beside the configuration file
Texts = tuple[tuple[Path, str], ...]  # paths and texts, the configuration file first


def load_config(path: str | Path) -> Config:
    """Read and validate the configuration file at `path`.

    Relative paths and relative ``file:`` references, those of its parts too, are meant against its own folder, and
    absolute in the result. No file that it names is opened and no secret is resolved here: `check_config` looks at
    those.

    Raises
    ------
    InvalidConfigError
        A `ConfigError` that lists every problem; code ``config-missing``, ``config-syntax`` or ``config-invalid``.
    """
    return parse_texts(read_texts(Path(path)))


def parse_config(text: str, file: Path) -> Config:
    """Validate `text`, the content of `file`, by itself (see `load_config`)."""
    return parse_texts(((file, text),))


def read_texts(file: Path) -> Texts:
    """The text of a configuration file, and those of the ``*.toml`` files in its ``conf.d``; raises as `read_text`."""
    folder = file.parent / PARTS
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        problem = ConfigProblem("", None, f"cannot be read: {error.strerror}", run_as(folder))
        raise InvalidConfigError("config-missing", folder, [problem]) from None
    parts = [folder / name for name in names if name.endswith(".toml") and not name.startswith(".")]
    return tuple((one, read_text(one)) for one in (file, *parts))


def parse_texts(texts: Texts) -> Config:
    """Validate what `read_texts` gave (see `load_config`)."""
    table, places = joined(texts)
    file = texts[0][0]
    if dates := [_problem(path, places, file, "must not be a date or time") for path in _find_dates(table, ())]:
        raise InvalidConfigError("config-invalid", file, dates)
    try:
        # JSON is the way to strict types ("11112" is no port, "false" no switch) with lists and paths still welcome.
        config = Config.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise InvalidConfigError("config-invalid", file, explain_errors(error, places, file)) from None
    return make_absolute(config, file.absolute().parent)


def joined(texts: Texts) -> tuple[dict[str, Any], KeyPlaces]:
    """The tables of all texts as one, and where each key stands.

    Raises
    ------
    InvalidConfigError
        ``config-syntax``, or ``config-invalid``: a key stands in two files.
    """
    file = texts[0][0]
    try:
        return merge([(one, text, _parse_toml(text, one)) for one, text in texts])
    except Doubled as error:
        problems = [
            ConfigProblem(
                format_path(path),
                line,
                f"is set already in {first[0].name}, line {first[1]}",
                "a key stands in one file only; lists of tables are joined",
                file=shown(again, file),
            )
            for path, first, (again, line) in error.found
        ]
        raise InvalidConfigError("config-invalid", file, problems) from None


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
        hint = (run_as(file) if isinstance(error, PermissionError) else "") or "name the file with --config"
        problem = ConfigProblem("", None, f"cannot be read: {error.strerror}", hint)
        raise InvalidConfigError("config-missing", file, [problem]) from None
    return decode_text(data, file)


def decode_text(data: bytes, file: Path) -> str:
    """The text of `data`, the bytes of a configuration file (see `read_text`)."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        problem = ConfigProblem("", data[: error.start].count(b"\n") + 1, "is not UTF-8", "save the file as UTF-8")
        raise InvalidConfigError("config-syntax", file, [problem]) from None


def make_absolute(table: AnyModel, folder: Path) -> AnyModel:
    """A copy of a table in which every path and every ``file:`` reference is absolute against `folder`.

    It still knows which of its values were given (`model_fields_set`).
    """
    values = {name: _absolute(getattr(table, name), folder) for name in type(table).model_fields}
    made = type(table).model_construct(set(table.model_fields_set), **values)
    return cast(AnyModel, made)


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


def _problem(path: KeyPath, places: KeyPlaces, file: Path, message: str) -> ConfigProblem:
    place = places.place(path) or (file, None)
    return ConfigProblem(format_path(path), place[1], message, file=shown(place[0], file))


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
            "", line, f"is not TOML: {reason[:1].lower()}{reason[1:]}{column}", _syntax_hint(text, line, reason)
        )
        raise InvalidConfigError("config-syntax", file, [problem]) from None


def _syntax_hint(text: str, line: int, reason: str) -> str:
    """What is most often wrong on such a line."""
    written = text.split("\n")[line - 1]
    if re.fullmatch(r"""\s*[\w.-]+\s*=\s*[^\s\d"'\[{tf+-].*""", written):
        return 'text stands in quotes: key = "text"'
    if re.fullmatch(r"\s*[\w.-]+\s*:.*", written):
        return "a key and its value are joined by =, not by a colon"
    if reason.startswith("Cannot overwrite a value"):
        return "a key stands once in a table"
    if re.match(r"Cannot declare .* twice", reason):
        return "a table stands once: put all of its keys together; [[...]] begins one more entry of a list"
    if written.count('"') % 2 or written.count("'") % 2:
        return "a text ends with the quote that it began with"
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
