"""The viewer: pictures before and after the mark, by the worker, for operators, each with a line in the audit."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update

from gateway.audit import AuditLog
from gateway.database import InstanceRow, transaction
from gateway.errors import GatewayError, UnreachableError
from gateway.service import view_port
from gateway.service.viewing import ViewClient, view_folder
from tests.web.conftest import PASSWORD, Shown, log_in
from tests.web.viewed import answering, port_of, with_viewer

WISH = {"view": "after", "frame": 1, "window": None, "side": None}


@pytest.fixture
def viewed(acting: Shown) -> Shown:
    return with_viewer(acting)


@pytest.fixture
def port(viewed: Shown) -> Iterator[view_port.ViewPort]:
    with answering(port_of(viewed)) as made:
        yield made


def picture(shown: Shown, name: str = "failing", **wish: object) -> np.ndarray:
    answer = shown.client.get(f"/api/v1/instances/{shown.ids[name]}/picture", params=wish)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png" and answer.headers["cache-control"] == "no-store"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def views(shown: Shown) -> list[dict]:
    lines = map(json.loads, shown.flow.audit_path.read_text().splitlines())
    return [line for line in lines if line["event"] == "instance-viewed"]


def test_an_operator_sees_what_the_mark_changed(viewed: Shown, port) -> None:
    log_in(viewed)
    before, after = (picture(viewed, view=name).astype(int) for name in ("before", "after"))
    assert before.shape == after.shape == (64, 64) and (before != after).any()
    change = picture(viewed, view="difference").astype(int)
    same = before == after
    assert np.isin(change[(change == 127) | (change == 128)], (127, 128)).all() and not same.all()
    assert np.sign(change - 127.5)[after - before > 20].min() > 0  # brighter in the copy is brighter here
    zones = picture(viewed, view="zones").astype(int)
    assert zones.shape == (64, 64, 3) and (zones.max(axis=2) != zones.min(axis=2)).any()
    dark = picture(viewed, view="before", center=4000, width=100)
    assert dark.max() == 0 and before.max() > 100


def test_each_picture_is_told_of_before_it_is_shown(viewed: Shown, port, monkeypatch) -> None:
    log_in(viewed)
    told = []

    def fails(*_):
        told.extend(views(viewed))
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("gateway.flow.viewing.picture", fails)
    with pytest.raises(GatewayError, match=r"^it could not be shown"):
        ask(viewed)
    (line,) = told
    assert (line["user"], line["operation"], line["frame"]) == ("ops", "after", 1)
    assert (line["instance_id"], line["outcome"]) == (viewed.ids["failing"], "success")
    assert line["session_id"] == "0123456789abcdef"


def ask(shown: Shown, **wish: object) -> tuple[dict, bytes]:
    """By the socket itself, as a page does."""
    client = ViewClient(view_folder(shown.config))
    proof = client.log_in("ops", PASSWORD, "0123456789abcdef")
    return client.picture(proof, {"instance": shown.ids["failing"], **WISH, **wish})


def test_without_a_line_in_the_audit_nothing_is_shown(viewed: Shown) -> None:
    with answering(port_of(viewed, AuditLog(Path("/dev/full")))), pytest.raises(GatewayError) as caught:
        ask(viewed)
    assert caught.value.code == "audit-full"


def test_nobody_else_sees_anything(viewed: Shown, port, acting: Shown) -> None:
    place = f"/instances/{viewed.ids['failing']}/view"
    assert viewed.client.get(place).headers["location"].startswith("/login")
    assert viewed.client.get(f"/api/v1/instances/{viewed.ids['failing']}/picture").status_code == 401
    log_in(viewed, "eye")
    assert viewed.client.get(place).status_code == 403
    assert acting.client.get(place).status_code == 404  # switched off, as it is where nobody asked for it
    assert views(viewed) == []


def test_a_page_that_was_taken_over_gets_no_picture_without_a_password(viewed: Shown, port) -> None:
    """The worker believes no page who asks: not a made-up login, and not a viewer's."""
    client = ViewClient(view_folder(viewed.config))
    wish = {"instance": viewed.ids["failing"], **WISH}
    for proof in ("", "ops", "x" * 43):
        with pytest.raises(GatewayError) as caught:
            client.picture(proof, wish)
        assert caught.value.code == "not-logged-in-there"
    with pytest.raises(GatewayError) as caught:
        client.log_in("ops", "a guess of a password", "0" * 16)
    assert caught.value.code == "wrong-password"
    proof = client.log_in("eye", PASSWORD, "0" * 16)
    with pytest.raises(GatewayError) as caught:
        client.picture(proof, wish)
    assert caught.value.code == "not-an-operator"
    assert [(line["outcome"], line["user"]) for line in views(viewed)] == [("refused", "eye")]


def test_who_goes_through_an_archive_is_stopped(viewed: Shown, port, monkeypatch) -> None:
    monkeypatch.setattr(view_port, "A_MINUTE", 2)
    ask(viewed), ask(viewed)
    with pytest.raises(GatewayError) as caught:
        ask(viewed)
    assert caught.value.code == "too-many-views"
    assert [line["outcome"] for line in views(viewed)] == ["success", "success", "refused"]


ODD = [b"\n", b"[]\n", b"{}\n", b'{"do":"view"}\n', b"[" * 3000 + b"\n", b"\xff\n", b"x" * 20_000, b'{"do":"login"}\n']


def test_what_makes_no_sense_is_refused_and_the_next_one_is_answered(viewed: Shown, port) -> None:
    folder = view_folder(viewed.config)
    (path,) = folder.iterdir()
    for odd in ODD:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}/{path.name}")
            connection.sendall(odd)
            connection.shutdown(socket.SHUT_WR)
            assert b'"ok": false' in connection.recv(4096), odd
    odd_wishes = [{"instance": "../x"}, {"view": "vault"}, {"frame": 0}, {"frame": True}, {"window": [0, 0]}]
    odd_wishes += [{"window": [1, float("inf")]}, {"window": "x"}, {"side": 1 << 40}, {"frame": "1"}]
    for odd_wish in odd_wishes:
        with pytest.raises(GatewayError) as caught:
            ask(viewed, **odd_wish)
        assert caught.value.code == "not-understood", odd_wish
    with pytest.raises(GatewayError) as caught:
        ask(viewed, frame=2)
    assert caught.value.code == "no-such-frame" and views(viewed)[-1]["reason"] == "no-such-frame"
    assert ask(viewed)[0]["frames"] == 1


def test_only_the_worker_and_the_page_s_group_reach_the_socket_and_nothing_is_stored(viewed: Shown, port) -> None:
    (path,) = view_folder(viewed.config).iterdir()
    assert stat.S_ISSOCK(path.lstat().st_mode) and stat.S_IMODE(path.lstat().st_mode) == 0o660
    state = viewed.config.site.state
    files = {one: one.stat().st_mtime_ns for one in state.rglob("*") if one.is_file() and "audit" not in one.parts}
    for name in ("before", "after", "difference", "zones"):
        ask(viewed, view=name)
    assert files == {
        one: one.stat().st_mtime_ns for one in state.rglob("*") if one.is_file() and "audit" not in one.parts
    }
    port.stop()
    assert not path.exists()


def test_what_is_gone_is_told_plainly(viewed: Shown, port) -> None:
    log_in(viewed)
    delivered = viewed.client.get(f"/instances/{viewed.ids['delivered']}/view").text
    assert "only the copy can be shown" in delivered and delivered.count("data:image/png") == 1
    waiting = viewed.client.get(f"/instances/{viewed.ids['waiting']}/view").text
    assert "There is no copy yet" in waiting and waiting.count("data:image/png") == 1
    both = viewed.client.get(f"/instances/{viewed.ids['failing']}/view?refresh=5")
    assert both.text.count("data:image/png") == 2 and "refresh" not in both.headers
    odd = viewed.client.get(f"/instances/{viewed.ids['failing']}/view?view=difference&width=x")
    assert odd.status_code == 409 and "such as 40 and 400" in odd.text
    with transaction(viewed.flow.engine) as session:
        session.execute(update(InstanceRow).values(spool_file=None, derived_file=None))
    gone = viewed.client.get(f"/instances/{viewed.ids['failing']}/view").text
    assert "There is nothing to show any more" in gone and "data:image" not in gone


def test_without_a_worker_it_says_so(viewed: Shown) -> None:
    log_in(viewed)  # one may log in all the same
    answer = viewed.client.get(f"/instances/{viewed.ids['failing']}/view")
    assert answer.status_code == 409 and "No worker of this machine shows pictures" in answer.text
    with answering(port_of(viewed)):  # it does not know who logged in before it came
        assert "Log out and in again" in viewed.client.get(f"/instances/{viewed.ids['failing']}/view").text
    with pytest.raises(UnreachableError):
        ask(viewed)


def test_a_reload_hands_the_socket_on(viewed: Shown) -> None:
    first = port_of(viewed)
    first.bind()
    first.start()
    dropped = port_of(viewed)
    dropped.bind(first)
    dropped.discard()
    assert ask(viewed)[1]
    second = port_of(viewed)
    second.bind(first)
    first.pause()
    second.start()
    first.finish()
    assert ask(viewed)[1]
    second.stop()
    assert list(view_folder(viewed.config).iterdir()) == []
