"""`queue`: what an operator sees and does, on rows as the flow writes them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.audit import events
from gateway.config import load_config
from gateway.database import ClockRow, DeliveryRow, InstanceRow, VaultRow, open_database, transaction
from gateway.flow.store import FlowStore


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
        session.add(DeliveryRow(instance_id="marked", route="research", destination="research-pacs", state="queued"))
        session.add(DeliveryRow(instance_id="delivered", route="research", destination="research-pacs", state="sent"))
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
    assert head.split() == [
        "ID",
        "STATE",
        "ROUTE",
        "FROM",
        "RECEIVED",
        "DELIVERIES",
        "TRIES",
        "NEXT",
        "STUDY",
        "REASON",
    ]
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
    done = run("queue", command, instance, "--config", sample)
    assert (done.code, "code: audit-full" in done.err) == (1, True)
    assert state_of(engine, instance) == instance


def test_replay_says_when_the_route_names_none_of_the_destinations(run, sample, engine) -> None:
    with transaction(engine) as session:
        session.query(DeliveryRow).update({"destination": "renamed"})
    done = run("queue", "replay", "delivered", "--config", sample)
    assert done.code == 1
    assert "code: destination-not-named" in done.err
    assert state_of(engine, "delivered") == "delivered"


HELD = ("aaaa1", "aaaa2", "bbbb1")


@pytest.fixture
def several(engine: Engine) -> Engine:
    """Three more that are held, two of them for a destination, and one that waits for its next try."""
    with transaction(engine) as session:
        for number, name in enumerate(HELD):
            held = row("held", time.time() - 7200 * number)
            held.id, held.sop_instance_uid = name, f"1.2.9.{number}"
            held.reason_code = held.reason = "refused" if name.startswith("a") else "no-profile"
            session.add(held)
        waiting = row("marked", time.time())
        waiting.id = "cccc1"
        session.add(waiting)
        session.flush()
        session.add(
            DeliveryRow(
                instance_id="aaaa1", route="research", destination="research-pacs", state="held", reason_code="refused"
            )
        )
        session.add(DeliveryRow(instance_id="aaaa2", route="research", destination="research-pacs", state="sent"))
        session.add(
            DeliveryRow(instance_id="aaaa2", route="research", destination="other", state="held", reason_code="refused")
        )
        late = time.time() + 3600
        session.add(
            DeliveryRow(
                instance_id="cccc1", route="research", destination="research-pacs", state="queued",
                attempts=7, next_attempt_at=late,
                reason_code="unreachable", reason="nobody answers",
            )
        )  # fmt: skip
    return engine


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--reason", "refused"], {"aaaa1", "aaaa2"}),
        (["--reason", "unreachable"], {"cccc1"}),
        (["--destination", "other"], {"aaaa2"}),
        (["--state", "held", "--destination", "research-pacs"], {"aaaa1"}),
        (["--state", "held", "--older", "1h"], {"aaaa2", "bbbb1"}),
        (["--state", "held", "--older", "3h"], {"bbbb1"}),
        (["--route", "nowhere"], set()),
        (["--study", "1.2.3"], set()),
        (["--state", "held", "--reason", "no-profile", "--route", "research"], {"held", "bbbb1"}),
    ],
)
def test_ls_shows_what_the_filters_let_through(run, sample, several, options: list[str], ids: set[str]) -> None:
    done = run("queue", "ls", "--config", sample, "--json", *options)
    assert {item["id"] for item in done.rows} == ids, done.err


def test_ls_and_show_tell_of_tries_and_of_the_next_one(run, sample, several) -> None:
    (item,) = run("queue", "ls", "--config", sample, "--json", "--reason", "unreachable").rows
    assert item["attempts"] == 7 and 3500 < item["next_attempt_at"] - time.time() <= 3600
    (facts,) = run("queue", "show", "ccc", "--config", sample, "--json").rows
    (delivery,) = facts["deliveries"]
    assert (delivery["reason"], delivery["attempts"], facts["sop_instance_uid"]) == ("nobody answers", 7, "1.2.6")
    assert "nobody answers" in run("queue", "show", "cccc1", "--config", sample).out


def test_an_id_may_be_its_first_letters_when_they_are_one_instances(run, sample, several) -> None:
    assert run("queue", "release", "bbb", "--config", sample).code == 0
    assert state_of(several, "bbbb1") == "received"
    for written, code in (("aaaa", "ambiguous-id"), ("aa", "short-id"), ("%aaa", "no-such-instance")):
        done = run("queue", "release", written, "--config", sample)
        assert (done.code, f"code: {code}" in done.err) == (2, True), done.err
    assert state_of(several, "aaaa1") == "held"


@pytest.mark.parametrize(
    ("options", "released"),
    [
        (["--reason", "refused"], {"aaaa1", "aaaa2"}),
        (["--destination", "other"], {"aaaa2"}),
        (["--older", "3h"], {"bbbb1"}),
        (["--all"], {*HELD, "held"}),
    ],
)
def test_held_instances_are_released_by_what_they_have_in_common(run, sample, several, options, released) -> None:
    done = run("queue", "release", "--config", sample, *options)
    assert done.code == 0, done.err
    assert {one for one in (*HELD, "held") if state_of(several, one) == "received"} == released
    assert {line["instance_id"] for line in audited(sample)} == released


def test_one_that_cannot_be_released_keeps_no_other_back(run, sample, several) -> None:
    with transaction(several) as session:
        session.get(InstanceRow, "aaaa2").spool_file = None
    done = run("queue", "release", "--all", "--config", sample)
    assert (done.code, "3 of 4 released" in done.err, "[spool-purged]" in done.err) == (3, True, True)


@pytest.mark.parametrize("command", ["hold", "release", "retry", "replay", "discard"])
def test_nothing_is_done_to_all_unless_it_is_said(run, sample, several, command) -> None:
    for words in ([], ["aaaa1", "--all"]):
        done = run("queue", command, *words, "--config", sample)
        assert (done.code, "code: no-choice" in done.err) == (2, True), done.err
    assert audited(sample) == []


def test_retry_takes_the_waiting_out_of_the_next_try(run, sample, several) -> None:
    done = run("queue", "retry", "--destination", "research-pacs", "--config", sample)
    assert done.code == 0, done.err
    with transaction(several) as session:
        (late,) = session.query(DeliveryRow).filter_by(instance_id="cccc1")
        assert (late.next_attempt_at, late.attempts) == (0.0, 7)
    assert [(line["operation"], line["instance_id"]) for line in audited(sample)] == [("retry", "cccc1")]


def sealed(sample: Path, engine: Engine, instance: str, payload: str | None = "file", there: bool = True) -> None:
    """Give an instance a vault record, and its payload a file."""
    locator = f"{len(instance):032x}"
    with transaction(engine) as session:
        session.get(InstanceRow, instance).record = locator
        session.add(
            VaultRow(
                locator=locator, generation=1, original_sop_uid="1.2.9", original_series_uid="1.3", study_uid="1.4",
                derived_sop_uid="2.25.1", derived_series_uid="2.25.2", sop_class_uid="1.2", transfer_syntax_uid="1.2",
                original_sha256="0", original_size=1, policy="p", token=b"", document=b"", signature=b"", signer="s",
                payload_file=payload, created_at=1.0, attributes={},
            )
        )  # fmt: skip
    if there:
        folder = load_config(sample).site.state / "vault"
        folder.mkdir(exist_ok=True)
        (folder / locator).write_bytes(b"sealed")


def test_what_is_sealed_is_discarded_and_its_received_bytes_go(run, sample, engine) -> None:
    sealed(sample, engine, "held")
    done = run("queue", "discard", "held", "--config", sample)
    assert done.code == 0, done.err
    assert state_of(engine, "held") == "discarded"
    (line,) = audited(sample)
    assert (line["event"], line["reason"]) == (events.INSTANCE_DISCARDED, "original-sealed")
    store = FlowStore(engine, "test")
    assert "held" in [row.id for row in store.spool_to_purge()]
    with transaction(engine) as session:
        session.get(InstanceRow, "held").derived_file = "its-own"
    assert "its-own" in store.derived_to_purge(0.0)
    assert store.records_in_use(0.0) == set()  # retention decides, by its age alone
    assert run("queue", "release", "held", "--config", sample).code == 3
    assert run("queue", "discard", "delivered", "--config", sample).code == 3


@pytest.mark.parametrize(
    ("payload", "there"), [("none at all", False), (None, True), ("carried", True), ("file", False)]
)
def test_what_is_not_sealed_is_discarded_only_by_its_whole_id_again(run, sample, engine, payload, there) -> None:
    if payload != "none at all":
        sealed(sample, engine, "held", payload, there)
    for words in (["held"], ["--all"], ["held", "--really", "hel"], ["held", "--really", "yes"]):
        done = run("queue", "discard", *words, "--config", sample)
        assert (done.code in (1, 3), "original-not-sealed" in done.err) == (True, True), done.err
        assert state_of(engine, "held") == "held"
    assert audited(sample) == []
    assert run("queue", "discard", "held", "--really", "held", "--config", sample).code == 0
    assert state_of(engine, "held") == "discarded"
    assert [line["reason"] for line in audited(sample)] == ["confirmed-unsealed"]


def test_status_tells_of_each_route_and_destination(run, sample, several) -> None:
    done = run("status", "--config", sample, "--json")
    assert done.code == 0, done.err
    (row,) = done.rows
    (route,) = row["routes"]
    assert {name: route[name] for name in ("total", "waiting", "marked", "held", "delivered")} == {
        "total": 8, "waiting": 1, "marked": 2, "held": 4, "delivered": 1,
    }  # fmt: skip
    by_name = {one["destination"]: one for one in row["deliveries"]}
    assert (by_name["research-pacs"]["queued"], by_name["research-pacs"]["sent"]) == (2, 2)
    assert by_name["research-pacs"]["next_attempt_at"] > time.time() + 3000
    assert (by_name["other"]["held"], by_name["other"]["configured"]) == (1, False)
    assert {(one["reason_code"], one["count"]) for one in row["held"]} == {("refused", 2), ("no-profile", 2)}
    assert all(one["up"] is False for one in row["listeners"])
    shown = run("status", "--config", sample).out
    assert "DOWN" in shown and "other (gone)" in shown and "in 59 min" in shown


def test_status_of_a_new_site_names_what_is_configured(run, sample) -> None:
    done = run("status", "--config", sample)
    assert done.code == 0 and "research-pacs" in done.out and "HELD BECAUSE" not in done.out


def test_the_configuration_is_found_where_it_usually_is(run, sample: Path, tmp_path: Path) -> None:
    done = run("queue", "ls")
    assert (done.code, "code: config-missing" in done.err) == (2, True), done.err
    assert run("queue", "ls", MIAD_GATEWAY_CONFIG=str(sample)).code == 0
    sample.with_name("gateway.toml").rename(tmp_path / "gateway.toml")
    assert run("queue", "ls").code == 0


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
