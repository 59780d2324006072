"""What tests share to be reliable: ports given once, waiting that says what did not come, and what must be there."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, needed
from tests.support.ports import free_port
from tests.support.until import until


def test_two_processes_of_tests_are_given_different_ports() -> None:
    ours = [free_port() for _ in range(20)]
    code = "from tests.support.ports import free_port; print(*(free_port() for _ in range(20)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    theirs = [int(word) for word in told.stdout.split()]
    assert len({*ours, *theirs}) == 40


def test_a_port_that_is_listened_on_is_not_given() -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first + 1)):
        assert free_port() > first + 1


def test_waiting_says_what_did_not_come() -> None:
    until("it is so", lambda: True, 0.0)
    with pytest.raises(AssertionError, match="and not: it rains"):
        until("it rains", lambda: False, 0.05)


def test_a_package_that_is_not_there_fails_where_ci_promises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="the package of no_such_package is missing"):
        needed("no_such_package")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception) as caught:
        needed("no_such_package")
    assert caught.value.allow_module_level  # a whole file may need it
    assert needed("socket") is socket


def test_only_the_fuzzer_is_skipped_for_want_of_its_package() -> None:
    """It is no part of the suite; any other package that CI lost would take its tests along without a word."""
    tests = (REPOSITORY / "tests").rglob("*.py")
    silent = [path.parent.name for path in tests if "pytest." + "importorskip" in path.read_text("utf-8")]
    assert set(silent) <= {"fuzz"}
