"""Locks over processes: held by one, given back at the end of a block and of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import Engine, text

from gateway.database import Alone
from gateway.errors import CapacityError
from tests.flow.conftest import engine
from tests.support import postgresql

__all__ = ["engine"]

HOLDS = """
import sys
from sqlalchemy import create_engine
from gateway.database.alone import Alone
with Alone(create_engine(sys.argv[1])).hold("name", 1):
    print("held", flush=True)
    sys.stdin.read()
"""


def is_free(engine: Engine, name: str = "name") -> bool:
    other = Alone(engine)
    try:
        with other.hold(name, 0):
            return True
    except CapacityError as error:
        assert error.code == "busy-elsewhere"
        return False
    finally:
        other.close()


def test_a_name_is_held_by_one_and_given_back(engine: Engine) -> None:
    one = Alone(engine)
    with one.hold("name", 1):
        assert not is_free(engine) and is_free(engine, "another")
    assert is_free(engine)
    with pytest.raises(ZeroDivisionError), one.hold("name", 1):
        raise ZeroDivisionError
    assert is_free(engine)
    one.close()


def test_it_ends_with_its_process(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert not is_free(engine)
    holder.kill()
    holder.communicate()
    other = Alone(engine)
    with other.hold("name", 30):  # a server sees the end of a connection a moment later
        pass
    other.close()


def _backend(one: Alone) -> int:
    assert one._session is not None
    return one._session.scalar(text("SELECT pg_backend_pid()"))


@pytest.mark.parametrize("engine", postgresql.VERSIONS, indirect=True)
def test_a_session_that_the_server_ended_is_made_anew(engine: Engine) -> None:
    one = Alone(engine)
    with one.hold("name", 1), engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process)"), {"process": _backend(one)})
    with one.hold("name", 1):
        assert not is_free(engine)
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:process)"), {"process": _backend(one)})
        with one.hold("another", 1):
            assert not is_free(engine, "another")
    one.close()
