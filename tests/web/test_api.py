"""The JSON under /api/v1: what it tells, what it never tells, and what it answers when it cannot."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gateway.config.models import Database
from gateway.config.page import Page
from gateway.errors import PermanentError, TransientError
from gateway.flow.clock import ClockGuard
from gateway.service.page import page_sources
from gateway.web.app import create_app
from gateway.web.sources import Looks
from tests.support.flow import ROUTE, Flow, configuration, ct
from tests.web.conftest import PATIENT, Shown, with_page

EVERY = ["status", "queue", "destinations", "certificates", "keys", "configuration", "audit"]
EVERY += ["studies", "marks", "restores"]
ALL = [*EVERY, "studies/1.2.3.1"]


def test_the_status_counts_what_the_flow_did(fresh: Shown) -> None:
    status = fresh.client.get("/api/v1/status").json()
    routes = {one["route"]: one for one in status["routes"]}
    assert {name: routes["relay"][name] for name in ("total", "waiting", "marked", "held", "delivered")} == {
        "total": 3, "waiting": 1, "marked": 0, "held": 1, "delivered": 1,
    }  # fmt: skip
    assert (routes["relay"]["received_recently"], routes["relay"]["marked_recently"]) == (3, 2)
    deliveries = {(one["route"], one["destination"]): one for one in status["deliveries"]}
    assert (deliveries["relay", "outside"]["sent_recently"], deliveries["relay", "outside"]["failing"]) == (1, 0)
    assert 0 < deliveries["relay", "outside"]["latency_s"] < 60
    failing = deliveries["partner", "second"]
    assert (failing["queued"], failing["failing"]) == (1, 1) and failing["next_attempt_at"] > status["at"]
    held = {one["reason_code"]: one for one in status["held"]}
    assert set(held) == {"route-holds", "context-refused"}
    assert "Mend the destination" in held["context-refused"]["cure"]


def test_the_queue_is_filtered_and_an_instance_is_found_by_its_first_letters(shown: Shown) -> None:
    held = shown.client.get("/api/v1/queue", params={"state": "held", "reason": "context-refused"}).json()
    assert [one["id"] for one in held] == [shown.ids["refused"]]
    assert held[0]["deliveries"] == {"outside": "held"} and held[0]["cure"]
    assert len(shown.client.get("/api/v1/queue", params={"limit": 2}).json()) == 2
    one = shown.client.get(f"/api/v1/instances/{shown.ids['refused'][:10]}").json()
    assert (one["id"], one["study_uid"], one["state"]) == (shown.ids["refused"], "1.2.3.1", "held")
    assert one["derived_sop_instance_uid"].startswith("2.25.")
    assert one["deliveries"][0]["reason_code"] == "context-refused"


def test_nothing_of_a_patient_and_no_secret_is_told(shown: Shown) -> None:
    pages = ["/", "/queue", "/audit", "/configuration", "/metrics", *(f"/instances/{id}" for id in shown.ids.values())]
    pages += [f"/api/v1/{name}" for name in ALL] + [f"/api/v1/instances/{id}" for id in shown.ids.values()]
    for page in pages:
        answer = shown.client.get(page)
        assert answer.status_code == 200, page
        assert [word for word in ("Doe", *PATIENT.values()) if word in answer.text] == [], page
    for uid in ("1.2.826.0.1.99.1", "1.2.3.1"):
        assert uid not in shown.client.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/instances/" + "0" * 32, 404, "no-such-instance"),
        ("/api/v1/instances/zz", 422, "bad-request"),
        ("/api/v1/queue?state=odd", 422, "bad-request"),
        ("/api/v1/queue?limit=0", 422, "bad-request"),
        ("/api/v1/nothing", 404, "http-404"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_shape(shown: Shown, path: str, status: int, code: str) -> None:
    answer = shown.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"code", "message", "hint"}


def test_it_only_reads(shown: Shown) -> None:
    for path in ("/api/v1/status", "/queue", "/"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert shown.client.request(method, path).status_code == 405


def test_every_answer_is_described(shown: Shown) -> None:
    description = shown.client.get("/api/v1/openapi.json").json()
    for name in EVERY:
        (answer,) = [description["paths"][f"/api/v1/{name}"]["get"]["responses"]["200"]]
        assert answer["content"]["application/json"]["schema"]
    assert "/" not in description["paths"] and "/queue" not in description["paths"]


def without_database(tmp_path: Path, keys: Path) -> TestClient:
    config = with_page(tmp_path / "state", keys)
    url = "postgresql+psycopg://page:S3CRET@127.0.0.1:9/gateway"  # discard: nobody listens there
    config = config.model_copy(update={"database": Database(url=url)})
    return TestClient(create_app(page_sources(config)), base_url="http://localhost")


def test_without_its_database_it_says_so_plainly(tmp_path: Path, page_keys: Path) -> None:
    client = without_database(tmp_path, page_keys)
    assert client.get("/live").status_code == 200
    for path in ("/ready", "/api/v1/status", "/api/v1/queue"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "database-unreachable"), path
        assert "nobody listens there" in answer.json()["message"] and "S3CRET" not in answer.text
    page = client.get("/")
    assert page.status_code == 503 and "The database does not answer" in page.text and "S3CRET" not in page.text
    assert "miad_gateway_database_up 0.0" in client.get("/metrics").text
    settings = {one["path"]: one for one in client.get("/api/v1/configuration").json()}
    assert settings["database.url"]["value"] == "postgresql+psycopg://••••@127.0.0.1:9/gateway"


def test_a_database_that_comes_back_is_found(own: Shown) -> None:
    """Rows that cannot be read now (a lock, a full disk) are a 503; afterwards all is as before."""
    name = own.config.site.state / "gateway.sqlite"
    hidden = name.with_suffix(".away")
    own.flow.engine.dispose()
    own.client.app.state.sources.engine().dispose()  # else the open file goes on
    name.rename(hidden)
    name.mkdir()
    assert own.client.get("/ready").status_code == 503  # at once, however new the figures are
    assert "miad_gateway_database_up 0.0" in own.client.get("/metrics").text
    name.rmdir()
    hidden.rename(name)
    own.client.app.state.sources.looks._until = 0.0
    assert own.client.get("/ready").status_code == 200


def test_a_look_that_takes_long_is_taken_seldom(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody asks, looking takes a small share of the database's time."""
    now, looked = [0.0], []
    figures = shown.client.app.state.sources.looks.overview()

    def slow(engine, routes, destinations):
        looked.append(now[0])
        now[0] += 2.0
        return figures

    monkeypatch.setattr("gateway.web.sources.look", slow)
    looks = Looks(lambda: None, shown.config, clock=lambda: now[0])
    while now[0] < 620:
        assert looks.overview() is figures
        now[0] += 1.0
    assert len(looked) == 10  # each two seconds, then sixty of rest


def test_while_a_look_takes_long_the_last_one_is_shown(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    go, looked = threading.Event(), []
    first = shown.client.app.state.sources.looks.overview()
    second = replace(first)

    def slow(engine, routes, destinations):
        looked.append(1)
        if len(looked) > 1:
            go.wait(20)
        return first if len(looked) == 1 else second

    monkeypatch.setattr("gateway.web.sources.look", slow)
    monkeypatch.setattr("gateway.web.sources.PATIENCE_S", 0.1)
    looks = Looks(lambda: None, shown.config)
    assert looks.overview() is first
    looks._until = 0.0
    assert looks.overview() is first and looks.overview() is first and len(looked) == 2
    go.set()
    while looks._at_work is not None:
        time.sleep(0.01)
    assert looks.overview() is second


def test_metrics_are_the_golden_signals(fresh: Shown) -> None:
    found, port = fresh.client.get("/metrics"), fresh.config.ingress.port
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = dict(line.rsplit(" ", 1) for line in found.text.splitlines() if not line.startswith("#"))
    assert lines['miad_gateway_instances{route="relay",state="held"}'] == "1.0"
    assert lines['miad_gateway_held_instances{reason="context-refused",route="relay"}'] == "1.0"
    assert lines['miad_gateway_deliveries_failing{destination="second",route="partner"}'] == "1.0"
    assert float(lines['miad_gateway_received_per_second{route="relay"}']) == 3 / 300
    assert float(lines['miad_gateway_latency_seconds{destination="outside",route="relay"}']) > 0
    assert 0 < float(lines['miad_gateway_oldest_seconds{route="partner"}']) < 120
    assert float(lines["miad_gateway_state_free_bytes"]) > 0
    assert lines['miad_gateway_listener_up{address="127.0.0.1:' + str(port) + '",role="ingress"}'] in ("0.0", "1.0")


def test_of_each_destination_the_age_of_the_oldest_that_waits_is_told(tmp_path: Path, page_keys: Path) -> None:
    """What is held there waits for a person, and what was sent for nobody: of neither an age is told."""
    both = ROUTE.model_copy(update={"destinations": ("outside", "second")})
    config = configuration(tmp_path / "state", page_keys, both).model_copy(update={"page": Page()})
    flow, sources = Flow(config), page_sources(config)
    client = TestClient(create_app(sources), base_url="http://localhost")
    held, down = PermanentError("context-refused", "no context"), TransientError("unreachable", "nobody listens")
    failures = {"outside": held, "second": down}
    flow.sender.fail = lambda destination, item: failures.get(destination)
    now = time.time()

    def received(number: int, ago_s: float) -> str:
        one = flow.receive(ct(number))
        with flow.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE instance SET received_at = ? WHERE id = ?", (now - ago_s, one))
        return one

    def told() -> dict[str, tuple[float | None, float]]:
        """Of each destination `oldest_at` in seconds before `now`, and the metric less what has passed since."""
        sources.looks._until = 0.0
        status = client.get("/api/v1/status").json()
        oldest = {one["destination"]: one["oldest_at"] for one in status["deliveries"]}
        lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        name = 'miad_gateway_delivery_oldest_seconds{{destination="{0}",route="relay"}}'
        age = {one: float(lines[name.format(one)]) for one in oldest}
        since = status["at"] - now
        return {
            one: (None, age[one]) if at is None else (round(now - at), round(age[one] - since))
            for one, at in oldest.items()
        }

    assert told() == {"outside": (None, 0.0), "second": (None, 0.0)}
    first, second = received(1, 5000), received(2, 300)
    flow.run()
    assert {name: row.state for name, row in flow.deliveries(first).items()} == {"outside": "held", "second": "queued"}
    assert told() == {"outside": (None, 0.0), "second": (5000, 5000)}
    failures["outside"] = down
    received(3, 100)
    flow.run()
    assert told() == {"outside": (100, 100), "second": (5000, 5000)}
    failures.clear()
    with flow.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE delivery SET next_attempt_at = 0 WHERE instance_id = ?", (first,))
    flow.deliver("second")
    assert {name: row.state for name, row in flow.deliveries(first).items()} == {"outside": "held", "second": "sent"}
    assert flow.deliveries(second)["second"].state == "queued"
    assert told() == {"outside": (100, 100), "second": (300, 300)}


def test_the_worker_and_the_clock_are_told_of(own: Shown) -> None:
    assert "No worker is at work" in own.client.get("/").text
    own.client.app.state.sources.looks._until = 0.0
    assert ClockGuard(own.flow.engine, own.flow.context.audit).believes()
    status = own.client.get("/api/v1/status").json()
    assert time.time() - status["worker_seen_at"] < 60 and status["clock_doubt"] is None
    own.client.app.state.sources.looks._until = 0.0
    assert not ClockGuard(own.flow.engine, own.flow.context.audit).believes(time.time() + 30 * 86_400)
    assert own.client.get("/api/v1/status").json()["clock_doubt"] == "ahead-of-monotonic-time"
    assert "The clock is not believed" in own.client.get("/").text
    assert "miad_gateway_clock_doubted 1.0" in own.client.get("/metrics").text


def test_answers_are_json_without_odd_numbers(shown: Shown) -> None:
    for name in ALL:
        json.loads(shown.client.get(f"/api/v1/{name}").text, parse_constant=lambda word: pytest.fail(word))
