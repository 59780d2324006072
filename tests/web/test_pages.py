"""The pages: what they say, to whom they answer, and with which headers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from gateway.audit import AuditLog
from gateway.audit.refusals import LINES_OF_ONE_ADDRESS
from gateway.config import Config, load_config
from gateway.config.page import Page
from gateway.errors import ConfigError
from gateway.service.page import PageParts, page_sources
from gateway.web import views
from gateway.web.app import create_app
from gateway.web.audit_tail import tail
from gateway.web.server import PageServer
from gateway.web.settings import masked_url, settings_of
from tests.network.test_ingress import until
from tests.support.flow import Flow
from tests.support.network.peers import free_port
from tests.web.conftest import Shown, with_page

PAGES = ["/", "/queue", "/queue?state=held", "/studies", "/studies/1.2.3.1", "/marks", "/restores", "/audit"]
PAGES += ["/configuration"]


class Outline(HTMLParser):
    """What a screen reader goes by: headings, landmarks, labels, tables' names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[str] = []
        self.unnamed: list[str] = []
        self.ids: set[str] = set()
        self._open: list[str] = []
        self._tables: list[list] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.ids.update(filter(None, [given.get("id")]))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self._tables.append([given.get("aria-labelledby")])
        if tag == "caption" and self._tables:
            self._tables[-1][0] = "caption"
        if tag in ("input", "select") and "label" not in self._open and given.get("type") != "hidden":
            self.unnamed.append(f"{tag} {given.get('name')}")
        if tag in ("label", "form"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def tables(self) -> list[str | None]:
        return [name if name in ("caption", *self.ids) else None for (name,) in self._tables]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_read_by_ear(shown: Shown, path: str) -> None:
    answer = shown.client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    outline = Outline(answer.text)
    assert '<html lang="en">' in answer.text
    assert {"header", "nav", "main", "footer"} <= set(outline.tags) and "script" not in outline.tags
    assert outline.headings.count(1) == 1
    assert all(later <= before + 1 for before, later in zip(outline.headings, outline.headings[1:], strict=False))
    assert outline.unnamed == [] and None not in outline.tables()
    assert 'href="#main"' in answer.text and 'id="main"' in answer.text


def test_what_needs_somebody_stands_first(shown: Shown) -> None:
    text = shown.client.get("/").text
    first = text[text.index("Needs somebody") : text.index("Routes</h2>")]
    assert "2 held" in first and "second fails" in first and "ingress is down" in first
    assert "Mend the destination" in text and shown.ids["refused"][:12] in text


def test_an_instance_shows_its_way_and_its_cure(shown: Shown) -> None:
    text = shown.client.get(f"/instances/{shown.ids['refused']}").text
    assert "context-refused" in text and "ask its people" in text and "Mend the destination" in text
    assert "Copy&#39;s SOP Instance UID" in text


def test_values_are_escaped(shown: Shown) -> None:
    text = shown.client.get("/queue", params={"reason": "<script>alert(1)</script>"}).text
    assert "<script" not in text and "&lt;script&gt;" in text


def test_it_comes_again_only_for_who_asks(shown: Shown) -> None:
    assert "refresh" not in shown.client.get("/").headers
    assert shown.client.get("/?refresh=10").headers["refresh"] == "10"
    for odd in ("0", "-1", "99999999999999999999", "x", "१"):
        assert "refresh" not in shown.client.get("/", params={"refresh": odd}).headers


@pytest.mark.parametrize("path", [*PAGES, "/api/v1/status", "/live", "/no/such"])
def test_every_answer_carries_the_headers(shown: Shown, path: str) -> None:
    headers = shown.client.get(path).headers
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and "script" not in headers["content-security-policy"]
    )
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8480", 200), ("[::1]:8480", 200), ("10.1.2.3", 200), ("evil.example", 421),
     ("127.0.0.1.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_it_is_served_under_its_own_names_only(shown: Shown, host: str, status: int) -> None:
    """Else a script of another site whose name was made to point here could read it (DNS rebinding)."""
    assert shown.client.get("/", headers={"host": host}).status_code == status


def test_a_fault_of_ours_is_told_without_its_text(shown: Shown, monkeypatch, capsys, caplog) -> None:
    def broken(*_):
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(views.reading, "queue", broken)
    answer = shown.client.get("/queue")
    assert (answer.status_code, answer.text) == (500, "500 the page failed: see its log\n")
    assert answer.headers["cache-control"] == "no-store"
    assert "Doe" not in capsys.readouterr().out + capsys.readouterr().err + caplog.text


# --- the audit's tail


def test_the_tail_shows_known_fields_of_whole_lines(tmp_path: Path) -> None:
    good = '{"time":"2026-01-01T00:00:0%d+00:00","event":"delivery","outcome":"success","instance_id":"ab"}\n'
    first = tmp_path / "first"
    first.write_text(
        good % 1 + '{"time":"2026-01-01T00:00:09+00:00","event":"delivery","outcome":"success","name":"x"}\n'
    )
    second = tmp_path / "second"
    second.write_text(
        good % 2 + "not json\n[1]\n{}\n" + '{"time":"2026-01-01T00:00:03+00:00","event":"made-up"}\n{"time"'
    )
    found = tail({"a": first, "b": second, "c": tmp_path / "none"})
    assert [(line["log"], line["time"][17:19]) for line in found.lines] == [("a", "09"), ("b", "02"), ("a", "01")]
    assert "name" not in found.lines[0] and found.closed == ()
    assert len(tail({"a": first, "b": second}, limit=1).lines) == 1


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    line = '{"time":"2026-01-01T00:00:00+00:00","event":"delivery","outcome":"success","count":%d}\n'
    log = tmp_path / "log"
    log.write_text("".join(line % number for number in range(20_000)))
    found = tail({"a": log}, limit=10_000)
    assert 1_000 < len(found.lines) < 5_000
    assert {one["count"] for one in found.lines} == set(range(20_000 - len(found.lines), 20_000))


def test_what_a_role_that_was_taken_over_writes_stops_no_page(own: Shown) -> None:
    good = {"time": "2999-01-01T00:00:00+00:00", "event": "delivery", "outcome": "success"}
    odd = [{"instance_id": 5}, {"instance_id": None}, {"notes": [[1]]}, {"statuses": {"a": {}}}, {"outcome": 5}]
    odd += [{"reason": "\ud800"}, {"notes": {"\ud800": 1}}, {"count": float("inf")}, {"time": 5}, {"event": []}]
    lines = [json.dumps({**good, **one}) for one in odd]
    log = own.config.site.state / "audit" / "ingress.jsonl"
    log.write_text("\n".join([*lines, "[" * 100_000, "\0", json.dumps({**good, "reason": "<script>"})]) + "\n")
    odd += [{"bit_exact": "x"}, {"calling_ae": ["a"]}, {"sop_instance_uid": {"a": 1}}]
    restored = [json.dumps({**good, "event": "original-restored", **one}) for one in odd]
    (own.config.site.state / "audit" / "restore.jsonl").write_text("\n".join(restored) + "\n")
    for path in ("/", "/audit", "/api/v1/audit", "/restores", "/api/v1/restores"):
        answer = own.client.get(path)
        assert answer.status_code == 200, path
    assert "(malformed)" in own.client.get("/audit").text and "<script>" not in own.client.get("/audit").text


def test_logs_of_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert tail({"restore": tmp_path / "folder"}).closed == ("restore",)


# --- the configuration


def test_secrets_are_masked_and_defaults_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[database]\nurl = "postgresql://u:S3CRET@h/g"\n[keys]\nspool_key = "env:SPOOL_S3CRET"\n[page]\n')
    found = {one.path: one for one in settings_of(load_config(file))}
    assert not any("S3CRET" in one.value for one in found.values())
    assert found["keys.spool_key"].value == "env:••••" and found["keys.spool_key"].source == "file"
    assert found["keys.mark_key"].source == "default" and found["site.state"].source == "default"
    assert found["page.port"].value == "8480" and found["page.port"].source == "default"


@pytest.mark.parametrize(
    "url", ["postgresql://u:S3CRET@h:5/g?password=S3CRET", "S3CRET", "odd://S3CRET", "postgresql://h/g?user=S3CRET"]
)
def test_a_url_keeps_its_secrets(url: str) -> None:
    assert "S3CRET" not in masked_url(url)


# --- the server


def test_it_listens_and_stops(shown: Shown) -> None:
    server = PageServer(create_app(page_sources(shown.config)), "127.0.0.1", 0)
    server.start()
    answers: list[int] = []

    def ask() -> None:
        answers.append(httpx2.get(f"http://127.0.0.1:{server.port}/", timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    with pytest.raises(ConfigError) as taken:
        PageServer(create_app(page_sources(shown.config)), "127.0.0.1", server.port)
    assert taken.value.code == "cannot-listen"
    server.stop()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{server.port}/live")


def test_who_holds_connections_open_keeps_nobody_out(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.server.REQUEST_S", 0.5)
    server = PageServer(create_app(page_sources(shown.config)), "127.0.0.1", 0)
    server.start()
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\n"
    begun = [b"", head, head + b"Content-Length: 9\r\n\r\nname"]
    with contextlib.ExitStack() as held:
        for number in range(80):
            one = held.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            one.sendall(begun[number % 3])

        def answers() -> bool:
            try:
                return httpx2.get(f"http://127.0.0.1:{server.port}/live", timeout=5).status_code == 200
            except httpx2.TransportError:
                return False

        assert until(answers)
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:  # and one that comes again stays
            for _ in range(4):
                assert client.get("/live").status_code == 200
                time.sleep(0.3)
    server.stop()


def test_a_reload_takes_over_the_port_while_somebody_asks(shown: Shown) -> None:
    page = Page(host="127.0.0.1", port=free_port())
    config = shown.config.model_copy(update={"page": page})
    parts = PageParts(config, AuditLog(Path("/dev/null")))
    part, answers, stopping = parts.build(config, None), list[int](), threading.Event()
    part.start()

    def ask() -> None:
        while not stopping.is_set():
            # One that connects at the last moment may find its connection closed, and asks again as a browser does.
            with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                answers.append(httpx2.get(f"http://127.0.0.1:{page.port}/live", timeout=30).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(3):
        old, part = part, parts.build(config, part)
        assert part.app.state.sessions is old.app.state.sessions  # who has logged in stays so
        old.pause()
        part.start()
        old.finish()
    stopping.set()
    thread.join()
    part.stop()
    assert set(answers) == {200}  # and nobody was refused


def test_a_flood_is_summed_up_while_the_page_runs_and_at_its_end(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.server.MOMENT_S", 0)
    site, page = shown.config.site.model_copy(update={"state": tmp_path}), Page(host="127.0.0.1", port=free_port())
    config = shown.config.model_copy(update={"site": site, "page": page})
    part = PageParts(config, AuditLog(Path("/dev/null"))).build(config, None)
    monkeypatch.setattr(part.app.state.refusals, "_window_s", 0.0)
    part.start()

    def flood_with(reason: str) -> None:
        for _ in range(LINES_OF_ONE_ADDRESS + 1):
            part.app.state.refusals.write("page-login", reason, "127.0.0.1")

    def sums() -> set[str]:
        file = config.site.state / "audit" / "page.jsonl"
        return {line["reason"] for line in map(json.loads, file.read_text().splitlines()) if "count" in line}

    deadline = time.monotonic() + 60
    flood_with("wrong-password")
    while not sums() and time.monotonic() < deadline:
        time.sleep(0.1)
        flood_with("wrong-password")  # the moment may have fallen into the first flood
    assert sums() == {"wrong-password"}
    part.pause()
    flood_with("too-many-tries")
    part.finish()
    assert sums() == {"wrong-password", "too-many-tries"}


def _build(config: Config) -> None:
    PageParts(config, AuditLog(Path("/dev/null"))).build(config, None)


def test_the_role_wants_its_table(shown: Shown) -> None:
    with pytest.raises(ConfigError) as caught:
        _build(shown.config.model_copy(update={"page": None}))
    assert caught.value.code == "no-page"
    with pytest.raises(ConfigError):
        _build(shown.config.model_copy(update={"page": Page(host="no.such.host.example")}))


def test_a_gateway_that_received_nothing_says_how_an_archive_reaches_it(
    shown: Shown, tmp_path: Path, page_keys: Path
) -> None:
    empty = with_page(tmp_path / "state", page_keys)
    Flow(empty)
    page = TestClient(create_app(page_sources(empty)), base_url="http://localhost").get("/").text
    assert "Nothing was received yet." in page
    for route in empty.routes:
        assert f'AE title <span class="code">{route.called_ae}</span>, port {empty.ingress.port}: route' in page
    assert "Nothing was received yet." not in shown.client.get("/").text
