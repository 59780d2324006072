"""The HTTPS ports' threads, when the loop that answers for them is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.errors import TransientError
from gateway.network.http import exchange as http
from gateway.network.http.exchange import Exchange


def test_a_loop_that_ends_lets_no_request_wait_for_it(monkeypatch):
    """It takes what it is given as it ends, and never looks at it: the thread would wait until the process ends."""
    monkeypatch.setattr(http, "_LOOP_S", 0.05)
    connection = SimpleNamespace(transport=SimpleNamespace(abort=lambda: None), balancer="", certificate=None)
    scope = {
        "state": {"connection": connection}, "headers": [], "method": "GET", "raw_path": b"/", "query_string": b"",
        "client": ("127.0.0.1", 1), "server": None,
    }  # fmt: skip

    async def send(message) -> None:
        pass

    async def make() -> Exchange:
        return Exchange(scope, send, send, 0.05)

    loop = asyncio.new_event_loop()
    exchange = loop.run_until_complete(make())
    with pytest.raises(TransientError) as caught:
        exchange.write(b"x")
    assert caught.value.code == "association-lost"
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
