"""Notices on damaged and full disks: nobody is flooded, and nothing falls silent."""

from __future__ import annotations

import json

import pytest

from gateway.errors import GatewayError
from gateway.flow.notices import HeldNow
from tests.web.conftest import Shown
from tests.web.test_notices import (  # noqa: F401  (fixtures)
    Hook,
    Watch,
    authority,
    hook,
    secret,
    watch,
)


def test_what_was_sent_goes_once_while_the_disk_is_full(own: Shown, watch: Watch, hook: Hook) -> None:  # noqa: F811
    hook.status = 503
    assert not watch.notices.once()
    hook.status = 204
    watch.file.with_suffix(".new").mkdir()  # from now on nothing can be kept
    for _ in range(4):
        watch.now += 4000
        with pytest.raises(GatewayError, match="cannot write"):
            watch.notices.once()
    assert len(hook.got) == 2
    watch.file.with_suffix(".new").rmdir()
    watch.now += 4000
    assert not watch.notices.once() and len(hook.got) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"told": [[1]]},
        {"told": [1]},
        {"certificates": {"a 1": "x"}},
        {"outbox": "x"},
        {"outbox": {}},
        {"outbox": {"id": "1", "kind": "notice", "held": 7, "certificates": []}},
        {"tries": -1},
        {"deep": None},
    ],
)
def test_a_damaged_state_silences_nothing(own: Shown, watch: Watch, hook: Hook, damage: dict) -> None:  # noqa: F811
    whole = {"told": [], "count": 0, "certificates": {}, "sent_at": 0.0, "outbox": None, "tries": 0, "next_at": 0.0}
    text = json.dumps({**whole, **damage})
    watch.file.write_text("[" * 200_000 if "deep" in damage else text)
    assert watch.notices.once()
    assert hook.notices[0]["held_in_all"] == 2


def test_what_was_too_much_to_be_told_apart_is_not_told_again_as_it_shrinks(
    own: Shown,
    watch: Watch,  # noqa: F811
    hook: Hook,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.flow.notices.MOST", 2)
    newest = {"n1": ("r", "x"), "n2": ("r", "x")}
    seen = [HeldNow(newest, 3), HeldNow({"n2": ("r", "x"), "old": ("r", "x")}, 2), HeldNow({"old": ("r", "x")}, 1)]
    for start in (0, 1):  # step by step, and at once
        watch.file.unlink(missing_ok=True)
        told = len(hook.got)
        for held in [seen[0], *seen[1 + start :]]:
            monkeypatch.setattr("gateway.flow.notices.held_now", lambda engine, held=held: held)
            watch.notices.once()
            watch.now += 4000
        assert len(hook.got) == told + 1
