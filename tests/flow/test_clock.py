"""A clock that runs ahead deletes nothing: purging by age stops, is told of, and goes on when somebody confirms it."""

from __future__ import annotations

import os
import time

import pytest
from sqlalchemy import func, select

from gateway.audit import AuditLog, events
from gateway.config.models import Retention
from gateway.database import ClockRow, VaultRow, reading
from gateway.errors import CapacityError
from gateway.flow import clock, retention
from gateway.flow.clock import AHEAD_S, LONGEST_GAP_S, ClockGuard, confirm
from gateway.service import places
from tests.support.flow import Flow, ct

DAY = 86_400.0
START = 1_800_000_000.0


class Time:
    """A clock that can be set, and a count that cannot."""

    def __init__(self) -> None:
        self.wall, self.counted = START, 1000.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.counted += seconds

    def guard(self, flow: Flow) -> ClockGuard:
        """Of a process that starts now."""
        return ClockGuard(flow.engine, flow.context.audit, lambda: self.wall, lambda: self.counted)


def told(flow: Flow) -> list[str]:
    return [line["reason"] for line in flow.audited(events.CLOCK_NOT_BELIEVED)]


def test_time_that_passes_is_believed_for_months(flow):
    at = Time()
    guard = at.guard(flow)
    for _ in range(200):
        assert guard.believes()
        at.passes(DAY)
    assert told(flow) == []


@pytest.mark.parametrize(("jump", "believed"), [(AHEAD_S - 1, True), (AHEAD_S + 1, False), (31 * DAY, False)])
def test_a_jump_ahead_of_the_count_stops(flow, jump, believed):
    at = Time()
    guard = at.guard(flow)
    assert guard.believes()
    at.wall += jump
    assert guard.believes() is believed
    assert told(flow) == ([] if believed else ["ahead-of-monotonic-time"])


def test_many_small_jumps_count_together(flow):
    at = Time()
    guard = at.guard(flow)
    answers = []
    for _ in range(4):
        at.passes(60)
        at.wall += AHEAD_S / 3
        answers.append(guard.believes())
    assert answers == [True, True, True, False]


@pytest.mark.parametrize(("gap", "believed"), [(LONGEST_GAP_S - 60, True), (LONGEST_GAP_S + 60, False)])
def test_after_a_restart_the_last_recorded_time_counts(flow, gap, believed):
    at = Time()
    assert at.guard(flow).believes()
    at.wall += gap  # the count of another start of the machine says nothing
    at.counted = 5.0
    assert at.guard(flow).believes() is believed
    assert told(flow) == ([] if believed else ["ahead-of-last-recorded-time"])


def test_a_clock_that_runs_behind_only_keeps_longer(flow):
    at = Time()
    guard = at.guard(flow)
    at.wall -= 400 * DAY
    assert guard.believes() and at.guard(flow).believes()


def test_what_stopped_stays_stopped_over_restarts_until_it_is_confirmed(flow):
    at = Time()
    guard = at.guard(flow)
    assert guard.believes()
    at.wall += 31 * DAY
    assert not guard.believes()
    at.wall = START + 60  # the clock is right again: a person says so all the same
    assert not at.guard(flow).believes()
    assert not guard.believes()
    assert confirm(flow.engine, flow.context.audit, at.wall)
    assert at.guard(flow).believes() and guard.believes()
    assert len(told(flow)) == 1
    assert [line["reason"] for line in flow.audited(events.CLOCK_CONFIRMED)] == ["ahead-of-monotonic-time"]


def test_a_running_process_counts_anew_from_the_confirmation(flow):
    at = Time()
    guard = at.guard(flow)
    assert guard.believes()
    at.wall += 31 * DAY
    assert not guard.believes()
    assert confirm(flow.engine, flow.context.audit, at.wall)
    for _ in range(3):
        at.passes(DAY)
        assert guard.believes()
    at.wall += AHEAD_S + 1
    assert not guard.believes()


def test_it_stops_for_all_processes(flow):
    at = Time()
    one, other = at.guard(flow), at.guard(flow)
    assert one.believes() and other.believes()
    at.wall += 2 * AHEAD_S
    assert not one.believes()
    at.wall -= 2 * AHEAD_S
    assert not other.believes()


def test_what_cannot_be_told_of_is_not_confirmed(flow, monkeypatch):
    at = Time()
    guard = at.guard(flow)
    assert guard.believes()
    at.wall += 31 * DAY
    assert not guard.believes()

    def full(*_args, **_fields):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(AuditLog, "write", full)
        with pytest.raises(CapacityError, match="audit trail"):
            confirm(flow.engine, flow.context.audit, at.wall)
    assert clock.state(flow.engine).stopped_at is not None
    assert not guard.believes()


def test_the_kernels_count_goes_on_by_itself(flow):
    guard = ClockGuard(flow.engine, flow.context.audit)
    assert guard.believes()
    with reading(flow.engine) as session:
        assert abs(session.get(ClockRow, 1).seen_at - time.time()) < 60


# -- what it guards ------------------------------------------------------------------------------------------------


def test_a_clock_31_days_ahead_deletes_no_original_and_no_file(flow):
    flow.receive(ct())
    flow.run()
    at = Time()
    flow.retainer.once()  # segments go without a clock
    at.wall = time.time()
    later = flow.again(retention=Retention(vault_days=30, derived_days=1))
    later.clock = at.guard(flow).believes
    assert later.retainer.once(at.wall) == 0
    left = places(flow.config).derived / "0123.abcd.part"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    at.wall += 31 * DAY
    assert later.retainer.once(at.wall) == 0
    assert len(os.listdir(places(flow.config).vault)) == 1
    assert len(flow.derived()) == 2
    confirm(flow.engine, flow.context.audit, at.wall)
    assert later.retainer.once(at.wall) == 3
    assert os.listdir(places(flow.config).vault) == flow.derived() == []


def test_what_came_while_the_clock_ran_years_behind_is_not_old_when_it_is_right_again(flow, monkeypatch):
    """A machine that starts in 2020 until the network tells the time: `clock confirm` must not delete what is new."""
    at, real = Time(), time.time()
    at.wall = real
    assert at.guard(flow).believes()
    at.wall -= 2000 * DAY
    assert at.guard(flow).believes()
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: real - 2000 * DAY)
        flow.receive(ct())
        flow.run()
    assert len(os.listdir(places(flow.config).vault)) == 1
    at.wall = real + 60
    confirm(flow.engine, flow.context.audit, at.wall)
    keeping = flow.again(retention=Retention(vault_days=30)).retainer
    keeping.once(at.wall)
    assert len(os.listdir(places(flow.config).vault)) == 1
    keeping.once(at.wall + 31 * DAY)
    assert os.listdir(places(flow.config).vault) == []


@pytest.mark.parametrize(("most", "share", "ended"), [(1, 0.0, [1, 1, 1, 1]), (0, 0.5, [2, 1, 0]), (3, 0.5, [3, 1])])
def test_a_pass_ends_a_small_part_the_oldest_first(flow, monkeypatch, most, share, ended):
    monkeypatch.setattr(retention, "MOST_ORIGINALS", most)
    monkeypatch.setattr(retention, "MOST_SHARE", share)
    for number in range(1, 5):
        flow.receive(ct(number))
        flow.run()
    with reading(flow.engine) as session:
        oldest = session.scalars(select(VaultRow.locator).order_by(VaultRow.created_at)).first()
    flow.retainer.once()  # the segments
    keeping = flow.again(retention=Retention(vault_days=30, derived_days=1000)).retainer
    due = time.time() + 31 * DAY
    assert [keeping.once(due + number * retention.ORIGINALS_S) for number in range(len(ended))] == ended
    deleted = [line["locator"] for line in flow.audited(events.INSTANCE_DELETED)]
    assert len(deleted) == len(set(deleted)) == sum(ended)
    assert deleted[0] == oldest


def test_the_next_pass_over_originals_is_an_hour_later_over_restarts_too(flow, monkeypatch):
    """The worker goes on at once while there is something to delete: a share of each pass alone bounds nothing."""
    monkeypatch.setattr(retention, "MOST_ORIGINALS", 1)
    monkeypatch.setattr(retention, "MOST_SHARE", 0.0)
    for number in range(1, 5):
        flow.receive(ct(number))
    flow.run()
    flow.retainer.once()  # the segments
    keeping = Retention(vault_days=30, derived_days=1000)
    due, ended = time.time() + 31 * DAY, []
    retainer = flow.again(retention=keeping).retainer
    for after in (0, 0, 1, 3599):
        ended.append(retainer.once(due + after))
        retainer = flow.again(retention=keeping).retainer  # a restart allows nothing anew
    assert ended == [1, 0, 0, 0]
    assert retainer.once(due + 3600) == 1
    assert retainer.once(due - 400 * DAY) == 0  # nothing is due, and a pass of a clock that ran far ahead ...
    assert retainer.once(due) == 1  # ... is none to wait for


def test_the_shares_are_those_of_the_design():
    assert (retention.MOST_ORIGINALS, retention.MOST_SHARE, retention.ORIGINALS_S) == (1000, 0.05, 3600)
    assert (AHEAD_S, LONGEST_GAP_S) == (3600, 7 * DAY)


def test_what_retention_deletes_takes_name_and_birth_date_with_it(flow):
    person = {"PatientName": "Doe^Jane", "PatientBirthDate": "19700101", "PatientID": "MRN-4711"}
    flow.receive(ct(**person, AccessionNumber="ACC-0815"))
    flow.run()
    flow.again(retention=Retention(vault_days=30)).retainer.once(time.time() + 31 * DAY)
    with reading(flow.engine) as session:
        [row] = session.scalars(select(VaultRow))
    assert row.payload_file is None
    values = [getattr(row, column.key) for column in VaultRow.__table__.columns]
    for told_of in ("Doe^", "19700101", "MRN-", "ACC-"):  # none that random digits and bytes give by chance
        assert told_of not in "".join(map(repr, values)), told_of
    assert row.attributes == {}
    assert flow.context.protector.record(row.locator).locator == row.locator  # what is signed still fits


def test_an_original_that_cannot_be_told_of_stays(flow, monkeypatch):
    flow.receive(ct())
    flow.run()
    keeping = flow.again(retention=Retention(vault_days=30)).retainer

    def full(*_args, **_fields):
        raise OSError("disk full")

    monkeypatch.setattr(AuditLog, "write", full)
    with pytest.raises(OSError):
        keeping.once(time.time() + 31 * DAY)
    assert len(os.listdir(places(flow.config).vault)) == 1
    with reading(flow.engine) as session:
        live = select(func.count()).select_from(VaultRow).where(VaultRow.payload_file.is_not(None))
        assert session.scalar(live) == 1


def test_a_payload_that_a_kill_left_after_its_retention_is_found(flow, monkeypatch):
    flow.receive(ct())
    flow.run()
    due = time.time() + 31 * DAY
    with monkeypatch.context() as patched:
        patched.setattr("gateway.vault.payloads.PayloadStore.delete", lambda *_: True)
        flow.again(retention=Retention(vault_days=30)).retainer.once(due)
    assert len(os.listdir(places(flow.config).vault)) == 1
    flow.again(retention=Retention(vault_days=30)).retainer.once(due)
    assert os.listdir(places(flow.config).vault) == []
