"""Patroni by `deploy/patroni/patroni.yml`: a primary is lost with its disk, and its standby has what was confirmed; one
that is cut off, and that nobody tells of its successor, confirms nothing any more.
"""

from __future__ import annotations

import threading
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


@pytest.fixture(scope="module")
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


def test_a_primary_that_is_cut_off_confirms_nothing(databases: Patroni) -> None:
    """Its Patroni hangs, so that it takes writes while another reigns; what it does not know, its commits are told."""
    old = databases.primary
    of_old, engine = (open_database(url, synchronous=True) for url in (databases.url_of(old), databases.url))
    assert why_not(of_old, 201) == ""
    old.hang()
    told: list[str] = []
    with databases.parted(old) as new:
        waiting = threading.Thread(target=lambda: told.append(why_not(of_old, 202)))
        waiting.start()
        those = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        until("it waits for its standby", lambda: old.ask(f"SELECT pid {those}") != [])
        assert old.ask("SELECT pg_is_in_recovery()") == [(False,)]
        old.ask(f"SELECT pg_cancel_backend(pid) {those}")
        waiting.join(60)
        assert told == ["database-unconfirmed"] and {201, 202} <= rows(of_old)  # there, and no success
        of_new = open_database(databases.url_of(new), synchronous=True)
        assert 201 in rows(of_new) and 202 not in rows(of_new)
        assert why_not(of_new, 203) == "database-alone"
        old.stop()  # as a watchdog does; Debian's Patroni 3.0.2, waking up, may take the others' lock for its own
    old.start()
    databases.wait()
    until("it is confirmed again", lambda: why_not(engine, 204) == "", WAIT_S)
    assert rows(engine) & {201, 202, 203, 204} == {201, 204}
    for one in (of_old, of_new, engine):
        one.dispose()
