"""`page user`: who may log in, told of in the audit; `page dashboard`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.accounts import read_accounts
from gateway.web.passwords import is_right
from tests.cli.conftest import REPOSITORY

PASSWORD = "a long enough password"


@pytest.fixture
def paged(sample: Path) -> Path:
    sample.write_text(sample.read_text() + "\n[page]\n")
    (sample.parent / "password").write_text(PASSWORD + "\nanother line\n")
    return sample


def test_users_are_made_shown_and_removed(run, paged: Path) -> None:
    options = ("--config", paged, "--password-file", paged.parent / "password")
    done = run("page", "user", "add", "ops", "--role", "operator", *options)
    assert done.code == 0 and "may act" in done.err, done.err
    assert run("page", "user", "add", "eye", *options).code == 0
    file = paged.parent / "page-users"
    assert file.stat().st_mode & 0o777 == 0o640 and PASSWORD not in file.read_text()
    assert is_right(read_accounts(file)["ops"].password_hash, PASSWORD)
    assert run("page", "user", "ls", "--json", "--config", paged).rows == [
        {"name": "ops", "role": "operator"}, {"name": "eye", "role": "viewer"},
    ]  # fmt: skip
    again = run("page", "user", "add", "ops", *options)
    assert again.code == 2 and "user-exists" in again.err
    before = file.read_text()
    assert run("page", "user", "add", "ops", "--overwrite", *options).code == 0 and file.read_text() != before
    assert read_accounts(file)["ops"].role == "viewer"
    assert run("page", "user", "remove", "eye", "--config", paged).code == 0
    gone = run("page", "user", "remove", "eye", "--config", paged)
    assert gone.code != 0 and "no-such-user" in gone.err
    assert set(read_accounts(file)) == {"ops"}
    audit = (paged.parent / "state" / "audit" / "operator.jsonl").read_text()
    lines = [json.loads(line) for line in audit.splitlines()]
    assert [(line["event"], line["operation"], line["user"], line["role"]) for line in lines] == [
        ("page-user-changed", "add", "ops", "operator"),
        ("page-user-changed", "add", "eye", "viewer"),
        ("page-user-changed", "add", "ops", "viewer"),
        ("page-user-changed", "remove", "eye", "viewer"),
    ]


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [("Ops", PASSWORD, "bad-user"), ("a:b", PASSWORD, "bad-user"), ("ops", "short", "bad-password")],
)
def test_what_cannot_be_a_user_is_told(run, paged: Path, name: str, password: str, code: str) -> None:
    (paged.parent / "password").write_text(password)
    done = run("page", "user", "add", name, "--config", paged, "--password-file", paged.parent / "password")
    assert done.code == 2 and code in done.err and not (paged.parent / "page-users").exists()


def test_without_a_page_it_says_so(run, sample: Path) -> None:
    done = run("page", "user", "ls", "--config", sample)
    assert done.code == 2 and "no-page" in done.err


def test_on_a_terminal_the_password_is_asked_for_twice(paged: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "page", "user", "add", "ops", "--config", str(paged)]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown = b""
    try:
        for word in (b"Password: ", b"Repeat for confirmation: "):
            while word not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, PASSWORD.encode() + b"\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert PASSWORD.encode() not in shown
    assert is_right(read_accounts(paged.parent / "page-users")["ops"].password_hash, PASSWORD)
