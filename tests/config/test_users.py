"""Run as another user, a command says which user to be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.users import run_as
from tests.conftest import missing

REPOSITORY = Path(__file__).parent.parent.parent
# The interpreter may lie where only root can read: all is imported before the process becomes another user's.
AS_NOBODY = """
import os, sys
from gateway import cli
from gateway import audit, preflight, service
from gateway.commands import options
from gateway.config import users
from gateway.flow import operations, selection
import encodings.utf_8_sig, gateway.database.engine, sqlite3, sqlalchemy.dialects.sqlite
os.setegid(65534); os.seteuid(65534)
cli.main()
"""
SITE = '[site]\nstate = "state"\n[keys]\nspool_key = "file:spool.key"\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can look into, as pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_ones_own_file_needs_no_other_user(folder: Path) -> None:
    (folder / "mine").touch()
    assert run_as(folder / "mine") == ""


@pytest.mark.parametrize("where", ["key", "configuration", "state"])
def test_a_command_of_another_user_names_the_right_one(folder: Path, where: str) -> None:
    if os.geteuid() != 0:
        missing("root, who alone can be somebody else")
    (folder / "gateway.toml").write_text(SITE)
    (folder / "spool.key").write_text("00" * 32)
    (folder / "state").mkdir(mode=0o700)
    for name in ("spool.key", "state", "gateway.toml"):
        os.chown(folder / name, 1, 1)  # "daemon" on every Debian
    (folder / "spool.key").chmod(0o600)
    command = ["config", "check"]
    if where == "configuration":
        (folder / "gateway.toml").chmod(0o600)
    if where == "state":
        command = ["queue", "ls"]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *command, "--config", folder / "gateway.toml"],
        capture_output=True, text=True, cwd=folder, timeout=100,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": str(folder), "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "belongs to daemon: run it as sudo -u daemon" in done.stdout + done.stderr, (done.stdout, done.stderr)
    assert "unexpected" not in done.stderr
