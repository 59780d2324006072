"""How commands speak: results on standard output (text or one JSON object a line), all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.errors import GatewayError

# Paths and reasons are shown as they are: no markup in them, no line broken inside of them.
messages = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """A message for the person at the terminal."""
    messages.print(text)


def show_text(text: str) -> None:
    """A line of the result itself."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_json(row: Any) -> None:
    """One result as one line of JSON: a mapping or a dataclass; paths as text, enums by value."""
    table = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
    show_text(json.dumps(table, default=_plain, ensure_ascii=False))


def show_table(columns: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their longest cell; readable on any terminal and in a pipe."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        show_text("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_facts(facts: Mapping[str, Any]) -> None:
    """A mapping, one fact a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        show_text(f"{name.replace('_', ' ').ljust(width)}  {text}")


def show_error(error: GatewayError) -> None:
    """What went wrong and where, what to do, and the stable code: never a traceback."""
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")
    say(f"code: {error.code}")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # a number or an array of numpy, which is not imported for this
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")
