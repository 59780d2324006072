"""What is wrong with a configuration file, said in its own terms: path, line, suggestion."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.base import Disagreement, Model
from gateway.config.finding import Finding
from gateway.config.lines import KeyPath, format_path
from gateway.config.merge import KeyPlaces
from gateway.config.models import Config
from gateway.errors import ConfigError


@dataclass(frozen=True)
class ConfigProblem:
    """One thing to correct.

    `path` is as in ``routes[0].destnation`` (empty: the file as a whole), `line` counts from 1 and is None when the
    text has no such place. `file` is the part that it stands in (``conf.d/ct.toml``), empty for the file itself.
    """

    path: str
    line: int | None
    message: str
    suggestion: str = ""
    file: str = ""

    def __str__(self) -> str:
        parts = (self.file, f"line {self.line}" if self.line else "", self.path)
        where = ", ".join(part for part in parts if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.suggestion})" if self.suggestion else text


class InvalidConfigError(ConfigError):
    """A configuration file that cannot be used. `problems` lists everything found, in the order of the lines.

    Codes: ``config-missing``, ``config-syntax``, ``config-invalid``.
    """

    def __init__(self, code: str, file: Path, problems: list[ConfigProblem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line or 0)))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(code, f"{file}: {count}\n{listed}")


def shown(place: Path, file: Path) -> str:
    """How a problem names the file it stands in: empty for the configuration file, else its folder and name."""
    return "" if place == file else f"{place.parent.name}/{place.name}"


def in_words(finding: Finding, places: KeyPlaces, file: Path) -> str:
    """A finding as a line for a person: which part of the configuration and line it speaks of, what, and what to do.

    `file` is the configuration file, which is not named again; a value that nobody wrote has no line.
    """
    stands, line = places.place(finding.path) or (file, None)
    return str(ConfigProblem(finding.where, line, finding.message, finding.hint, shown(stands, file)))


def explain_errors(error: ValidationError, places: KeyPlaces, file: Path) -> list[ConfigProblem]:
    """Every problem behind a pydantic error of `Config`, with its place in the texts."""
    details = error.errors()
    paths = [detail["loc"] for detail in details]
    problems = []
    for detail in details:
        if detail["type"] == "too_short" and any(_is_below(place, detail["loc"]) for place in paths):
            continue  # it is short only because a wrong entry was left out, and that one is told of already
        for path, message, suggestion in _explain(detail):
            found, line = places.place(path) or (file, None)
            problems.append(ConfigProblem(format_path(path), line, message, suggestion, shown(found, file)))
    return problems


def _is_below(path: KeyPath, other: KeyPath) -> bool:
    return len(path) > len(other) and path[: len(other)] == other


def _explain(detail: ErrorDetails) -> Iterator[tuple[KeyPath, str, str]]:
    """Path, message and suggestion; values are shown only where they cannot be secrets."""
    path, kind = detail["loc"], detail["type"]
    context, value = detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        yield path, "unknown key", _suggest_key(path)
    elif kind == "missing":
        yield path, "is missing", ""
    elif kind == "literal_error":
        close = get_close_matches(str(value), context["expected"].replace("'", "").replace(" or ", ", ").split(", "), 1)
        yield path, f"must be {context['expected']}", f"did you mean '{close[0]}'?" if close else ""
    elif kind == "value_error" and isinstance(context["error"], Disagreement):
        for below, message in context["error"].problems:
            yield (*path, *below), message, ""
    elif kind == "value_error":
        yield path, str(context["error"]), ""
    elif kind in _WANTED_TYPES:
        wanted, example = _WANTED_TYPES[kind]
        if kind == "tuple_type" and isinstance(value, dict):
            example = f"[[{path[-1]}]]: two brackets begin an entry of a list"
        yield path, f"must be {wanted}", f"written as {example}"
    elif kind in ("too_short", "string_too_short"):
        yield path, f"must have at least {_counted(context['min_length'], kind)}", ""
    elif kind == "string_too_long":
        yield path, f"must have at most {_counted(context['max_length'], kind)}", ""
    else:
        yield path, detail["msg"].replace("Input should be", "must be"), ""


_WANTED_TYPES = {
    "int_type": ("a whole number", "11112, without quotes"),
    "int_from_float": ("a whole number", "11112, without a fraction"),
    "float_type": ("a number", "2.5, without quotes"),
    "bool_type": ("true or false", "true, without quotes"),
    "string_type": ("text", '"text", in quotes'),
    "tuple_type": ("a list", '["first", "second"]'),
    "model_type": ("a table", "[table] with its keys on the lines below"),
    "model_attributes_type": ("a table", "[table] with its keys on the lines below"),
}


def _counted(number: int, kind: str) -> str:
    noun = "character" if kind.startswith("string") else ("entry" if number == 1 else "entries")
    return f"{number} {noun}" + ("s" if noun == "character" and number != 1 else "")


def _suggest_key(path: KeyPath) -> str:
    """A key of the same table that looks like it, else the table where this key is known, else what is known here."""
    table = _model_at(path[:-1])
    wrong, known = str(path[-1]), list(table.model_fields)
    if close := get_close_matches(wrong, known, 1):
        return f"did you mean {close[0]}?"
    if homes := [name for name, model in _tables(Config, "") if wrong in model.model_fields]:
        return f"{wrong} belongs into [{homes[0]}]" if len(homes) == 1 else f"known in {', '.join(homes)}"
    return f"known here: {', '.join(known)}"


def _model_at(path: KeyPath) -> type[Model]:
    """The model that validates the table at `path`, an existing one since pydantic reported from inside it."""
    model: type[Model] = Config
    for part in path:
        if isinstance(part, str):
            found = _model_in(model.model_fields[part].annotation)
            assert found  # a path of pydantic's leads through tables only
            model = found
    return model


def _model_in(annotation: object) -> type[Model] | None:
    """The table model within ``Tls``, ``Tls | None`` or ``tuple[Route, ...]``; None when there is none."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, Model)
    ):
        return annotation
    found = (_model_in(inner) for inner in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def _tables(model: type[Model], prefix: str) -> Iterator[tuple[str, type[Model]]]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            yield prefix + name, inner
            yield from _tables(inner, f"{prefix}{name}.")
