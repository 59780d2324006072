"""Batches on both databases: one statement each on PostgreSQL, the same rows on both, and what waits for the disk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import create_engine, event, select, text

from gateway.audit import Line
from gateway.database import DeliveryRow, InstanceRow, reading, transaction
from gateway.database import engine as database_engine
from gateway.errors import CapacityError
from gateway.flow.changes import held, marked, sealed, sent
from gateway.flow.store import RECEIVED, SEALED, FlowStore, LeaseLost, lease_owner
from gateway.log import set_up_logging
from tests.support import postgresql
from tests.support.flow import add_row

MANY = 8
on_postgresql = pytest.mark.parametrize("engine", postgresql.VERSIONS, indirect=True)


@pytest.fixture
def store(engine) -> FlowStore:
    return FlowStore(engine, lease_owner())


@pytest.fixture
def statements(engine):
    """What the database is sent, but for the beginning and the end of transactions."""
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: seen.append(statement))
    return seen


def marked_row(row: InstanceRow, *destinations: str):
    return marked(row, f"{row.id}-copy", 7, f"record-{row.id[:8]}", destinations)


def dump(engine) -> list[tuple]:
    """Instances with their deliveries, but for what is random or a time."""
    columns = (InstanceRow.spool_file, InstanceRow.state, InstanceRow.action, InstanceRow.batch_key)
    columns += (InstanceRow.derived_size, InstanceRow.attempts, InstanceRow.reason_code, InstanceRow.lease_owner)
    with reading(engine) as session:
        query = select(*columns, DeliveryRow.destination, DeliveryRow.state, DeliveryRow.attempts, DeliveryRow.deaths)
        query = query.outerjoin(DeliveryRow, DeliveryRow.instance_id == InstanceRow.id)
        return sorted((tuple(row) for row in session.execute(query)), key=str)


@pytest.mark.peers
@on_postgresql
def test_each_step_of_a_batch_is_one_statement(engine, store, statements):
    """What fails as a batch is settled one by one, rightly and slowly: only the count tells."""
    for number in range(MANY):
        add_row(store, number)
    taken: dict[str, int] = {}

    def count(name: str) -> None:
        taken[name] = len(statements)
        statements.clear()

    statements.clear()
    rows = store.claim(RECEIVED, MANY, 60)
    count("claim")
    assert store.settle([sealed(row, f"r{row.id[:8]}", batch_key="CT") for row in rows]) == [None] * MANY
    count("seal")
    rows = store.claim_batch(MANY, 60)
    count("claim_batch")
    assert store.settle([marked_row(row, "a") for row in rows]) == [None] * MANY
    count("mark")
    pairs = store.claim_deliveries("a", MANY, 60)
    count("claim_deliveries")
    failed, delivered = store.settle_deliveries([sent(delivery, 0) for delivery, _ in pairs])
    count("deliver")
    assert failed == [None] * MANY
    assert delivered == {row.id for row in rows}
    # A full claim looks for leases that ran out besides, once a second, and the first time for those without a claim;
    # deliveries come with their instances.
    assert taken == {"claim": 3, "seal": 1, "claim_batch": 3, "mark": 1, "claim_deliveries": 4, "deliver": 1}
    for number in range(MANY):
        add_row(store, number)
    claimed = store.claim(RECEIVED, MANY, 60)
    statements.clear()
    lines = [sealed(row, "r", lines=[Line("event", "success", {})]) for row in claimed]
    assert store.settle(lines, lambda told: None) == [None] * MANY
    assert len(statements) == 2  # the rows are locked, then the audit is told, then they change


@pytest.mark.peers
def test_a_mixed_batch_settles_alike_on_both(engine, store):
    """Lost leases, held ones, two destinations, none, and one that has deliveries from before."""
    other = FlowStore(engine, lease_owner())
    for number in range(6):
        add_row(store, number)
    rows = sorted(store.claim(RECEIVED, 6, 60), key=lambda row: row.spool_file)
    assert store.settle([sealed(row, "r", batch_key="CT") for row in rows]) == [None] * 6
    with transaction(engine) as session:
        session.add(DeliveryRow(instance_id=rows[4].id, destination="a", state="held", attempts=9, deaths=3))
        session.add(DeliveryRow(instance_id=rows[4].id, destination="gone", state="sent"))
        session.get(InstanceRow, rows[4].id).marked_at = 1.0
    rows = sorted(store.claim_batch(6, 60), key=lambda row: row.spool_file)
    with transaction(engine) as session:  # the second is another worker's now
        session.get(InstanceRow, rows[1].id).lease_owner = other.owner
    changes = [marked_row(rows[0], "a"), marked_row(rows[1], "a"), marked_row(rows[2], "a", "b")]
    changes += [marked_row(rows[3]), marked_row(rows[4], "a"), held(rows[5], SEALED, "code", "why")]
    found = [type(error) for error in store.settle(changes)]
    assert found == [type(None), LeaseLost, type(None), type(None), type(None), type(None)]
    pairs = sorted(store.claim_deliveries("a", 9, 60), key=lambda pair: pair[1].spool_file)
    assert [row.spool_file for _, row in pairs] == ["spool0", "spool2"]
    [suspect] = store.claim_suspect_delivery("a", 60)  # one that workers died of goes alone, whoever queues it anew
    assert suspect[1].spool_file == "spool4"
    pairs.append(suspect)
    failed, delivered = store.settle_deliveries([sent(delivery, 0) for delivery, _ in pairs])
    assert failed == [None] * len(pairs)
    with reading(engine) as session:
        states = {row.spool_file: row.state for row in session.scalars(select(InstanceRow))}
    expected = {"spool0": "delivered", "spool1": "sealed", "spool2": "marked", "spool3": "delivered", "spool5": "held"}
    expected |= {"spool4": "delivered"}
    assert states == expected
    assert rows[0].id in delivered
    assert rows[2].id not in delivered
    assert [row[8:] for row in dump(engine) if row[0] == "spool2"] == [("a", "sent", 1, 0), ("b", "queued", 0, 0)]


@pytest.mark.peers
def test_two_last_deliveries_of_one_instance_make_it_delivered(engine, store):
    add_row(store)
    [row] = store.claim(RECEIVED, 1, 60)
    store.settle([sealed(row, "r")])
    [row] = store.claim_batch(1, 60)
    store.settle([marked_row(row, "a", "b")])
    [(first, _)], [(second, _)] = store.claim_deliveries("a", 1, 60), store.claim_deliveries("b", 1, 60)
    assert store.settle_deliveries([sent(first, 0)])[1] == set()
    assert store.settle_deliveries([sent(second, 0)])[1] == {row.id}
    with reading(engine) as session:
        assert session.get(InstanceRow, row.id).state == "delivered"


class Failing:
    """What settles the rest of a batch, and cannot."""

    def __init__(self, error: Exception) -> None:
        self.error, self.count = error, 0

    def __call__(self, *_: object) -> dict:
        self.count += 1
        raise self.error


@pytest.mark.peers
@on_postgresql
@pytest.mark.parametrize("error", [CapacityError("database-unreachable", "gone"), TypeError("a fault")])
def test_what_was_committed_counts_though_the_rest_of_its_batch_fails(engine, store, monkeypatch, error):
    for number in range(3):
        add_row(store, number)
    rows = sorted(store.claim(RECEIVED, 3, 60), key=lambda row: row.spool_file)
    with transaction(engine) as session:  # the last is another worker's now: it is settled apart
        session.get(InstanceRow, rows[2].id).lease_owner = "other"
    rest, done = Failing(error), list[str]()
    monkeypatch.setattr(store, "_settle_each", rest)
    changes = [replace(sealed(row, "r"), done=partial(done.append, row.spool_file)) for row in rows]
    failed = store.settle(changes)
    assert failed[:2] == [None, None] and failed[2] is error
    assert done == ["spool0", "spool1"] and rest.count == (1 if isinstance(error, CapacityError) else 2)


def test_a_batch_whose_statement_fails_is_told_of(engine, store, monkeypatch, capsys):
    """One by one it goes on, slowly: that it always does must not stay unseen, nor fill the log."""
    set_up_logging("worker", "json", "info")
    settle = FlowStore._settle

    def only_one(self, batch, *rest):
        if len(batch) > 1:
            raise TypeError("Doe^Jane")
        return settle(self, batch, *rest)

    monkeypatch.setattr(FlowStore, "_settle", only_one)
    for number in range(4):
        add_row(store, number)
    for _ in range(2):
        rows = store.claim(RECEIVED, 2, 60)
        assert store.settle([sealed(row, "r") for row in rows]) == [None, None]
    told = [line for line in capsys.readouterr().err.splitlines() if "one by one" in line]
    assert len(told) == 1 and "TypeError at" in told[0] and "Doe" not in told[0]


@pytest.mark.peers
@on_postgresql
def test_a_claim_does_not_wait_for_the_disk_and_a_change_of_state_does(engine, store):
    def lag() -> int:
        """Bytes of the server's log that are written and not flushed."""
        with engine.connect() as connection:
            return connection.scalar(text("SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()"))

    lags = []
    for number in range(5):
        add_row(store, number)
        assert lag() == 0
        [row] = store.claim(RECEIVED, 1, 60)
        lags.append(lag())  # the server's own writer may have come between, now and then
        store.settle([sealed(row, "r")])
        assert lag() == 0
    assert any(lags)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_sqlite_waits_for_the_disk_but_for_claims(engine, store):
    add_row(store)
    seen: list[int] = []
    event.listen(
        engine, "commit", lambda c: seen.append(c.connection.cursor().execute("PRAGMA synchronous").fetchone()[0])
    )
    [row] = store.claim(RECEIVED, 1, 60)
    store.settle([sealed(row, "r")])
    assert seen[0] == 1  # NORMAL: not at each commit
    assert seen[-1] == 2  # FULL


@pytest.mark.peers
@on_postgresql
def test_a_connection_that_lay_idle_is_tried_and_one_just_used_costs_one_refusal(engine, store, monkeypatch):
    def end_from_elsewhere() -> None:
        elsewhere = create_engine(engine.url)
        with elsewhere.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        elsewhere.dispose()

    add_row(store)
    end_from_elsewhere()
    with pytest.raises(CapacityError) as caught:
        store.waiting()
    assert caught.value.code == "database-unreachable"
    assert store.waiting() == (1, 1)
    monkeypatch.setattr(database_engine, "IDLE_S", 0.0)
    end_from_elsewhere()
    assert store.waiting() == (1, 1)
