"""PostgreSQL ends as in a crash, and starts again, between a step's claim and its settling: the ledger is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.audit import events
from gateway.database import DeliveryRow, InstanceRow, open_database, transaction
from gateway.errors import CapacityError
from tests.support import postgresql
from tests.support.dicom.samples import encode
from tests.support.flow import Flow, configuration, ct

NUMBERS = (1, 2, 3)


@pytest.fixture
def on_postgresql(tmp_path, site_keys, postgresql_databases) -> Iterator[tuple[Flow, Callable[[], None]]]:
    """A flow, and what restarts its database's server."""
    url, programs = postgresql_databases(postgresql.INSTALLED), postgresql.programs()
    assert programs is not None
    engine = open_database(url)
    flow = Flow(configuration(tmp_path / "state", site_keys), engine)
    yield flow, lambda: postgresql.restart_at_once(url, programs)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


def once_before(monkeypatch, place: object, name: str, do: Callable[[], None]) -> list[str]:
    """Do something before the first call of a method, which then goes on; the answer says that it was done."""
    call, done = getattr(place, name), []

    def first(*args: Any, **kwargs: Any) -> Any:
        if not done:
            done.append(name)
            do()
        return call(*args, **kwargs)

    monkeypatch.setattr(place, name, first)
    return done


def work(flow: Flow) -> int:
    """All steps, as the worker's loops take them; returns how many had to wait for the database."""
    waited = 0
    for step in (flow.seal, flow.mark, flow.deliver):
        try:
            step()
        except CapacityError:  # the loop waits and looks again
            waited += 1
    return waited


@pytest.mark.full
@pytest.mark.parametrize("step", ["seal", "mark", "deliver"])
@pytest.mark.parametrize("when", ["claimed", "done"])
def test_a_database_that_crashes_in_the_middle_of_a_step_loses_nothing_and_sends_nothing_else(
    on_postgresql, monkeypatch, step, when
):
    flow, restart = on_postgresql
    ids = [flow.receive(ct(number)) for number in NUMBERS]
    before = {"seal": (), "mark": (flow.seal,), "deliver": (flow.seal, flow.mark)}[step]
    for one in before:
        one()
    settle = "settle_deliveries" if step == "deliver" else "settle"
    place, name = (flow.steps, step) if when == "claimed" else (flow.store, settle)
    done = once_before(monkeypatch, place, name, restart)
    work(flow)
    assert done == [name]
    for _ in range(3):
        flow.store.end_leases()  # of what could not be settled: in a process that lives on they run out
        with transaction(flow.engine) as session:
            session.query(InstanceRow).update({"next_attempt_at": 0.0})
            session.query(DeliveryRow).update({"next_attempt_at": 0.0})
        assert work(flow) == 0  # the server is there again: nothing waits for it any more
    assert {flow.row(one).state for one in ids} == {"delivered"}
    assert {row.state for one in ids for row in flow.deliveries(one).values()} == {"sent"}
    strings = flow.sender.byte_strings()
    assert len(strings) == len(ids) and {len(digests) for digests in strings.values()} == {1}
    sent = Counter((destination, item.sop_instance_uid) for destination, item, _ in flow.sender.received)
    assert len(sent) == len(ids)
    # what was sent and could not be settled is sent again, the same bytes: the destination has it once
    assert max(sent.values()) <= (2 if step == "deliver" else 1)
    for number in NUMBERS:
        assert flow.restored(str(ct(number).SOPInstanceUID)) == encode(ct(number))
    marked = Counter(line["instance_id"] for line in flow.audited(events.INSTANCE_MARKED))
    assert set(marked) == set(ids)
    assert flow.store.end_leases() == 0
