"""The instance table: claims, leases, fencing, deliveries; on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, select

from gateway.audit import AuditLog, Line
from gateway.config.models import Route
from gateway.database import Base, DeliveryRow, InstanceRow, open_database, reading, sqlite_url, transaction
from gateway.errors import CapacityError, GatewayError, NotFoundError
from gateway.flow.changes import (
    Change,
    DeliveryChange,
    delivery_held,
    delivery_later,
    held,
    later,
    marked,
    passed,
    sealed,
    sent,
    untried,
)
from gateway.flow.operations import Operator
from gateway.flow.selection import list_instances
from gateway.flow.store import RECEIVED, SEALED, FlowStore, LeaseLost, lease_owner
from tests.support import postgresql
from tests.support.flow import add_row


@pytest.fixture
def store(engine) -> FlowStore:
    return FlowStore(engine, lease_owner())


@pytest.fixture
def operator(engine, tmp_path) -> Operator:
    """A person at a site whose one route names "a" and "b"."""
    route = Route(name="out", called_ae="OUT", destinations=("a", "b"))
    return Operator(engine, [route], AuditLog(tmp_path / "operator.jsonl"))


def add(store: FlowStore, number: int = 0) -> str:
    return add_row(store, number)


def state_of(engine, instance_id: str) -> InstanceRow:
    with reading(engine) as session:
        return session.get(InstanceRow, instance_id)


def settle(store: FlowStore, change: Change | DeliveryChange) -> bool:
    """One change alone; whether the instance is delivered now. What hindered it is raised."""
    if isinstance(change, Change):
        [error], delivered = store.settle([change]), set()
    else:
        [error], delivered = store.settle_deliveries([change])
    if error:
        raise error
    return bool(delivered)


def seal_and_mark(store: FlowStore, destinations, derived="derived", locator="locator") -> None:
    [row] = store.claim(RECEIVED, 1, 60)
    settle(store, sealed(row, locator))
    [row] = store.claim_batch(1, 60)
    settle(store, marked(row, derived, 11, locator, destinations))


def to_marked(store: FlowStore, destinations=("a", "b")) -> str:
    instance_id = add(store)
    seal_and_mark(store, destinations)
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
    [before] = store.claim(RECEIVED, 1, lease_s=-1)
    other = FlowStore(engine, lease_owner())
    [now] = other.claim(RECEIVED, 1, 60)
    assert now.id == instance_id
    with pytest.raises(LeaseLost):
        settle(store, held(before, RECEIVED, "code", "reason"))
    settle(other, sealed(now, "locator"))
    assert state_of(engine, instance_id).state == SEALED


def test_a_worker_that_comes_back_changes_nothing_with_any_kind_of_write(engine, store):
    """Its lease ran out, another had the row and gave it back, and it has the row anew: the first claim is over."""
    instance_id = add(store)
    [first] = store.claim(RECEIVED, 1, lease_s=-1)
    other = FlowStore(engine, lease_owner())
    [theirs] = other.claim(RECEIVED, 1, 60)
    stale = [
        sealed(first, "stale"),
        passed(first, ("stale",)),
        held(first, RECEIVED, "stale", "stale"),
        later(first, RECEIVED, 3600, "stale", "stale"),
    ]

    def is_refused(row: InstanceRow) -> bool:
        before = vars(state_of(engine, instance_id)) | {"_sa_instance_state": None}
        store.renew([row], 3600)
        assert [type(error) for error in store.settle(stale)] == [LeaseLost] * len(stale)
        return before == vars(state_of(engine, instance_id)) | {"_sa_instance_state": None}

    assert is_refused(first)  # another owner
    settle(other, later(theirs, RECEIVED, 0, "busy", "busy"))
    assert is_refused(first)  # nobody's
    [again] = store.claim(RECEIVED, 1, 60)
    assert is_refused(first)  # its own, and another token
    assert (first.lease_token, theirs.lease_token, again.lease_token) == (1, 2, 3)
    settle(store, sealed(again, "locator"))


def test_a_sender_that_comes_back_changes_nothing_with_any_kind_of_write(engine, store):
    to_marked(store, ("a",))
    [(first, _)] = store.claim_deliveries("a", 1, lease_s=-1)
    other = FlowStore(engine, lease_owner())
    [(theirs, _)] = other.claim_deliveries("a", 1, 60)
    stale = [sent(first, 0), delivery_later(first, 3600, "x", "x"), delivery_held(first, "x", "x"), untried(first, 9)]

    def is_refused() -> bool:
        with reading(engine) as session:
            before = session.execute(select(DeliveryRow.__table__)).all()
        store.renew_deliveries([first], 3600)
        errors, delivered = store.settle_deliveries(stale)
        with reading(engine) as session:
            after = session.execute(select(DeliveryRow.__table__)).all()
        return ([type(error) for error in errors], delivered, before) == ([LeaseLost] * 4, set(), after)

    assert is_refused()
    settle(other, untried(theirs))
    assert is_refused()
    [(again, _)] = store.claim_deliveries("a", 1, 60)
    assert is_refused()
    assert settle(store, sent(again, 0))


def test_a_token_that_is_full_begins_anew(engine, store):
    """Ingress adds rows: one number must not end the claim of all."""
    ids = {add(store, n) for n in range(2)}
    with transaction(engine) as session:
        session.query(InstanceRow).update({"lease_token": 2**63 - 1})
    assert {(row.id, row.lease_token) for row in store.claim(RECEIVED, 2, 60)} == {(one, 1) for one in ids}


def test_what_hinders_one_of_a_batch_hinders_no_neighbour(engine, store):
    """A lease that is lost, a line that cannot be written, and a value that the database refuses."""
    ids = [add(store, n) for n in range(5)]
    rows = store.claim(RECEIVED, 5, 60)
    lines = [Line("of", "success", {"instance_id": row.id}) for row in rows]
    told: list[Line] = []

    def tell(given) -> None:
        if lines[2] in given:
            raise CapacityError("audit-full", "no")
        told.extend(given)

    with transaction(engine) as session:
        session.query(InstanceRow).filter_by(id=rows[1].id).update({"lease_token": 9})
    made = [sealed(row, "r", lines=[line]) for row, line in zip(rows, lines, strict=True)]
    made[3] = replace(made[3], values={**made[3].values, "sealed_at": "no number" * 2, "record": object()})
    errors = store.settle(made, tell)
    assert [errors[0], type(errors[1]), errors[2].code, errors[4]] == [None, LeaseLost, "audit-full", None]
    assert isinstance(errors[3], Exception)
    states = [state_of(engine, row.id).state for row in rows]
    assert states == [SEALED, RECEIVED, RECEIVED, RECEIVED, SEALED] and len(ids) == 5
    assert sorted(told, key=lines.index) == [lines[0], lines[3], lines[4]]  # each once


@pytest.mark.parametrize("engine", postgresql.VERSIONS, indirect=True)  # SQLite lets one write at a time
def test_two_workers_that_send_the_last_two_deliveries_at_once_deliver_the_instance(engine, store):
    instance_id = to_marked(store, ("a", "b"))
    [(one, _)], [(two, _)] = store.claim_deliveries("a", 1, 60), store.claim_deliveries("b", 1, 60)
    second = threading.Thread(target=store.settle_deliveries, args=([sent(two, 0)],))

    def while_open(_lines) -> None:
        second.start()
        second.join(1)  # it waits for this one's commit

    settled = store.settle_deliveries([replace(sent(one, 0), lines=(Line("x", "success", {}),))], while_open)
    second.join()
    assert settled == ([None], set())
    assert state_of(engine, instance_id).state == "delivered"


def test_the_mark_takes_batches_of_one_kind_the_oldest_first(engine, store):
    """A rare kind has its turn when its oldest is the oldest of all."""
    kinds = ["CT", "CT", "MR", "CT", "MR", "CT", "CT"]
    for number, _ in enumerate(kinds):
        add_row(store, number, received_at=1000.0 + number)
    rows = store.claim(RECEIVED, 10, 60)
    assert store.settle([sealed(r, "r", batch_key=kind) for r, kind in zip(rows, kinds, strict=True)]) == [None] * 7
    batches = []
    while batch := store.claim_batch(3, 60):
        batches.append([int(row.received_at) - 1000 for row in batch])
    assert batches == [[0, 1, 3], [2, 4], [5, 6]]


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
    [row] = store.claim(RECEIVED, 1, 60)
    settle(store, later(row, RECEIVED, 3600, "unexpected", "OSError at x.py:1"))
    assert store.claim(RECEIVED, 1, 60) == []
    assert state_of(engine, instance_id).attempts == 1


def test_delivered_only_when_every_destination_has_it(engine, store):
    instance_id = to_marked(store)
    [(delivery, row)] = store.claim_deliveries("a", 10, 60)
    assert row.derived_file == "derived"
    assert settle(store, sent(delivery, 0)) is False
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    assert settle(store, sent(delivery, 0xB000)) is True
    assert state_of(engine, instance_id).state == "delivered"
    with pytest.raises(LeaseLost):
        settle(store, sent(delivery, 0))


def test_a_refused_delivery_holds_its_instance_and_the_others_go_on(engine, store):
    instance_id = to_marked(store)
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    settle(store, delivery_held(delivery, "context-refused", "no presentation context"))
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    assert settle(store, sent(delivery, 0)) is False
    row = state_of(engine, instance_id)
    assert (row.state, row.held_from, row.reason_code) == ("held", "marked", "context-refused")


def test_release_begins_anew_and_keeps_what_was_sent(engine, store, operator):
    instance_id = to_marked(store)
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    settle(store, sent(delivery, 0))
    [(delivery, _)] = store.claim_deliveries("b", 10, 60)
    settle(store, delivery_held(delivery, "context-refused", "no presentation context"))
    assert operator.release([instance_id]) == 1
    assert state_of(engine, instance_id).state == RECEIVED
    seal_and_mark(store, ("a", "b"))
    assert store.claim_deliveries("a", 10, 60) == []
    assert len(store.claim_deliveries("b", 10, 60)) == 1


def test_release_with_other_bytes_sends_them_everywhere(engine, store, operator):
    instance_id = to_marked(store, ("a",))
    [(delivery, _)] = store.claim_deliveries("a", 10, 60)
    settle(store, delivery_held(delivery, "x", "y"))
    operator.release([instance_id])
    seal_and_mark(store, ("b",), "other-derived", "other")
    with reading(engine) as session:
        assert [d.destination for d in session.query(DeliveryRow)] == ["b"]


def test_hold_takes_the_work_from_whoever_is_at_it(engine, store, operator):
    instance_id = add(store)
    [row] = store.claim(RECEIVED, 1, 60)
    assert operator.hold([instance_id]) == 1
    with pytest.raises(LeaseLost):
        settle(store, sealed(row, "locator"))
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
    settle(store, sent(delivery, 0))
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
    settle(store, sent(delivery, 0))
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
        if statement.startswith(("SELECT", "WITH")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(str(row[-1]) for row in cursor.fetchall()))

    add(store)
    event.listen(engine, "before_cursor_execute", explain)
    [row] = store.claim(RECEIVED, 8, 60)
    settle(store, sealed(row, "locator", batch_key="CT"))
    assert store.claim_batch(8, 60)
    store.claim_deliveries("a", 8, 60)
    assert store.has_suspect(RECEIVED) is store.has_suspect_delivery("a") is False
    claims = [plan for plan in plans if "_work" in plan or "instance_batch" in plan]
    # five, and of each kind the first look at what has a lease and no claim
    assert len(claims) == 8 and not any("TEMP B-TREE FOR ORDER BY" in plan for plan in claims), plans
    assert sum("instance_batch" in plan for plan in claims) == 1
    assert sum("claim_until" in plan for plan in plans) == 3  # leases that ran out
    engine.dispose()
