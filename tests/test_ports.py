"""What tests share to be reliable: ports that are given once, and waiting that says what did not come."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
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
