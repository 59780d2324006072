"""Patroni by `deploy/patroni/patroni.yml`: a primary is lost with its disk, and its standby has what was confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine, select

from gateway.database import ClockRow, open_database, reading, transaction
from gateway.errors import CapacityError
from tests.support.network.namespaces import Network
from tests.support.patroni import Patroni
from tests.support.until import until

pytestmark = [pytest.mark.peers, pytest.mark.full]
WAIT_S = 200.0


@pytest.fixture
def databases() -> Iterator[Patroni]:
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        found = Patroni(network)
        stack.callback(found.close)
        found.wait()
        yield found


def why_not(engine: Engine, number: int) -> str:
    """Write a row; "" when that is confirmed, else the code of the refusal."""
    try:
        with transaction(engine) as session:
            session.merge(ClockRow(id=number, seen_at=0, confirmed=0))
    except CapacityError as error:
        return error.code
    return ""


def rows(engine: Engine) -> set[int]:
    with reading(engine) as session:
        return set(session.scalars(select(ClockRow.id)))


def test_what_was_confirmed_outlives_the_primary(databases: Patroni) -> None:
    engine = open_database(databases.url, synchronous=True)
    assert why_not(engine, 101) == ""
    old = databases.primary
    old.lose()
    assert why_not(engine, 102) != ""  # nobody answers, or nobody may write
    assert databases.primary is not old
    # promoted, it has no standby, and says so at once
    until("the engine finds the new one", lambda: why_not(engine, 103) == "database-alone", WAIT_S)
    assert 101 in rows(engine) and 103 not in rows(engine)

    old.host.plug()
    old.start()
    databases.wait()
    until("it is confirmed again", lambda: why_not(engine, 104) == "", WAIT_S)
    assert {101, 104} <= rows(engine)
    engine.dispose()
