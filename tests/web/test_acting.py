"""Logging in and asking for actions: who may, from where, and what is told of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gateway.audit.refusals import LINES_OF_ONE_ADDRESS
from gateway.config.accounts import Account, read_accounts, write_accounts
from gateway.errors import ConfigError
from gateway.flow.requests import list_requests
from gateway.service.page import page_sources
from gateway.service.wiring import build_requested
from gateway.web.app import create_app
from gateway.web.guessing import LONGEST_WAIT_S, MOST_TRIES, PERIOD_S, TRIES, WAIT_S
from gateway.web.passwords import hash_password, is_right
from gateway.web.sessions import BROWSER_COOKIE, LONGEST_S, Sessions
from tests.web.conftest import PASSWORD, Shown, log_in

HASH = hash_password(PASSWORD)


def told(shown: Shown, event: str) -> list[dict]:
    """What the page's own audit says of an event."""
    file = shown.config.site.state / "audit" / "page.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if line["event"] == event]


def asked(shown: Shown) -> list:
    return list_requests(shown.flow.engine)


def test_a_login_by_the_form_leads_back_and_out_again(acting: Shown) -> None:
    form = {"name": "ops", "password": PASSWORD, "to": "/queue?state=held"}
    answer = acting.client.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue?state=held")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
    assert "Log out" in acting.client.get("/").text
    assert acting.client.post("/logout").status_code == 303
    assert "Log in to act" in acting.client.get("/").text
    (came,), (went,) = told(acting, "page-login"), told(acting, "page-logout")
    assert came["user"] == went["user"] == "ops" and came["session_id"] == went["session_id"]
    assert (came["event_id"], came["event_type"], went["event_type"]) == ("110114", "110122", "110123")


def test_behind_tls_the_cookie_stays_there(acting: Shown) -> None:
    client = TestClient(acting.client.app, base_url="https://localhost", follow_redirects=False)
    assert "Secure" in client.post("/login", data={"name": "ops", "password": PASSWORD}).headers["set-cookie"]


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/a\r\nb"])
def test_a_login_leads_to_our_own_pages_only(acting: Shown, to: str) -> None:
    answer = acting.client.post("/login", data={"name": "ops", "password": PASSWORD, "to": to})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(("name", "password"), [("ops", "not the password"), ("nobody", PASSWORD), ("ops", "")])
def test_a_wrong_password_and_a_wrong_name_look_alike(acting: Shown, name: str, password: str) -> None:
    answer = acting.client.post("/login", data={"name": name, "password": password or "x"})
    assert answer.status_code == 401 and "do not go together" in answer.text and "set-cookie" not in answer.headers
    (line,) = told(acting, "page-login")
    assert (line["outcome"], line["reason"]) == ("refused", "wrong-password") and "user" not in line


def test_guessing_is_slowed_down(acting: Shown) -> None:
    for _ in range(TRIES):
        assert acting.client.post("/login", data={"name": "ops", "password": "wrong"}).status_code == 401
    answer = acting.client.post("/login", data={"name": "ops", "password": PASSWORD})
    assert answer.status_code == 401 and "wait some minutes" in answer.text
    assert told(acting, "page-login")[-1]["reason"] == "too-many-tries"
    assert acting.client.post("/login", data={"name": "eye", "password": PASSWORD}).status_code == 303


def test_a_flood_of_wrong_passwords_is_summed_up(acting: Shown) -> None:
    client = TestClient(acting.client.app, base_url="http://localhost", client=("192.0.2.7", 4000))
    for _ in range(LINES_OF_ONE_ADDRESS + TRIES + 7):
        client.post("/login", data={"name": "ops", "password": "wrong"})
    assert len(told(acting, "page-login")) == LINES_OF_ONE_ADDRESS + TRIES
    acting.client.app.state.refusals.sum_up(all_of_them=True)
    last = told(acting, "page-login")[-1]
    assert (last["reason"], last["count"], last["peer_address"]) == ("too-many-tries", 7, "192.0.2.7")


def test_of_many_guesses_at_once_no_more_are_free(users: Path) -> None:
    sessions, answers = Sessions(users, 60), list[object]()
    start = threading.Barrier(4 * TRIES)

    def guess() -> None:
        start.wait()
        answers.append(sessions.log_in("ops", "wrong"))

    threads = [threading.Thread(target=guess) for _ in range(4 * TRIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count("wrong-password") == TRIES and answers.count("too-many-tries") == 3 * TRIES


def test_guesses_at_other_names_do_not_make_a_user_s_forgotten(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.guessing._MOST", 3)
    sessions = Sessions(users, 60)
    for _ in range(TRIES):
        sessions.log_in("ops", "wrong")
    for number in range(6):
        sessions.log_in(f"nobody{number}", "wrong")
    assert sessions.log_in("ops", PASSWORD) == "too-many-tries"
    assert len(sessions._guesses._failed[False]) == 3


def test_a_new_password_and_a_new_login_end_what_was_before(acting: Shown) -> None:
    users = acting.config.page.users
    log_in(acting)
    first = acting.client.cookies["miad-gateway-session"]
    log_in(acting)
    second = acting.client.cookies["miad-gateway-session"]
    sessions = acting.client.app.state.sessions
    assert sessions.find(first) is None and sessions.find(second) is not None
    assert len(told(acting, "page-logout")) == 1
    write_accounts(users, {**read_accounts(users), "ops": Account("ops", "operator", hash_password(PASSWORD + "!"))})
    assert sessions.find(second) is None


def test_from_where_a_login_comes_is_an_address_or_nothing(acting: Shown) -> None:
    """Whoever speaks to a page behind a proxy on this machine may say anything in X-Forwarded-For."""
    for host, seen in (("2001:db8::1", "2001:db8::1"), ("Doe-Jane", None)):
        client = TestClient(acting.client.app, base_url="http://localhost", client=(host, 1))
        assert client.post("/api/v1/session", json={"name": "ops", "password": PASSWORD}).status_code == 201
        assert told(acting, "page-login")[-1].get("peer_address") == seen


def test_what_no_text_can_be_is_refused(acting: Shown) -> None:
    for body in (
        '{"name": "\\ud800", "password": "x"}',
        '{"name": "x", "password": "\\ud800"}',
        '{"name": "\\u0000", "password": "\\u0000"}',
    ):
        headers = {"content-type": "application/json"}
        assert acting.client.post("/api/v1/session", content=body, headers=headers).status_code in (401, 422)


def test_who_is_not_logged_in_or_only_looks_cannot_ask(acting: Shown) -> None:
    form = {"form": "x", "action": "release", "instance": acting.ids["held"]}
    answer = acting.client.post("/actions", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?to=/")
    assert acting.client.post("/api/v1/requests", json={"action": "release"}).status_code == 401
    token = log_in(acting, "eye")
    assert "Release" not in acting.client.get(f"/instances/{acting.ids['held']}").text
    answer = acting.client.post("/actions", data={**form, "form": token})
    assert answer.status_code == 403 and "may look and not act" in answer.text
    assert asked(acting) == [] and told(acting, "action-asked") == []


def test_a_form_of_another_site_or_session_is_refused(acting: Shown) -> None:
    token = log_in(acting)
    form = {"form": token, "action": "release", "instance": acting.ids["held"]}
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
                    {"sec-fetch-site": "same-site"}):  # fmt: skip
        assert acting.client.post("/actions", data=form, headers=headers).status_code == 403
        assert (
            acting.client.post("/login", data={"name": "ops", "password": PASSWORD}, headers=headers).status_code == 403
        )
    assert acting.client.post("/actions", data={**form, "form": "other"}).status_code == 403
    assert asked(acting) == []
    assert acting.client.post("/actions", data=form, headers={"origin": "http://localhost"}).status_code == 303


def test_an_operator_asks_and_it_is_told_of_first(acting: Shown) -> None:
    token = log_in(acting)
    page = acting.client.get(f"/instances/{acting.ids['held']}").text
    assert "Release it" in page and "Discard it" in page
    answer = acting.client.post("/actions", data={"form": token, "action": "release", "instance": acting.ids["held"]})
    (one,) = asked(acting)
    assert answer.headers["location"] == f"/requests?asked={one.id}&refresh=2"
    assert (one.user_name, one.action, one.instance_id, one.state) == ("ops", "release", acting.ids["held"], "asked")
    (line,) = told(acting, "action-asked")
    (came,) = told(acting, "page-login")
    assert (line["request_id"], line["user"], line["session_id"]) == (one.id, "ops", came["session_id"])
    assert acting.flow.row(acting.ids["held"]).state == "held"  # the page itself changes nothing
    text = acting.client.get(answer.headers["location"]).text
    assert "the worker does it" in text and acting.ids["held"][:12] in text
    assert acting.client.get(answer.headers["location"]).headers["refresh"] == "2"
    build_requested(acting.config, acting.flow.engine, acting.flow.store, acting.flow.context.audit).once()
    settled = acting.client.get(answer.headers["location"])
    assert "release changed 1 instance" in settled.text and "refresh" not in settled.headers


def test_a_choice_is_asked_for_by_reason_and_by_destination(acting: Shown) -> None:
    token = log_in(acting)
    text = acting.client.get("/").text
    assert "Release it" in text and "Try again now" in text
    for form in ({"action": "release", "reason": "context-refused", "route": "relay"},
                 {"action": "retry", "destination": "second", "route": "partner"}):  # fmt: skip
        assert acting.client.post("/actions", data={**form, "form": token}).status_code == 303
    retry, release = asked(acting)
    assert (release.reason_code, release.route) == ("context-refused", "relay")
    assert (retry.destination, retry.route) == ("second", "partner")


def test_a_destination_is_paused_asked_and_resumed(acting: Shown) -> None:
    token = log_in(acting)
    text = acting.client.get("/").text
    assert "Pause second" in text and "Does second answer?" in text and "Resume" not in text
    for action in ("pause", "echo"):
        form = {"form": token, "action": action, "destination": "second"}
        assert acting.client.post("/actions", data=form).status_code == 303
    for more in (
        {},
        {"destination": "second", "route": "partner"},
        {"destination": "second", "instance": acting.ids["held"]},
    ):
        assert acting.client.post("/actions", data={"form": token, "action": "pause", **more}).status_code == 403
    build_requested(acting.config, acting.flow.engine, acting.flow.store, acting.flow.context.audit).once()
    text = acting.client.get("/requests").text
    assert "pause" in text and "second" in text
    settled = {one.action: one for one in asked(acting)}
    shown = acting.client.get(f"/requests?asked={settled['pause'].id}").text
    assert "second is paused" in shown
    assert "second does not answer" in acting.client.get(f"/requests?asked={settled['echo'].id}").text
    client = TestClient(create_app(page_sources(acting.config)), base_url="http://localhost")
    text = client.get("/").text
    assert "<b>second is paused</b>" in text and "Resume second" not in text  # nobody has logged in there
    assert 'destination_paused{destination="second"} 1.0' in client.get("/metrics").text
    (one,) = [one for one in client.get("/api/v1/status").json()["deliveries"] if one["destination"] == "second"]
    assert one["paused_at"] > 0


def test_what_is_delivered_is_sent_again(acting: Shown) -> None:
    token = log_in(acting)
    one = acting.ids["delivered"]
    assert "Send it again" in acting.client.get(f"/instances/{one}").text
    assert acting.client.post("/actions", data={"form": token, "action": "replay", "instance": one}).status_code == 303
    build_requested(acting.config, acting.flow.engine, acting.flow.store, acting.flow.context.audit).once()
    assert acting.flow.row(one).state == "marked"


def test_to_discard_the_whole_id_is_typed(acting: Shown) -> None:
    token = log_in(acting)
    form = {"form": token, "action": "discard", "instance": acting.ids["held"]}
    for typed in ("", "yes", acting.ids["held"][:8], acting.ids["refused"]):
        answer = acting.client.post("/actions", data={**form, "confirmation": typed})
        assert answer.status_code == 403 and "whole id" in answer.text
    some = {"form": token, "action": "discard", "reason": "route-holds", "confirmation": "route-holds"}
    assert acting.client.post("/actions", data=some).status_code == 403
    assert asked(acting) == []
    assert acting.client.post("/actions", data={**form, "confirmation": acting.ids["held"]}).status_code == 303
    assert [one.action for one in asked(acting)] == ["discard"]


def test_the_same_by_json(acting: Shown) -> None:
    token = log_in(acting)
    wanted = {"action": "release", "instance_id": acting.ids["held"]}
    assert acting.client.post("/api/v1/requests", json=wanted).status_code == 403
    answer = acting.client.post("/api/v1/requests", json=wanted, headers={"x-form-token": token})
    assert answer.status_code == 202
    (found,) = acting.client.get("/api/v1/requests").json()
    assert found["id"] == answer.json()["id"] and found["state"] == "asked"
    assert acting.client.delete("/api/v1/session").status_code == 204
    assert acting.client.post("/api/v1/requests", json=wanted, headers={"x-form-token": token}).status_code == 401


def test_what_cannot_be_told_of_is_not_asked(acting: Shown) -> None:
    token = log_in(acting)
    file = acting.config.site.state / "audit" / "page.jsonl"
    file.unlink()
    file.symlink_to("/dev/full")
    answer = acting.client.post(
        "/api/v1/requests",
        json={"action": "release", "instance_id": acting.ids["held"]},
        headers={"x-form-token": token},
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "audit-full") and asked(acting) == []
    assert acting.client.post("/login", data={"name": "ops", "password": PASSWORD}).status_code == 503


@pytest.mark.parametrize("path", ["/", "/queue", "/audit", "/configuration", "/requests", "/instances/abc"])
def test_a_page_for_those_who_are_logged_in(acting: Shown, path: str) -> None:
    assert acting.config.page is not None
    page = acting.config.page.model_copy(update={"view": "login"})
    sources = page_sources(acting.config.model_copy(update={"page": page}))
    acting.client = TestClient(create_app(sources), base_url="http://localhost", follow_redirects=False)
    answer = acting.client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?to={path}")
    for name in ("status", "queue", "configuration", "requests", "audit", "instances/abc"):
        assert acting.client.get(f"/api/v1/{name}").status_code == 401
    for name in ("/live", "/ready", "/metrics", "/login", "/static/page.css"):
        assert acting.client.get(name).status_code == 200, name
    log_in(acting, "eye")
    assert acting.client.get(path).status_code in (200, 404)


def test_without_users_it_says_how_to_make_one(shown: Shown) -> None:
    assert "page user add" in shown.client.get("/login").text


def test_bodies_have_a_limit(acting: Shown) -> None:
    assert acting.client.post("/login", content=b"x" * 20_000).status_code == 413
    assert acting.client.post("/login", content=iter([b"x"])).status_code == 411


# --- sessions


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "page-users"
    write_accounts(file, {"ops": Account("ops", "operator", HASH)})
    return file


def test_a_session_ends_when_nobody_clicks_and_after_half_a_day(users: Path) -> None:
    now = [0.0]
    sessions = Sessions(users, 60, clock=lambda: now[0])
    token, _ = sessions.log_in("ops", PASSWORD)
    for _ in range(5):
        now[0] += 50
        assert sessions.find(token)
    now[0] += 50
    assert sessions.find(token, is_click=False)  # a page that comes again by itself
    now[0] += 20
    assert sessions.find(token) is None
    token, _ = sessions.log_in("ops", PASSWORD)
    begun = now[0]
    while now[0] - begun <= LONGEST_S:
        assert sessions.find(token)
        now[0] += 50
    assert sessions.find(token) is None


def test_who_is_removed_or_gets_another_role_is_so_at_once(users: Path) -> None:
    sessions = Sessions(users, 60)
    token, _ = sessions.log_in("ops", PASSWORD)
    accounts = read_accounts(users)
    write_accounts(users, {"ops": Account("ops", "viewer", accounts["ops"].password_hash)})
    assert sessions.find(token)[1] == "viewer"
    write_accounts(users, {})
    assert sessions.find(token) is None
    write_accounts(users, accounts)
    assert sessions.find(token) is None


def test_waiting_lets_one_try_again(users: Path) -> None:
    now = [0.0]
    sessions = Sessions(users, 60, clock=lambda: now[0])
    for _ in range(TRIES):
        assert sessions.log_in("ops", "wrong") == "wrong-password"
    assert sessions.log_in("ops", PASSWORD) == "too-many-tries"
    now[0] += WAIT_S
    assert not isinstance(sessions.log_in("ops", PASSWORD), str)


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of guesses without hundreds of Argon2."""
    monkeypatch.setattr("gateway.web.sessions.is_right", lambda known, said: known is not None and said == PASSWORD)


def test_who_guesses_all_day_keeps_the_operator_out_of_nothing(users: Path, quick_passwords) -> None:
    """From elsewhere, from the operator's own address, and from everywhere."""
    now = [0.0]
    sessions = Sessions(users, 60, clock=lambda: now[0])
    came = sessions.log_in("ops", PASSWORD, "10.0.0.1")
    assert not isinstance(came, str)
    browser = came[1].browser
    for minute in range(MOST_TRIES):
        now[0] += WAIT_S
        sessions.log_in("ops", "wrong", "10.0.0.66")
        sessions.log_in("ops", "wrong", "10.0.0.1")
        sessions.log_in("ops", "wrong", f"10.1.0.{minute}")
    assert sessions.log_in("ops", PASSWORD, "10.0.0.66") == "too-many-tries"
    assert sessions.log_in("ops", PASSWORD, "10.0.0.1") == "too-many-tries"
    again = sessions.log_in("ops", PASSWORD, "10.0.0.1", browser)
    assert not isinstance(again, str) and again[1].browser == browser
    now[0] += PERIOD_S
    assert not isinstance(sessions.log_in("ops", PASSWORD, "10.0.0.2"), str)


def test_each_further_guess_waits_longer_and_none_for_ever(users: Path, quick_passwords) -> None:
    now, waits = [0.0], []
    sessions = Sessions(users, 60, clock=lambda: now[0])
    for _ in range(TRIES):
        sessions.log_in("ops", "wrong", "10.0.0.1")
    for _ in range(7):
        began = now[0]
        while sessions.log_in("ops", "wrong", "10.0.0.1") == "too-many-tries":
            now[0] += WAIT_S / 2
        waits.append(now[0] - began)
    assert waits == [60, 120, 240, 480, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_many_addresses_guess_no_faster_than_a_few(users: Path, quick_passwords) -> None:
    sessions = Sessions(users, 60)
    answers = [sessions.log_in("nobody", "wrong", f"10.0.{number >> 8}.{number & 255}") for number in range(MOST_TRIES)]
    assert set(answers) == {"wrong-password"}
    assert sessions.log_in("nobody", "wrong", "10.9.9.9") == "too-many-tries"


def test_a_network_of_ipv6_is_one_source(users: Path) -> None:
    sessions = Sessions(users, 60)
    for number in range(TRIES):
        assert sessions.log_in("ops", "wrong", f"2001:db8::{number}") == "wrong-password"
    assert sessions.log_in("ops", PASSWORD, "2001:db8::ffff") == "too-many-tries"
    assert not isinstance(sessions.log_in("ops", PASSWORD, "2001:db8:0:1::1"), str)


def test_a_browser_is_known_to_its_user_alone(users: Path) -> None:
    sessions = Sessions(users, 60)
    came = sessions.log_in("ops", PASSWORD, "10.0.0.1")
    assert not isinstance(came, str)
    for _ in range(TRIES):
        sessions.log_in("eye", "wrong", "10.0.0.1", came[1].browser)
    assert sessions.log_in("eye", PASSWORD, "10.0.0.1", came[1].browser) == "too-many-tries"
    for _ in range(TRIES):
        sessions.log_in("ops", "wrong", "10.0.0.1", came[1].browser)
    assert sessions.log_in("ops", PASSWORD, "10.0.0.1", came[1].browser) == "too-many-tries"  # it may be stolen


def test_a_login_leaves_a_cookie_that_opens_nothing(acting: Shown) -> None:
    acting.client.post("/login", data={"name": "ops", "password": PASSWORD})
    browser = acting.client.cookies[BROWSER_COOKIE]
    acting.client.post("/logout")
    assert acting.client.cookies[BROWSER_COOKIE] == browser
    assert "Log in to act" in acting.client.get("/").text


def test_a_cookie_s_token_is_not_kept(users: Path) -> None:
    sessions = Sessions(users, 60)
    token, session = sessions.log_in("ops", PASSWORD)
    assert token not in repr(vars(sessions)) and session.id not in token and session.form_token not in token
    assert sessions.find(token[:-1]) is None and sessions.find("") is None and sessions.find(None) is None


def test_passwords(users: Path) -> None:
    hashed = hash_password(PASSWORD)
    assert hashed.startswith("$argon2id$") and hashed != hash_password(PASSWORD)
    assert is_right(hashed, PASSWORD) and not is_right(hashed, PASSWORD + "x") and not is_right(None, PASSWORD)
    assert not is_right("no hash", PASSWORD) and not is_right(None, "nobody has this password")
    with pytest.raises(ConfigError):
        hash_password("short")


# --- the file


def test_the_file_of_users_is_whole_and_closed(tmp_path: Path) -> None:
    file = tmp_path / "page-users"
    assert read_accounts(file) == {}
    accounts = {"ops": Account("ops", "operator", "$h:with:colons")}
    write_accounts(file, accounts)
    assert read_accounts(file) == accounts and file.stat().st_mode & 0o777 == 0o640
    file.chmod(0o600)
    write_accounts(file, {})
    assert read_accounts(file) == {} and file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["page-users"]


@pytest.mark.parametrize("line", ["ops", "ops:operator", "ops:owner:h", "OPS:viewer:h", "ops:viewer:h\nops:viewer:h"])
def test_a_line_that_is_none_stops_everybody(tmp_path: Path, line: str) -> None:
    file = tmp_path / "page-users"
    file.write_text(line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_accounts(file)
    assert caught.value.code == "users-unreadable"
    assert not Sessions(file, 60).has_users()
