"""Wake-ups: heard by other processes at once, on both databases; a lost one costs a pause and never an instance."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.config.models import Worker
from gateway.database import Bell, Wakes, open_wakes
from gateway.database.wakes import LEFT_S, NotifyLink, PipeLink
from gateway.errors import TransientError
from gateway.flow.store import FlowStore, lease_owner
from gateway.flow.worker import FlowWorker
from tests.flow.conftest import engine, make_flow, site_keys
from tests.support import postgresql
from tests.support.flow import add_row, ct
from tests.support.until import until

__all__ = ["engine", "make_flow", "site_keys"]

OTHER = """
import sys
from gateway.database import open_database, open_wakes
wakes = open_wakes(open_database(sys.argv[1]))
wakes.tell(sys.argv[2:])
wakes.close()
"""


def tell(engine, *topics: str) -> None:
    """Another process tells these topics and ends."""
    url = engine.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", OTHER, url, *topics], check=True, timeout=60)


def listening(engine) -> tuple[Wakes, Bell]:
    """Wake-ups that surely are listened for: a connection takes a moment to be made."""
    wakes = open_wakes(engine)
    bell = wakes.bell("received")
    wakes.listen()
    if isinstance(wakes._link, NotifyLink):
        assert bell.wait(50)  # rung once when it listens: what was told before may have been missed
    return wakes, bell


@pytest.mark.peers
def test_another_process_is_heard_and_other_topics_are_not(engine):
    wakes, bell = listening(engine)
    with closing(wakes):
        other = wakes.bell("to:outside")
        other.wait(0.3)
        tell(engine, "received")
        assert bell.wait(50)
        assert not bell.wait(0.2)
        assert not other.wait(0)
        tell(engine, "to:outside", "unknown")
        assert other.wait(50)


@pytest.mark.peers
def test_each_of_several_listeners_hears(engine):
    made = [listening(engine) for _ in range(3)]
    tell(engine, "received")
    assert [bell.wait(50) for _, bell in made] == [True] * 3
    for wakes, _ in made:
        wakes.close()


@pytest.mark.peers
def test_what_a_store_commits_wakes_who_waits_for_it(engine):
    wakes, bell = listening(engine)
    there = open_wakes(engine)  # as another process
    with closing(wakes), closing(there):
        add_row(FlowStore(engine, lease_owner(), there))
        assert bell.wait(50)


@pytest.mark.peers
@pytest.mark.parametrize("engine", postgresql.VERSIONS, indirect=True)
def test_a_lost_connection_is_made_anew(engine):
    wakes, bell = listening(engine)
    with closing(wakes):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
            )
        assert bell.wait(50)  # what was told meanwhile may have been missed
        tell(engine, "received")
        assert bell.wait(50)


def test_a_bell_that_rings_before_the_wait_is_heard_once():
    bell = Bell()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_a_bell_rings_at_the_first_of_its_times():
    bell = Bell()
    bell.ring(in_s=300)
    began = time.monotonic()
    bell.ring(in_s=0.1)
    assert bell.wait(50)
    assert time.monotonic() - began >= 0.1


@pytest.fixture
def pipes(tmp_path):
    """A database's place, and the names of the pipes there."""
    database = tmp_path / "gateway.sqlite"
    database.touch(0o600)
    return database, lambda: sorted(tmp_path.glob("gateway.sqlite-wake-*"))


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_pipe_has_the_mode_of_the_database_and_goes_with_its_process(pipes, mode):
    database, there = pipes
    database.chmod(mode)
    link = PipeLink(database)
    link.listen(lambda topics: None)
    [pipe] = there()
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert stat.S_IMODE(pipe.lstat().st_mode) == mode
    link.close()
    assert there() == []


def test_the_pipe_of_a_killed_process_is_deleted_by_the_next_but_a_young_one_is_not(pipes):
    database, there = pipes
    young, old = (database.with_name(f"gateway.sqlite-wake-{name}") for name in ("young", "old"))
    for pipe in (young, old):
        os.mkfifo(pipe)
    os.utime(old, (time.time() - 2 * LEFT_S,) * 2)
    link = PipeLink(database)
    link.listen(lambda topics: None)
    assert old not in there()
    assert young in there()
    link.close()


def test_what_is_no_pipe_is_not_written_to(pipes):
    """Other roles may write in that folder; they must not turn a wake-up into a write elsewhere."""
    database, _ = pipes
    victim = database.with_name("victim")
    victim.write_bytes(b"x")
    database.with_name("gateway.sqlite-wake-file").write_bytes(b"x")
    database.with_name("gateway.sqlite-wake-link").symlink_to(victim)
    PipeLink(database).tell({"received"})
    assert victim.read_bytes() == database.with_name("gateway.sqlite-wake-file").read_bytes() == b"x"


def test_a_pipe_that_is_full_keeps_nobody(pipes):
    database, _ = pipes
    held, given_up = threading.Event(), []
    link = PipeLink(database)
    link.listen(lambda topics: held.wait(50) or given_up.append(True))  # one that hears nothing meanwhile
    other = PipeLink(database)
    for _ in range(4000):  # a pipe holds 64 KiB (pipe(7))
        other.tell({"received-received-received"})
    assert not given_up
    held.set()
    link.close()


LOOPS = 3  # that look every `poll_s`: seal, mark, deliver-outside


@contextmanager
def working(flow, monkeypatch, poll_s: float) -> Iterator[None]:
    """A worker whose loops have looked, found nothing, and wait."""
    waiting: set[Bell] = set()
    wait = Bell.wait

    def noted(bell: Bell, longest_s: float) -> bool:
        if longest_s == poll_s:
            waiting.add(bell)
        return wait(bell, longest_s)

    monkeypatch.setattr(Bell, "wait", noted)
    settings = Worker(poll_s=poll_s, device="cpu")
    worker = FlowWorker(settings, flow.config.destinations[:1], flow.store, flow.steps, flow.sender, flow.retainer)
    worker.start()
    try:
        until("its loops wait", lambda: len(waiting) >= LOOPS)
        yield
    finally:
        worker.stop()


def delivered(flow, count: int) -> None:
    until("it is delivered", lambda: len(flow.sender.received) >= count)


def test_an_instance_goes_all_the_way_while_nobody_looks(make_flow, monkeypatch):
    """The worker looks once an hour: what moves, wake-ups moved. The ingress here is another process's view."""
    flow = make_flow()
    flow.store.wakes = open_wakes(flow.engine)
    ingress = flow.again()
    ingress.store.wakes = open_wakes(flow.engine)
    with working(flow, monkeypatch, 3600):
        ingress.receive(ct())
        delivered(flow, 1)


def test_a_lost_wake_up_costs_a_pause_and_no_instance(make_flow, monkeypatch):
    flow = make_flow()
    monkeypatch.setattr(Wakes, "tell", lambda self, topics: None)
    with working(flow, monkeypatch, 0.5):
        flow.receive(ct())
        delivered(flow, 1)


def test_what_is_tried_later_is_tried_then_and_not_when_somebody_looks(make_flow, monkeypatch):
    flow, tries = make_flow(), []

    def fail(*_: object) -> TransientError | None:
        tries.append(1)
        return TransientError("unreachable", "no") if len(tries) < 3 else None

    flow.sender.fail = fail
    outside = flow.config.destinations[0].model_copy(update={"retry_first_s": 0.2})
    flow.config = flow.config.model_copy(update={"destinations": (outside,)})
    with working(flow, monkeypatch, 3600):
        flow.receive(ct())
        delivered(flow, 1)
        assert len(tries) == 3


def test_an_operator_wakes_the_worker(make_flow, monkeypatch):
    flow = make_flow()
    one = flow.receive(ct())
    flow.operator.hold([one])
    flow.operator._wakes = flow.store.wakes
    with working(flow, monkeypatch, 3600):
        assert flow.operator.release([one]) == 1
        delivered(flow, 1)
