"""What kills the worker: its neighbours leave, it goes alone, and is held after a few deaths."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import threading
import time

import pytest

from gateway.audit import events
from gateway.config.models import Worker
from gateway.database import DeliveryRow, InstanceRow, transaction
from gateway.flow.backoff import MOST_DEATHS
from gateway.flow.changes import sealed, untried
from gateway.flow.gate import Gate
from gateway.flow.leases import lease_owner
from gateway.flow.store import RECEIVED, SEALED, FlowStore
from gateway.flow.worker import FlowWorker
from tests.support.flow import ct

DEAD = "elsewhere:1:00000000"


@pytest.mark.parametrize("owner", ["x", "a:b", "{0}:x:y", "{0}:{1}:x", "{0}:-1:x", "{0}:0:x", "{0}:\u0661:x"])
def test_a_row_whose_lease_names_no_process_stops_nobody(make_flow, owner):
    """Ingress adds rows: with a name that cannot be read no worker started any more, and none that ran went on."""
    flow = make_flow()
    one, other = flow.receive(ct(1)), flow.receive(ct(2))
    with transaction(flow.engine) as session:
        name = owner.format(lease_owner().partition(":")[0], "9" * 10)
        session.query(InstanceRow).filter_by(id=one).update({"lease_owner": name, "lease_until": 1.0})
    flow.again()
    flow.run()
    flow.run()
    assert {flow.row(one).state, flow.row(other).state} == {"delivered"}


def test_a_machine_of_the_same_name_is_another_one(make_flow):
    """Cloned machines, and containers that each count their processes from 1: theirs are not ours, alive or dead."""
    flow = make_flow()
    one = flow.receive(ct(1))
    pid = os.getpid()
    for owner in (f"{platform.node()}:{pid}:00000000", f"{platform.node()[:24]}.{'0' * 12}:{pid}:00000000"):
        with transaction(flow.engine) as session:
            session.query(InstanceRow).filter_by(id=one).update({"lease_owner": owner, "lease_until": 9e9})
        assert flow.store.free_dead_leases() == 0
    assert len(lease_owner()) <= 64  # the column's


def test_a_row_whose_counts_are_full_stops_nobody(make_flow):
    """A column of PostgreSQL ends at 2,147,483,647, and a claim that would go beyond fails for the whole batch."""
    flow, full = make_flow(), 2**31 - 1
    ids = [flow.receive(ct(number)) for number in (1, 2)]
    with transaction(flow.engine) as session:
        session.query(InstanceRow).filter_by(id=ids[0]).update({"attempts": full})
        session.query(InstanceRow).filter_by(id=ids[1]).update(
            {"deaths": full, "lease_owner": DEAD, "lease_until": 1.0, "attempts": full}
        )
    assert [row.id for row in flow.store.claim(RECEIVED, 10, 60)] == ids[:1]
    assert [row.id for row in flow.store.claim_suspect(RECEIVED, 60)] == ids[1:]
    assert all(max(flow.row(one).attempts, flow.row(one).deaths) <= full for one in ids)


@pytest.mark.full
def test_seven_neighbours_leave_and_the_eighth_is_held_after_few_deaths(make_flow, site_keys):
    """A real process, ended in the middle of a batch by SIGKILL, abort or a segmentation fault; at each step."""
    steps = ("seal", "mark", "deliver")
    sites = {step: make_flow() for step in steps}
    instances = {step: [sites[step].receive(ct(number)) for number in range(1, 9)] for step in steps}
    wanted = [(str(sites[step].config.site.state), step, instances[step][3]) for step in steps]
    done = subprocess.run(
        [sys.executable, "-m", "tests.flow.lives", str(site_keys), *(word for one in wanted for word in one)],
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lives = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    assert lives == [MOST_DEATHS + 1] * 3
    for step in steps:
        flow, ids, poison = sites[step], instances[step], instances[step][3]
        assert {flow.row(each).state for each in ids if each != poison} == {"delivered"}
        assert set((flow.config.site.state / "sent").read_text().split()) == set(ids) - {poison}
        assert (flow.row(poison).state, flow.row(poison).reason_code) == ("held", "killed-the-worker")
        told = [(line["instance_id"], line["reason"]) for line in flow.audited(events.INSTANCE_HELD)]
        assert told == [(poison, "killed-the-worker")]
        counted = flow.deliveries(poison)["outside"] if step == "deliver" else flow.row(poison)
        assert counted.attempts == MOST_DEATHS + 1  # each claim counts, the one that only held it too
        flow.operator.release([poison])
        assert flow.row(poison).deaths == (0 if step == "deliver" else 1)  # suspected still


def test_the_attempt_counts_when_it_is_claimed(flow):
    instance_id = flow.receive(ct())
    [row] = flow.store.claim(RECEIVED, 1, 60)
    assert flow.row(instance_id).attempts == 1
    assert flow.store.settle([sealed(row, "record")]) == [None]
    assert flow.row(instance_id).attempts == 0


def test_a_delivery_that_is_given_back_untried_counts_none(flow):
    instance_id = flow.receive(ct())
    flow.seal()
    flow.mark()
    [(delivery, _)] = flow.store.claim_deliveries("outside", 1, 60)
    flow.store.settle_deliveries([untried(delivery)])
    after = flow.deliveries(instance_id)["outside"]
    assert (after.attempts, after.deaths, after.lease_owner) == (0, 0, None)


def test_after_a_death_each_of_the_batch_goes_alone_and_new_ones_together(flow):
    batch = [flow.receive(ct(number)) for number in (1, 2, 3)]
    FlowStore(flow.engine, DEAD).claim(RECEIVED, 3, lease_s=-1)
    new = [flow.receive(ct(number)) for number in (4, 5)]
    assert [row.id for row in flow.store.claim(RECEIVED, 8, 60)] == new
    assert flow.store.has_suspect(RECEIVED)
    alone = [flow.store.claim_suspect(RECEIVED, 60) for _ in range(4)]
    assert [[row.id for row in rows] for rows in alone] == [[each] for each in batch] + [[]]
    assert {flow.row(each).deaths for each in batch} == {1}


def test_a_step_that_is_done_clears_the_suspicion(flow):
    instance_id = flow.receive(ct())
    FlowStore(flow.engine, DEAD).claim(RECEIVED, 1, lease_s=-1)
    flow.seal()
    assert (flow.row(instance_id).state, flow.row(instance_id).deaths) == ("sealed", 0)


def test_a_lease_that_ran_out_while_its_process_lives_is_no_death(flow):
    """The database was away for longer than the lease."""
    instance_id = flow.receive(ct())
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host, _, token = lease_owner().rsplit(":", 2)
        FlowStore(flow.engine, f"{host}:{other.pid}:{token}").claim(RECEIVED, 1, lease_s=-1)
        assert [row.id for row in flow.store.claim(RECEIVED, 1, 60)] == [instance_id]
    finally:
        other.communicate(b"\n")
    assert flow.row(instance_id).deaths == 0


def test_what_an_orderly_stop_does_not_finish_is_no_death(flow):
    instance_id = flow.receive(ct())
    flow.store.claim(RECEIVED, 1, 600)
    worker(flow).stop(0)
    assert (flow.row(instance_id).lease_owner, flow.row(instance_id).deaths) == (None, 0)


def test_the_first_deaths_hold_nothing_that_works(flow):
    instance_id = flow.receive(ct())
    with transaction(flow.engine) as session:
        session.query(InstanceRow).update({"deaths": MOST_DEATHS - 1})
    flow.run()
    assert flow.row(instance_id).state == "delivered"


@pytest.mark.parametrize("step", ["seal", "mark", "deliver"])
def test_too_many_deaths_hold_at_every_step(flow, step):
    instance_id = flow.receive(ct())
    if step != "seal":
        flow.seal()
    if step == "deliver":
        flow.mark()
    table = DeliveryRow if step == "deliver" else InstanceRow
    with transaction(flow.engine) as session:
        session.query(table).update({"deaths": MOST_DEATHS})
    flow.run()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "killed-the-worker")
    assert flow.sender.received == []


def worker(flow) -> FlowWorker:
    settings = Worker(device="cpu")
    return FlowWorker(settings, flow.config.destinations, flow.store, flow.steps, flow.sender, flow.retainer)


def test_the_worker_does_what_is_suspected_alone_after_the_rest(flow):
    suspected = flow.receive(ct(1))
    FlowStore(flow.engine, DEAD).claim(RECEIVED, 1, lease_s=-1)
    healthy = flow.receive(ct(2))
    order = []
    original = flow.steps.seal
    flow.steps.seal = lambda rows: (order.extend(row.id for row in rows), original(rows))
    assert worker(flow).seal_once() == 2
    assert order == [healthy, suspected]
    assert not flow.store.has_suspect(SEALED)


def test_nobody_else_is_inside_the_gate_with_one_who_is_alone():
    gate, inside, most = Gate(), [], []
    stop = threading.Event()

    def share() -> None:
        while not stop.is_set():
            with gate.shared():
                inside.append(1)
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=share) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with gate.alone():
            most.append(len(inside))
            time.sleep(0.001)
            most.append(len(inside))
    stop.set()
    for thread in threads:
        thread.join()
    assert most == [0] * 40
