"""The instance table: claims, leases, fencing, deliveries; on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event

from gateway.audit import AuditLog
from gateway.config.models import Route
from gateway.database import Base, DeliveryRow, InstanceRow, open_database, reading, sqlite_url, transaction
from gateway.errors import GatewayError, NotFoundError
from gateway.flow.operations import Operator, list_instances
from gateway.flow.ports import ReceivedFacts
from gateway.flow.store import RECEIVED, SEALED, FlowStore, LeaseLost, Stored, lease_owner

FACTS = ReceivedFacts("ARCHIVE", "OUT", "127.0.0.1", "ab", "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")


@pytest.fixture
def store(engine) -> FlowStore:
    return FlowStore(engine, lease_owner())


@pytest.fixture
def operator(engine, tmp_path) -> Operator:
    """A person at a site whose one route names "a" and "b"."""
    route = Route(name="out", called_ae="OUT", destinations=("a", "b"))
    return Operator(engine, [route], AuditLog(tmp_path / "operator.jsonl"))


def add(store: FlowStore, number: int = 0) -> str:
    return store.add_received(FACTS, Stored(f"spool{number}", 10, "00" * 32), "out")


def state_of(engine, instance_id: str) -> InstanceRow:
    with reading(engine) as session:
        return session.get(InstanceRow, instance_id)


def to_marked(store: FlowStore, destinations=("a", "b")) -> str:
    instance_id = add(store)
    store.claim(RECEIVED, 1, 60)
    store.sealed(instance_id, "locator")
    store.claim(SEALED, 1, 60)
    store.marked(instance_id, "derived", 11, "locator", destinations)
    return instance_id


def test_schema_is_what_the_migrations_make(engine):
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_an_instance_is_claimed_once(engine, store):
    ids = {add(store, n) for n in range(5)}
    other = FlowStore(engine, lease_owner())
    first = {row.id for row in store.claim(RECEIVED, 3, 60)}
    second = {row.id for row in other.claim(RECEIVED, 5, 60)}
    assert len(first) == 3
    assert first | second == ids
    assert not first & second


def test_a_lease_that_ran_out_is_taken_over_and_its_old_owner_changes_nothing(engine, store):
    instance_id = add(store)
    store.claim(RECEIVED, 1, lease_s=-1)
    other = FlowStore(engine, lease_owner())
    assert [row.id for row in other.claim(RECEIVED, 1, 60)] == [instance_id]
    with pytest.raises(LeaseLost):
        store.held(instance_id, RECEIVED, "code", "reason")
    other.sealed(instance_id, "locator")
    assert state_of(engine, instance_id).state == SEALED


def test_the_leases_of_a_dead_process_are_freed(engine, store):
    add(store)
    add(store, 1)
    dead = subprocess.run(
        [sys.executable, "-c", "from gateway.flow.store import lease_owner; print(lease_owner())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    FlowStore(engine, dead).claim(RECEIVED, 1, 3600)
    store.claim(RECEIVED, 1, 3600)
    fresh = FlowStore(engine, lease_owner())
    assert fresh.free_dead_leases() == 2  # the dead process's, and this process's own from before its "restart"
    assert store.claim(RECEIVED, 2, 60) == []  # a process died at each of them: from now on they go alone
    assert [len(store.claim_suspect(RECEIVED, 60)) for _ in range(3)] == [1, 1, 0]


def test_later_comes_later(engine, store):
    instance_id = add(store)
    store.claim(RECEIVED, 1, 60)
    store.later(instance_id, RECEIVED, 3600, "unexpected", "OSError at x.py:1")
    assert store.claim(RECEIVED, 1, 60) == []
    assert state_of(engine, instance_id).attempts == 1


def test_delivered_only_when_every_destination_has_it(engine, store):
    instance_id = to_marked(store)
    [(delivery, row)] = store.claim_deliveries("a", 10, 60)
    assert row.derived_file == "derived"
    assert store.sent(delivery, 0) is False
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    assert store.sent(delivery, 0xB000) is True
    assert state_of(engine, instance_id).state == "delivered"
    with pytest.raises(LeaseLost):
        store.sent(delivery, 0)


def test_a_refused_delivery_holds_its_instance_and_the_others_go_on(engine, store):
    instance_id = to_marked(store)
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    store.delivery_held(delivery, "context-refused", "no presentation context")
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    assert store.sent(delivery, 0) is False
    row = state_of(engine, instance_id)
    assert (row.state, row.held_from, row.reason_code) == ("held", "marked", "context-refused")


def test_release_begins_anew_and_keeps_what_was_sent(engine, store, operator):
    instance_id = to_marked(store)
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    store.sent(delivery, 0)
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    store.delivery_held(delivery, "context-refused", "no presentation context")
    assert operator.release([instance_id]) == 1
    assert state_of(engine, instance_id).state == RECEIVED
    store.claim(RECEIVED, 1, 60)
    store.sealed(instance_id, "locator")
    store.claim(SEALED, 1, 60)
    store.marked(instance_id, "derived", 11, "locator", ("a", "b"))
    assert store.claim_deliveries("a", 10, 60) == []
    assert len(store.claim_deliveries("b", 10, 60)) == 1


def test_release_with_other_bytes_sends_them_everywhere(engine, store, operator):
    instance_id = to_marked(store, ("a",))
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    store.delivery_held(delivery, "x", "y")
    operator.release([instance_id])
    store.claim(RECEIVED, 1, 60)
    store.sealed(instance_id, "other")
    store.claim(SEALED, 1, 60)
    store.marked(instance_id, "other-derived", 11, "other", ("b",))
    with reading(engine) as session:
        assert [d.destination for d in session.query(DeliveryRow)] == ["b"]


def test_hold_takes_the_work_from_whoever_is_at_it(engine, store, operator):
    instance_id = add(store)
    store.claim(RECEIVED, 1, 60)
    assert operator.hold([instance_id]) == 1
    with pytest.raises(LeaseLost):
        store.sealed(instance_id, "locator")
    assert state_of(engine, instance_id).held_from == RECEIVED


def test_hold_stops_queued_deliveries(engine, store, operator):
    instance_id = to_marked(store)
    operator.hold([instance_id])
    assert store.claim_deliveries("a", 10, 60) == []


def test_release_without_the_received_bytes_says_so(engine, store, operator):
    instance_id = add(store)
    operator.hold([instance_id])
    store.forget_spool_file([instance_id])
    with pytest.raises(GatewayError) as caught:
        operator.release([instance_id])
    assert caught.value.code == "spool-purged"


def test_replay_queues_the_same_file_again(engine, store, operator):
    instance_id = to_marked(store, ("a",))
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    store.sent(delivery, 0)
    assert operator.replay([instance_id]) == 1
    [(_, row)] = store.claim_deliveries("a", 10, 60)
    assert row.derived_file == "derived"


def test_unknown_instance_is_an_error(engine, operator):
    with pytest.raises(NotFoundError):
        operator.release(["f" * 32])


def test_queue_listing(engine, store):
    instance_id = to_marked(store)
    add(store, 1)
    [entry] = list_instances(engine, "marked")
    assert (entry.id, entry.deliveries) == (instance_id, {"a": "queued", "b": "queued"})
    assert len(list_instances(engine)) == 2


def test_retention_finds_what_is_due(engine, store):
    instance_id = to_marked(store, ("a",))
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    assert store.derived_to_purge(delivered_before=1e12) == []
    store.sent(delivery, 0)
    assert [row.id for row in store.spool_to_purge()] == [instance_id]
    assert store.derived_to_purge(delivered_before=1.0) == []
    assert store.derived_to_purge(delivered_before=1e12) == ["derived"]
    assert store.unknown_files(["derived", "spool0", "stranger"]) == {"stranger"}


def test_a_transaction_that_fails_leaves_nothing(engine, store):
    instance_id = add(store)
    with pytest.raises(RuntimeError), transaction(engine) as session:
        session.add(DeliveryRow(instance_id=instance_id, destination="x"))
        raise RuntimeError
    with reading(engine) as session:
        assert session.query(DeliveryRow).count() == 0


def test_a_claim_does_not_sort_the_whole_queue(tmp_path):
    """With a hundred thousand waiting instances that took ten times as long."""
    engine = open_database(sqlite_url(tmp_path / "a.sqlite"))
    store, plans = FlowStore(engine, lease_owner()), []

    def explain(connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith("SELECT"):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(engine, "before_cursor_execute", explain)
    store.claim(RECEIVED, 8, 60)
    store.claim_deliveries("a", 8, 60)
    assert store.has_suspect(RECEIVED) is store.has_suspect_delivery("a") is False
    claims = [plan for plan in plans if "instance_work" in plan or "delivery_work" in plan]
    assert len(claims) == 4 and not any("TEMP B-TREE FOR ORDER BY" in plan for plan in claims), plans
    assert sum("_leased" in plan for plan in plans) == 2
    engine.dispose()
