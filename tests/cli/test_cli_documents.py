"""Every command that the documents name is one: its words, its options, and how many values they take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gateway.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "deploy").rglob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
PLACEHOLDER = re.compile(r"\.\.\.|[A-Z]")  # `miad-gateway ...`, ROLE


def named(text: str) -> Iterator[str]:
    """Command lines in blocks of commands, and in words between backticks."""
    text = re.sub(r"\\\n\s*", " ", text)  # a line that goes on
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if found := re.search(r"(?:^|[;&|(] ?|until |[A-Z_]+=\S+ )(miad-gateway [^#;&|>)]*)", line):
                yield found[1].strip()
    for words in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)):
        if words.replace("\n", " ").startswith("miad-gateway "):
            yield " ".join(words.split())


def wrong_with(line: str) -> str:
    """What is not so, of a line that names a command; empty where all is."""
    words = shlex.split(line.partition(" #")[0])[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if PLACEHOLDER.search(words[0]) or words[0].startswith("-"):
            return ""
        names = re.split(r"[|,]", words[0])
        if missing := [name for name in names if name not in command.commands]:
            return f"{missing[0]} is no command"
        command, words = command.commands[names[0]], words[1:]
    known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    options = [word.strip("[]").partition("=")[0] for word in words if re.match(r"\[?-", word)]
    unknown = [word for word in options if word not in known and word not in ("--help", "-")]
    return f"no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_is_there(document: Path) -> None:
    lines = list(named(document.read_text("utf-8")))
    wrong = {line: why for line in lines if (why := wrong_with(line))}
    assert wrong == {}
    if document.name == "README.md":
        assert len(lines) >= 15


def test_what_is_not_there_is_found() -> None:
    text = "```sh\nmiad-gateway qeue ls\nmiad-gateway queue ls --sate held\n```\nor `miad-gateway queue list`\n"
    assert [wrong_with(line) for line in named(text)] == [
        "qeue is no command",
        "no option --sate",
        "list is no command",
    ]
