"""`queue`: what an operator sees and does, on rows as the flow writes them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.audit import events
from gateway.config import load_config
from gateway.database import ClockRow, DeliveryRow, InstanceRow, open_database, transaction


@pytest.fixture
def engine(sample: Path) -> Engine:
    """The site's database with one instance in each state that the commands tell apart."""
    state = load_config(sample).site.state
    state.mkdir(mode=0o700)
    engine = open_database(load_config(sample).database_url)
    with transaction(engine) as session:
        for number, reached in enumerate(["received", "marked", "delivered", "held"]):
            session.add(row(reached, time.time() + number))
        session.flush()
        session.add(DeliveryRow(instance_id="marked", destination="research-pacs", state="queued"))
        session.add(DeliveryRow(instance_id="delivered", destination="research-pacs", state="sent"))
    return engine


def row(state: str, received_at: float) -> InstanceRow:
    """An instance whose id is its state."""
    return InstanceRow(
        id=state, state=state, route="research", calling_ae="ARCHIVE", called_ae="MIAD_RESEARCH",
        peer_address="127.0.0.1", association_id="a1", sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.{len(state)}", transfer_syntax_uid="1.2.840.10008.1.2.1", size=10, sha256="0" * 64,
        spool_file="spooled", derived_file="derived", held_from="sealed" if state == "held" else None,
        reason_code="no-profile" if state == "held" else None, reason="no profile" if state == "held" else None,
        received_at=received_at,
    )  # fmt: skip


def state_of(engine: Engine, instance: str) -> str:
    with transaction(engine) as session:
        return session.get(InstanceRow, instance).state


def audited(sample: Path) -> list[dict]:
    path = load_config(sample).site.state / "audit" / "operator.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_ls_shows_the_newest_first_with_reason_and_deliveries(run, sample: Path, engine: Engine) -> None:
    done = run("queue", "ls", "--config", sample)
    assert done.code == 0, done.err
    head, *lines = done.out.splitlines()
    assert head.split() == ["ID", "STATE", "ROUTE", "FROM", "RECEIVED", "DELIVERIES", "REASON"]
    assert [line.split()[0] for line in lines] == ["held", "delivered", "marked", "received"]
    assert "no profile [no-profile]" in lines[0]
    assert "research-pacs:sent" in lines[1]


def test_ls_as_json_is_one_instance_a_line(run, sample: Path, engine: Engine) -> None:
    done = run("queue", "ls", "--config", sample, "--json")
    assert [item["id"] for item in done.rows] == ["held", "delivered", "marked", "received"]
    assert done.rows[0]["reason_code"] == "no-profile"
    assert done.rows[2]["deliveries"] == {"research-pacs": "queued"}
    assert done.err == ""


def test_ls_of_one_state_and_of_a_few(run, sample: Path, engine: Engine) -> None:
    only = run("queue", "ls", "--config", sample, "--json", "--state", "held")
    assert [item["id"] for item in only.rows] == ["held"]
    few = run("queue", "ls", "--config", sample, "--json", "--limit", "2")
    assert [item["id"] for item in few.rows] == ["held", "delivered"]
    assert run("queue", "ls", "--config", sample, "--state", "lost").code == 2


def test_ls_of_an_empty_site_is_only_the_head(run, sample: Path) -> None:
    done = run("queue", "ls", "--config", sample)
    assert (done.code, len(done.out.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("command", "instance", "becomes"),
    [("hold", "received", "held"), ("release", "held", "received"), ("replay", "delivered", "marked")],
)
def test_an_operator_changes_what_becomes_of_an_instance_and_is_audited(
    run, sample, engine, command, instance, becomes
) -> None:
    done = run("queue", command, instance, "--config", sample)
    assert done.code == 0, done.err
    assert state_of(engine, instance) == becomes
    [line] = audited(sample)
    assert line["event"] == (events.INSTANCE_HELD if command == "hold" else events.INSTANCE_RELEASED)
    assert (line["operation"], line["instance_id"], line["route"]) == (command, instance, "research")
    assert (line["outcome"], line["reason"]) == ("success", "operator")


@pytest.mark.parametrize(
    ("command", "instance"), [("hold", "delivered"), ("release", "received"), ("replay", "received")]
)
def test_what_cannot_be_done_in_a_state_is_code_3_and_changes_nothing(run, sample, engine, command, instance) -> None:
    done = run("queue", command, instance, "--config", sample)
    assert done.code == 3
    assert done.err.startswith("0 of 1 ")
    assert state_of(engine, instance) == instance
    assert audited(sample) == []


@pytest.mark.parametrize("command", ["hold", "release", "replay"])
def test_an_unknown_id_is_code_2_and_changes_nothing(run, sample, engine, command) -> None:
    done = run("queue", command, "received", "delivered", "held", "nobody", "--config", sample)
    assert done.code == 2
    assert "code: no-such-instance" in done.err
    assert {state_of(engine, each) for each in ("received", "delivered", "held")} == {"received", "delivered", "held"}
    assert audited(sample) == []


@pytest.mark.parametrize(("command", "instance"), [("hold", "received"), ("release", "held"), ("replay", "delivered")])
def test_what_cannot_be_audited_is_not_done(run, sample, engine, command, instance) -> None:
    folder = load_config(sample).site.state / "audit"
    folder.mkdir(exist_ok=True)
    (folder / "operator.jsonl").symlink_to("/dev/full")
    assert run("queue", command, instance, "--config", sample).code == 1
    assert state_of(engine, instance) == instance


def test_replay_says_when_the_route_names_none_of_the_destinations(run, sample, engine) -> None:
    with transaction(engine) as session:
        session.query(DeliveryRow).update({"destination": "renamed"})
    done = run("queue", "replay", "delivered", "--config", sample)
    assert done.code == 1
    assert "code: destination-not-named" in done.err
    assert state_of(engine, "delivered") == "delivered"


def test_the_clock_is_shown_and_confirmed(run, sample, engine) -> None:
    with transaction(engine) as session:
        session.add(ClockRow(id=1, seen_at=1.0, stopped_at=time.time(), reason="ahead-of-monotonic-time", confirmed=0))
    stopped = run("clock", "show", "--config", sample, "--json")
    assert (stopped.code, stopped.rows[0]["reason"]) == (3, "ahead-of-monotonic-time")
    done = run("clock", "confirm", "--config", sample)
    assert (done.code, "confirmed" in done.err) == (0, True)
    shown = run("clock", "show", "--config", sample)
    assert (shown.code, "last believed" in shown.out) == (0, True)
    assert [(line["event"], line["reason"]) for line in audited(sample)] == [
        (events.CLOCK_CONFIRMED, "ahead-of-monotonic-time")
    ]
