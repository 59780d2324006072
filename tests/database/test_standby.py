"""Durability `cluster` on a real PostgreSQL with a real standby: what its standby has not confirmed is no success."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text

from gateway.database import ClockRow, at_once, open_database, reading, standby, transaction
from gateway.errors import CapacityError, ConfigError
from gateway.flow.segments.log import Group
from gateway.flow.store import FlowStore
from tests.support.standby import Pair

pytestmark = [pytest.mark.peers, pytest.mark.full]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.close()


def write(engine, number: int) -> None:
    with transaction(engine) as session:
        session.add(ClockRow(id=number, seen_at=0, confirmed=0))


def rows(engine) -> set[int]:
    with reading(engine) as session:
        return set(session.scalars(select(ClockRow.id)))


def code_of(done) -> str:
    with pytest.raises(CapacityError) as caught:
        done()
    return caught.value.code


def test_what_a_standby_has_not_confirmed_is_no_success(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_database(pair.primary.url, synchronous=True)
    assert code_of(lambda: write(engine, 1)) == "database-alone"
    assert rows(engine) == set()

    def at_once_alone() -> None:
        with at_once(engine) as connection:
            connection.execute(text("SELECT 1"))

    assert code_of(at_once_alone) == "database-alone"

    pair.add_standby()
    with transaction(engine) as session:
        session.execute(text("SET synchronous_commit = off"))  # whoever had it so
        session.commit()
    write(engine, 2)
    group = Group("ab" * 16, 100, [])
    FlowStore(engine, "worker").add_received([group])
    pair.standby.stop()
    monkeypatch.setattr(standby, "COMMIT_S", 1.0)
    assert code_of(lambda: write(engine, 3)) == "database-unconfirmed"  # PostgreSQL itself said COMMIT, and a warning

    def cancel() -> None:
        deadline = time.monotonic() + 60
        while not pair.primary.ask(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'COMMIT'"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    # rows that are there already, since another replica has written them, have to be confirmed as well
    monkeypatch.setattr(standby, "COMMIT_S", 1.0)
    assert code_of(lambda: FlowStore(engine, "ingress").add_received([group])) == "database-unconfirmed"

    monkeypatch.undo()
    operator = threading.Thread(target=cancel)
    operator.start()
    assert code_of(lambda: write(engine, 4)) == "database-unconfirmed"
    operator.join()

    pair.standby.start()
    pair.wait()
    write(engine, 5)
    pair.primary.stop()
    pair.promote()
    there = rows(open_database(pair.standby.url))
    assert {2, 5} <= there and 1 not in there  # what was confirmed; of the others nobody was told
    engine.dispose()


def test_only_postgresql_has_a_standby() -> None:
    with pytest.raises(ConfigError) as caught:
        open_database("sqlite://", synchronous=True)
    assert caught.value.code == "not-postgresql"
