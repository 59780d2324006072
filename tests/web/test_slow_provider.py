"""An identity provider that is slow, down, or has keys of kinds that nobody here knows: who else is held up by it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from joserfc.jwk import ECKey

from gateway.config.identity import Oidc
from gateway.errors import UnreachableError
from gateway.identity import KeySource, TokenRules
from gateway.identity.discovery import Discovery
from gateway.identity.jwks import AGAIN_S, FAILED_S, read_keys
from gateway.identity.login import MOST_ASKING, Provider
from tests.support.until import until

ISSUER = "https://login.example"
WITHIN_S = 50
KEY = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
JWKS = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()


class Slow:
    """Asks an issuer that takes ten seconds by its clock, and as long as `go` is not set by ours."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.go = threading.Event()
        self.is_down = False
        self.asked = 0

    def covers(self, url: str) -> bool:
        return True

    def get(self, url: str, headers: object = None) -> tuple[int, bytes]:
        self.asked += 1
        assert self.go.wait(WITHIN_S)
        self.now += 10
        if self.is_down:
            raise UnreachableError("no-answer", "it did not answer")
        document = {"issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/authorize", "jwks_uri": f"{ISSUER}/jwks"}
        return 200, json.dumps(document).encode()

    def post(self, url: str, body: bytes, headers: object) -> tuple[int, bytes]:
        raise AssertionError

    def keys(self) -> bytes:
        self.get(ISSUER)
        return JWKS


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


def test_who_waited_for_an_issuer_that_is_down_does_not_ask_it_in_turn(slow):
    """Else each of the page's threads would take its ten seconds after the other's."""
    slow.is_down = True
    discovery = Discovery(ISSUER, slow, lambda: slow.now)
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(discovery.endpoint, "jwks_uri") for _ in range(4)]
        until("one asks", lambda: slow.asked == 1)
        slow.go.set()
        assert {one.exception(WITHIN_S).code for one in asking} == {"issuer-unreachable"}
    assert slow.asked == 1
    slow.is_down = False
    slow.now += FAILED_S
    assert discovery.endpoint("jwks_uri") == f"{ISSUER}/jwks"


def test_keys_that_did_not_come_are_not_asked_for_again_at_once(slow):
    slow.is_down = True
    slow.go.set()
    keys = KeySource(slow.keys, ISSUER, lambda: slow.now)
    for _ in range(3):
        with pytest.raises(UnreachableError):
            keys.of("one")
    assert slow.asked == 1
    slow.is_down = False
    slow.now += FAILED_S
    assert [key.kid for key in keys.of("one")] == ["one"]


def test_a_token_with_an_unknown_key_holds_up_no_others(slow):
    slow.go.set()
    keys = KeySource(slow.keys, ISSUER, lambda: slow.now)
    assert keys.of("one")
    slow.go.clear()
    slow.now += AGAIN_S
    with ThreadPoolExecutor(2) as pool:
        unknown = pool.submit(keys.of, "made up")
        until("it asks for an unknown key", lambda: slow.asked == 2)
        try:
            assert pool.submit(keys.of, "one").result(5)
        finally:
            slow.go.set()
        assert unknown.result(WITHIN_S) == []


def test_logins_that_wait_leave_the_page_its_other_threads(slow):
    oidc = Oidc(issuer=ISSUER, client_id="gateway", page_url="https://page.example", operators=("admins",))
    discovery = Discovery(ISSUER, slow, lambda: slow.now)
    provider = Provider(oidc, discovery, TokenRules(ISSUER, "gateway", KeySource(slow.keys, ISSUER)), slow, None)
    with ThreadPoolExecutor(MOST_ASKING + 1) as pool:
        waiting = [pool.submit(provider.begin) for _ in range(MOST_ASKING)]
        until("all places are taken", lambda: slow.asked == 1 and not provider._places._value)
        try:
            with pytest.raises(UnreachableError, match="is slow"):
                pool.submit(provider.begin).result(5)
        finally:
            slow.go.set()
        assert all(one.result(WITHIN_S).url.startswith(f"{ISSUER}/authorize?") for one in waiting)
    assert provider.begin().state


@pytest.mark.parametrize("odd", [{"crv": "BP-256"}, {"crv": None}, {"x": 5}, {"kty": "AKP"}, {"kid": []}])
def test_a_key_of_a_kind_that_is_not_known_does_not_hide_the_others(odd):
    """Health card providers sign with brainpool curves."""
    entries = [{**KEY.as_dict(private=False), "kid": "odd", **odd}, KEY.as_dict(private=False)]
    assert [key.kid for key in read_keys(json.dumps({"keys": entries}).encode(), "it") if key.kid == "one"] == ["one"]
