"""Durability `cluster` on a real PostgreSQL with a real standby: what its standby has not confirmed is no success."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select, text

from gateway.config import Config
from gateway.database import ClockRow, at_once, open_database, reading, standby, transaction
from gateway.errors import CapacityError, ConfigError
from gateway.flow import arrivals
from gateway.flow.segments.log import Group
from gateway.flow.store import FlowStore
from gateway.preflight.standby import examine_standby
from tests.support.standby import Pair
from tests.support.until import until

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
    assert len(f"{caught.value.code}: {caught.value.message}") <= 64  # what an archive's log shows of it
    return caught.value.code


def told(pair: Pair) -> list[tuple[str, str]]:
    """What the doctor says."""
    account = {"access_key_id": "env:ID", "secret_access_key": "env:KEY"}
    given = {"durability": "cluster", "store": {"url": "s3://vault", "endpoint": "https://store.example", **account}}
    config = Config.model_validate({**given, "database": {"url": pair.primary.url}})
    return [(one.level, one.message) for one in examine_standby(config)]


def test_what_a_standby_has_not_confirmed_is_no_success(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_database(pair.primary.url, synchronous=True)
    assert code_of(lambda: write(engine, 1)) == "database-alone"
    assert rows(engine) == set()

    def at_once_alone() -> None:
        with at_once(engine) as connection:
            connection.execute(text("SELECT 1"))

    assert code_of(at_once_alone) == "database-alone"
    ((level, message),) = told(pair)
    assert level == "error" and "no synchronous standby" in message

    # whoever connects is named, and a copy in the making answers as a standby does: failing over to it gives nothing
    pair.name("*")
    with pair.copying():
        switch = threading.Timer(1.0, lambda: pair.primary.ask("SELECT pg_switch_wal()"))
        switch.start()
        assert code_of(lambda: write(engine, 1)) == "database-alone"
        switch.join()
    assert rows(engine) == set()
    ((level, message),) = told(pair)
    assert level == "error" and "names anybody" in message
    pair.name("")

    pair.add_standby()
    assert told(pair) == [("ok", "commits wait for a standby (second)")]
    pair.primary.ask("ALTER SYSTEM SET fsync = off")
    pair.name()
    until("it is told", lambda: ("error", False) in [(level, "standby" in text) for level, text in told(pair)])
    pair.primary.ask("ALTER SYSTEM RESET fsync")
    pair.name()
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
    identity = FlowStore(engine, "worker").identity()
    pair.primary.stop()
    pair.promote()
    assert FlowStore(open_database(pair.standby.url), "worker").identity() == identity
    pair.standby.ask("CREATE ROLE miad_worker LOGIN")
    plain = open_database(pair.standby.url)  # an account without any right
    with plain.connect() as connection:
        connection.execute(text("SET ROLE miad_worker"))
        assert connection.scalar(text(arrivals._IDENTITY)) == identity
    there = rows(open_database(pair.standby.url))
    assert {2, 5} <= there and 1 not in there  # what was confirmed; of the others nobody was told
    engine.dispose()


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ("", False),
        ("*", False),
        ("FIRST 1 (*)", False),
        ("ANY 1 (first, *)", False),
        ('"*"', False),
        ('FIRST 1 ("*")', False),
        ('ANY 1 ("first", "*")', False),
        ("first", True),
        ('"*a", "a*", "**"', True),
        ('"*"""', True),
        ('ANY 1 ("a*b", second)', True),
        ('"say ""*"""', True),
    ],
)
def test_a_standby_counts_by_its_name(names: str, named: bool) -> None:
    assert (standby.alone(names) is None) == named


def test_only_postgresql_has_a_standby() -> None:
    with pytest.raises(ConfigError) as caught:
        open_database("sqlite://", synchronous=True)
    assert caught.value.code == "not-postgresql"
