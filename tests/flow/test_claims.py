"""Claims in a table of their own: leases that ran out are found by them, and no index holds a lease."""

from __future__ import annotations

import time

import pytest
from alembic import command
from sqlalchemy import Engine, select, text, update

from gateway.database import ClaimRow, DeliveryRow, InstanceRow, migrate, reading, transaction
from gateway.database.engine import alembic_config
from gateway.flow.changes import held, later, marked, sealed, sent
from gateway.flow.leases import lease_owner
from gateway.flow.store import RECEIVED, FlowStore
from tests.support.flow import add_row

DEAD = "elsewhere:1:00000000"
LEASES = {"lease_owner", "lease_until", "lease_token", "attempts", "next_attempt_at"}


@pytest.fixture
def store(engine: Engine) -> FlowStore:
    """One whose first look, which sweeps the whole queue, is over."""
    made = FlowStore(engine, lease_owner())
    assert made.claim(RECEIVED, 1, 60) == made.claim_deliveries("a", 1, 60) == []
    return made


def claims(engine: Engine) -> list[tuple[str, str, set]]:
    """Kind, owner and rows of all there are."""
    with reading(engine) as session:
        return [(row.kind, row.owner, set(row.taken)) for row in session.scalars(select(ClaimRow))]


def run_out(engine: Engine) -> None:
    """The time of all leases is over."""
    with transaction(engine) as session:
        session.execute(update(InstanceRow).values(lease_until=1.0))
        session.execute(update(ClaimRow).values(until=1.0))


def test_no_index_holds_what_a_claim_changes() -> None:
    """Else each claim would write anew into every index of the row (PostgreSQL: no HOT update)."""
    for table in (InstanceRow.__table__, DeliveryRow.__table__):
        for index in table.indexes:
            where = str(index.dialect_options["postgresql"]["where"])
            assert not LEASES & {column.name for column in index.columns}, index.name
            assert not any(name in where for name in LEASES), index.name


def test_a_claim_stands_as_long_as_one_of_its_leases(engine: Engine, store: FlowStore) -> None:
    ids = {add_row(store, number) for number in range(3)}
    rows = store.claim(RECEIVED, 3, 60)
    assert claims(engine) == [(RECEIVED, store.owner, ids)]
    store.settle([sealed(row, "r", batch_key="CT") for row in rows[:2]])
    batch = store.claim_batch(3, 60)
    assert len(claims(engine)) == 2  # one of the first claim is still at work
    store.settle([held(rows[2], RECEIVED, "x", "x")])
    store.settle([marked(row, row.id, 1, "r", ("a",)) for row in batch])
    pairs = store.claim_deliveries("a", 3, 60)
    assert [kind for kind, _, _ in claims(engine)] == ["to:a"]
    store.settle_deliveries([sent(delivery, 0) for delivery, _ in pairs])
    add_row(store, 9)
    assert len(store.claim(RECEIVED, 3, 60)) == 1
    assert [kind for kind, _, _ in claims(engine)] == [RECEIVED]


def test_leases_that_ran_out_are_found_by_their_claim(engine: Engine, store: FlowStore) -> None:
    ids = {add_row(store, number) for number in range(5)}
    other = FlowStore(engine, DEAD)
    rows = other.claim(RECEIVED, 5, 60)
    other.settle([sealed(rows[0], "r", batch_key="CT")])
    run_out(engine)
    assert store.claim(RECEIVED, 5, 60) == []  # freed, and from now on they go alone
    alone = {store.claim_suspect(RECEIVED, 60)[0].id for _ in range(4)}
    assert alone == ids - {rows[0].id}
    assert all(owner == store.owner for _, owner, _ in claims(engine))


def test_a_claim_whose_leases_were_renewed_runs_on(engine: Engine, store: FlowStore) -> None:
    add_row(store)
    other = FlowStore(engine, DEAD)
    rows = other.claim(RECEIVED, 1, 60)
    run_out(engine)
    other.renew(rows, 3600)
    assert store.claim(RECEIVED, 1, 60) == [] == store.claim_suspect(RECEIVED, 60)
    with reading(engine) as session:
        [claim] = session.scalars(select(ClaimRow)).all()
    assert claim.owner == DEAD and claim.until > time.time() + 3000
    run_out(engine)  # and then it ends as all do
    store.claim(RECEIVED, 1, 60)
    assert len(store.claim_suspect(RECEIVED, 60)) == 1


def test_what_was_claimed_again_counts_for_the_newer_claim(engine: Engine, store: FlowStore) -> None:
    """Else claims would be kept for ever in the memory of a process whose leases ran out."""
    add_row(store)
    [first] = store.claim(RECEIVED, 1, 60)
    run_out(engine)
    [again] = store.claim(RECEIVED, 1, 60)
    assert again.id == first.id
    store.settle([later(again, RECEIVED, 0, "x", "x")])
    assert store._claims._left == store._claims._claim_of == {}
    assert len(store.claim(RECEIVED, 1, 60)) == len(claims(engine)) == 1


def test_what_is_claimed_for_its_next_step_before_the_last_was_noted_keeps_its_claim(
    engine: Engine, store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of a worker: else, when it dies, nobody knows of the lease for ten minutes."""
    add_row(store)
    [first] = store.claim(RECEIVED, 1, 60)
    with monkeypatch.context() as patched:
        noted = []
        patched.setattr(store, "_over", lambda *arguments: noted.append(arguments))
        store.settle([later(first, RECEIVED, 0, "x", "x")])
    [again] = store.claim(RECEIVED, 1, 60)  # by another thread
    assert again.id == first.id
    store._over(*noted[0])
    add_row(store)
    store.claim(RECEIVED, 1, 60)  # takes away what is finished
    assert {again.id} in [taken for _, _, taken in claims(engine)]


def test_a_lease_that_no_claim_names_ends_too(engine: Engine) -> None:
    """A worker of the release before runs beside, or a row was put in by hand."""
    instance_id = add_row(FlowStore(engine, lease_owner()))
    with transaction(engine) as session:
        session.execute(update(InstanceRow).values(lease_owner=DEAD, lease_until=1.0))
    fresh = FlowStore(engine, lease_owner())
    assert fresh.claim(RECEIVED, 1, 60) == []
    assert [row.id for row in fresh.claim_suspect(RECEIVED, 60)] == [instance_id]


def test_a_process_that_ends_leaves_no_claim(engine: Engine, store: FlowStore) -> None:
    for number in range(3):
        add_row(store, number)
    assert len(store.claim(RECEIVED, 2, 60)) == 2
    assert (store.end_leases(), store.end_leases(), claims(engine)) == (2, 0, [])
    assert len(FlowStore(engine, lease_owner()).claim(RECEIVED, 3, 60)) == 3


def test_a_site_is_upgraded_while_work_is_under_way(engine: Engine, store: FlowStore) -> None:
    """Leases of the schema before get their claims; without, nobody would miss them for long."""
    ids = {add_row(store, number) for number in range(3)}
    FlowStore(engine, "old:1:0").claim(RECEIVED, 2, 60)
    run_out(engine)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0014")
        connection.execute(text("SELECT lease_owner FROM instance"))
    migrate(engine)
    [(kind, owner, taken)] = claims(engine)
    assert (kind, owner) == (RECEIVED, "old:1:0") and len(taken) == 2
    assert {row.id for row in store.claim(RECEIVED, 3, 60)} == ids - taken
    assert {store.claim_suspect(RECEIVED, 60)[0].id for _ in range(2)} == taken
