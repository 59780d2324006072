"""The command itself: help, versions, exit codes, and how errors look."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__
from gateway.commands.exits import MEANING, ExitCode, exit_code_of, exit_code_of_outcomes
from gateway.errors import (
    CapacityError,
    ConfigError,
    DicomError,
    GatewayError,
    IntegrityError,
    MarkError,
    NotFoundError,
    PermanentError,
    SealError,
    TransientError,
)

COMMANDS = {
    "serve", "protect", "restore", "mark", "demo", "config check", "explain", "echo", "queue ls", "queue hold",
    "queue release", "queue replay", "vault verify", "vault backup", "vault recover", "keys make", "keys prove",
    "report",
}  # fmt: skip


def test_the_codes_are_what_scripts_rely_on() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "HELD": 3, "UNREACHABLE": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError, 2), (NotFoundError, 2), (MarkError, 3), (DicomError, 3), (TransientError, 4), (PermanentError, 4),
        (SealError, 1), (IntegrityError, 1), (CapacityError, 1), (GatewayError, 1),
    ],
)  # fmt: skip
def test_every_kind_of_error_has_its_code(error: type[GatewayError], code: int) -> None:
    assert exit_code_of(error("code", "message")) == code


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["marked", "restored"], 0), ([], 0), (["marked", "held"], 3), (["refused"], 3), (["failed"], 1),
        (["held", "failed", "marked"], 1),
    ],
)  # fmt: skip
def test_the_worst_outcome_decides(outcomes: list[str], code: int) -> None:
    assert exit_code_of_outcomes(outcomes) == code


def test_help_names_every_command_and_documents_every_exit_code(run) -> None:
    done = run("--help")
    assert done.code == 0
    words = " ".join(done.out.split())
    for code in ExitCode:
        assert f"{code.value} {MEANING[code]}" in words
    for command in {command.split()[0] for command in COMMANDS}:
        assert f" {command} " in words


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage:" in done.out


def processor_seconds(*arguments: str) -> float:
    """Return what Python takes of the processor with these, best of three: other work is not the command's fault."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_help_takes_little_more_than_the_libraries_that_it_is_made_of() -> None:
    """Three times as long at most: an import of pydicom or torch takes more."""
    libraries = processor_seconds("-c", "import pydantic, typer, rich.console")
    assert processor_seconds("-m", "gateway.cli", "--help") < 3 * libraries


def test_version(run) -> None:
    assert run("--version").out == f"miad-gateway {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["no-such-command"], ["serve"], ["protect"], ["protect", "/no/such/file", "--out", "x"], ["mark", "--seed"],
        ["queue"], ["serve", "--role", "nobody", "--config", "x"],
    ],
)  # fmt: skip
def test_wrong_usage_is_code_2_and_says_so_on_standard_error(run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.out + done.err
    assert bool(done.err) or arguments in ([], ["queue"])  # help on standard output when nothing was asked for


def test_an_error_of_ours_shows_what_where_and_hint(run, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "uid.key").write_text("x")
    done = run("keys", "make", "keys")
    assert done.code == 2
    assert done.out == ""
    what, hint, code = done.err.splitlines()
    assert what.startswith("error: keys has keys already: uid.key")
    assert hint.startswith("hint: ")
    assert code == "code: keys-exist"
    assert (tmp_path / "keys" / "uid.key").read_text() == "x"


def test_an_unexpected_error_shows_type_and_place_but_never_its_text(run, tmp_path: Path) -> None:
    """A text of a foreign library may quote a patient's data (promise 7); sitecustomize plants such an error."""
    (tmp_path / "sitecustomize.py").write_text(
        "import gateway.keys.generate as g\n"
        "def broken(*_, **__):\n    raise ValueError('Doe^Jane')\n"
        "g.make_keys = broken\n"
    )
    path = f"{tmp_path}:{Path(__file__).parent.parent.parent}"
    done = run("keys", "make", "k", PYTHONPATH=path)
    assert done.code == 1
    assert "unexpected ValueError" in done.err
    assert "sitecustomize.py:3" in done.err
    assert "Doe" not in done.err
    assert "Traceback" not in done.err
    debugged = run("keys", "make", "k", PYTHONPATH=path, MIAD_GATEWAY_DEBUG="1")
    assert debugged.code == 1
    assert "ValueError: Doe^Jane" in debugged.err
