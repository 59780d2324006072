"""Login to the page by an identity provider: to it and back, and everything that somebody might bring back instead."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from gateway.audit.refusals import LINES_OF_ONE_ADDRESS
from gateway.config.identity import Oidc
from gateway.config.page import Page
from gateway.config.secret import SecretRef
from gateway.database import RequestRow, reading
from gateway.errors import UnreachableError
from gateway.preflight import doctor
from gateway.service.identity import provider_of
from gateway.service.page import page_sources
from gateway.service.wiring import build_requested
from gateway.web.app import create_app
from gateway.web.guessing import TRIES
from gateway.web.sessions import LONGEST_S
from gateway.web.single_sign_on import COOKIE
from tests.support.identity import Provider, serving
from tests.support.network.certificates import Authority
from tests.web.conftest import Shown, with_users
from tests.web.test_acting import asked, told


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("oidc-tls"))


@pytest.fixture
def provider(authority: Authority) -> Iterator[Provider]:
    with serving(authority.issue("login")) as provider:
        yield provider


def with_oidc(shown: Shown, provider: Provider, authority: Authority, tmp_path: Path, **more: object) -> None:
    secret = tmp_path / "oidc.secret"
    secret.touch(mode=0o600)
    secret.write_text("s3cret\n")
    oidc = {
        "issuer": provider.url,
        "client_id": provider.client_id,
        "client_secret": SecretRef(f"file:{secret}"),
        "page_url": "http://localhost",
        "operators": ("pacs-admins",),
        "viewers": ("radiology",),
        "trust": authority.trust,
        **more,
    }
    page = (shown.config.page or Page()).model_copy(update={"oidc": Oidc(**oidc)})
    shown.config = shown.config.model_copy(update={"page": page})
    app = create_app(page_sources(shown.config))
    shown.client = TestClient(app, base_url="http://localhost", follow_redirects=False)


@pytest.fixture
def signing(own: Shown, provider: Provider, authority: Authority, tmp_path: Path) -> Shown:
    """A page with local users and a provider."""
    own.config = with_users(own.config)
    with_oidc(own, provider, authority, tmp_path)
    return own


def to_provider(shown: Shown, to: str = "/") -> str:
    answer = shown.client.get("/login/oidc", params={"to": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back_from(url: str, authority: Authority) -> str:
    """Where the provider sends a browser back to."""
    answer = requests.get(url, verify=str(authority.trust), allow_redirects=False, timeout=20)
    return answer.headers["Location"]


def come_back(shown: Shown, authority: Authority, to: str = "/"):
    return shown.client.get(back_from(to_provider(shown, to), authority))


def test_somebody_logs_in_and_acts_and_the_worker_believes_the_token(signing, provider, authority) -> None:
    assert "identity provider" in signing.client.get("/login").text
    answer = come_back(signing, authority, "/queue")
    assert (answer.status_code, answer.headers["refresh"]) == (200, "0; url=/queue")
    cookies = answer.headers.get_list("set-cookie")
    assert any("miad-gateway-session" in one and "SameSite=strict" in one and "HttpOnly" in one for one in cookies)
    text = signing.client.get("/").text
    assert "oidc:jane.doe" in text and "Log out" in text
    form = text.partition('name="form" value="')[2].partition('"')[0]
    held = signing.ids["held"]
    signing.client.post("/actions", data={"form": form, "action": "release", "instance": held})
    (row,) = asked(signing)
    assert (row.user_name, row.state) == ("oidc:jane.doe", "asked")
    build_requested(signing.config, signing.flow.engine, signing.flow.store, signing.flow.context.audit).once()
    (row,) = asked(signing)
    assert (row.state, row.result) == ("done", None) and signing.flow.row(held).state != "held"
    with reading(signing.flow.engine) as session:
        assert session.get(RequestRow, row.id).proof == ""  # it is not kept
    (line,) = told(signing, "page-login")
    assert (line["outcome"], line["operation"], line["user"]) == ("success", "oidc", "oidc:jane.doe")
    assert signing.client.post("/logout").status_code == 303
    assert "Log in to act" in signing.client.get("/").text
    assert [one["user"] for one in told(signing, "page-logout")] == ["oidc:jane.doe"]
    assert set(provider.asked) == {"/.well-known/openid-configuration", "/authorize", "/token", "/jwks"}


def test_what_the_browser_is_sent_with(signing, provider) -> None:
    url = urlsplit(to_provider(signing))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{provider.url}/authorize"
    assert query["response_type"] == "code" and query["scope"] == "openid profile"
    assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43
    assert query["redirect_uri"] == "http://localhost/login/oidc/back"
    (cookie,) = signing.client.get("/login/oidc").headers.get_list("set-cookie")
    assert all(one in cookie for one in ("HttpOnly", "SameSite=lax", "Path=/login/oidc", "Max-Age=600"))
    again = parse_qs(urlsplit(to_provider(signing)).query)
    assert all(again[name][0] != query[name] for name in ("state", "nonce", "code_challenge"))
    assert "s3cret" not in url.query


def test_roles_come_from_the_claim(signing, provider, authority) -> None:
    provider.claims["groups"] = ["radiology", "others"]
    come_back(signing, authority)
    assert "looks only" in signing.client.get("/").text
    provider.claims["groups"] = ["others"]
    answer = come_back(signing, authority)
    assert answer.status_code == 401 and "lets them in" in answer.text
    assert told(signing, "page-login")[-1]["reason"] == "no-role"
    provider.claims["groups"] = "pacs-admins"  # one value, no list
    assert come_back(signing, authority).status_code == 200


def test_a_role_may_stand_deep_in_the_token(own, provider, authority, tmp_path) -> None:
    with_oidc(own, provider, authority, tmp_path, role_claim="realm_access.roles")
    provider.claims = {"preferred_username": "j", "realm_access": {"roles": ["pacs-admins"]}, "sub": "1"}
    assert come_back(own, authority).status_code == 200


@pytest.mark.parametrize("name", ["", "a b", "<b>", "x" * 100, 7, None, "ops:x", "-x"])
def test_names_that_are_none(signing, provider, authority, name) -> None:
    provider.claims["preferred_username"] = name
    assert come_back(signing, authority).status_code == 401
    assert told(signing, "page-login")[-1]["reason"] == "user-unusable"


def test_a_local_account_is_nobody_s_by_its_name(signing, provider, authority) -> None:
    provider.claims = {"preferred_username": "ops", "groups": ["radiology"], "sub": "1"}
    come_back(signing, authority)
    text = signing.client.get("/").text
    assert "oidc:ops" in text and "looks only" in text


ATTACKS = {
    "expired": ({"exp": 1_000}, "token-expired"),
    "another audience": ({"aud": "other"}, "token-audience"),
    "for several, by another": ({"aud": ["gateway", "other"], "azp": "other"}, "token-audience"),
    "another issuer": ({"iss": "https://evil.example"}, "token-issuer"),
    "another nonce": ({"nonce": "x"}, "token-nonce"),
    "no nonce": ({"nonce": None}, "token-nonce"),
    "from the future": ({"iat": 10_000_000_000, "exp": 10_000_000_300}, "token-not-yet"),
    "without a time": ({"iat": None}, "token-malformed"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_tokens_that_say_something_else(signing, provider, authority, attack: str) -> None:
    change, reason = ATTACKS[attack]
    url = to_provider(signing)
    nonce = parse_qs(urlsplit(url).query)["nonce"][0]
    provider.give = provider.token(**{"aud": "gateway", "nonce": nonce, **provider.claims, **change})
    answer = signing.client.get(back_from(url, authority))
    assert answer.status_code == 401 and "Log in to act" in signing.client.get("/").text
    line = told(signing, "page-login")[-1]
    assert (line["outcome"], line["reason"]) == ("refused", reason) and "user" not in line


def test_signatures_that_are_none(signing, provider, authority) -> None:
    def given(make) -> str:
        url = to_provider(signing)
        nonce = parse_qs(urlsplit(url).query)["nonce"][0]
        provider.give = make({"aud": "gateway", "nonce": nonce, **provider.claims})
        answer = signing.client.get(back_from(url, authority))
        assert answer.status_code == 401
        return told(signing, "page-login")[-1]["reason"]

    def none(claims: dict) -> str:
        head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        return f"{head}.{provider.token(**claims).split('.')[1]}."

    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    assert given(none) == "token-algorithm"
    assert given(lambda claims: provider.token(key=stranger, **claims)) == "token-signature"
    assert given(lambda claims: provider.token(header={"kid": "other"}, **claims)) == "token-key-unknown"
    assert given(lambda claims: "not a token") == "token-malformed"


def test_nobody_brings_back_what_was_not_begun_here(signing, provider, authority) -> None:
    stranger = TestClient(signing.client.app, base_url="http://localhost", follow_redirects=False)
    theirs = back_from(stranger.get("/login/oidc").headers["location"], authority)
    asked_before = provider.asked.count("/token")
    for client in (signing.client, TestClient(signing.client.app, base_url="http://localhost")):
        answer = client.get(theirs)  # a link that a stranger sent: their account would be used unnoticed
        assert answer.status_code == 401 and "not begun here" in answer.text
    to_provider(signing)
    assert signing.client.get(theirs).status_code == 401  # another login's state
    written = (b"[1]", b'["","","",""]', b'["\\ud800","n","v","/"]', b'["s","\\ud800","\\ud800","/"]')
    for cookie in ("", "x", *(base64.b64encode(one).decode() for one in written)):
        client = TestClient(signing.client.app, base_url="http://localhost", cookies={COOKIE: cookie})
        assert client.get("/login/oidc/back?state=&code=x").status_code == 401
        assert client.get("/login/oidc/back?state=s&code=x").status_code == 401
    assert provider.asked.count("/token") == asked_before
    assert {line["reason"] for line in told(signing, "page-login")} == {"login-not-begun"}


@pytest.mark.parametrize(("is_down", "place"), [(False, "/login/oidc/back?state=s&code=x"), (True, "/login/oidc")])
def test_a_flood_of_logins_that_lead_nowhere_is_summed_up(signing, provider, is_down: bool, place: str) -> None:
    provider.is_down = is_down
    client = TestClient(signing.client.app, base_url="http://localhost", client=("192.0.2.7", 4000))
    for _ in range(LINES_OF_ONE_ADDRESS + 3):
        assert client.get(place).status_code in (401, 503)
    assert len(told(signing, "page-login")) == LINES_OF_ONE_ADDRESS
    signing.client.app.state.refusals.sum_up(all_of_them=True)
    first, *_, last = told(signing, "page-login")
    assert (last["count"], last["outcome"], last["reason"]) == (3, first["outcome"], first["reason"])


def test_a_code_counts_once_and_for_its_verifier(signing, provider, authority) -> None:
    url = back_from(to_provider(signing), authority)
    kept = signing.client.cookies[COOKIE]
    assert signing.client.get(url).status_code == 200
    again = TestClient(signing.client.app, base_url="http://localhost", cookies={COOKIE: kept})
    assert again.get(url).status_code == 401
    assert told(signing, "page-login")[-1]["reason"] == "code-refused"
    url = back_from(to_provider(signing), authority)
    state, nonce, _, to = json.loads(base64.urlsafe_b64decode(signing.client.cookies[COOKIE]))
    other = base64.urlsafe_b64encode(json.dumps([state, nonce, "another-verifier", to]).encode()).decode()
    client = TestClient(signing.client.app, base_url="http://localhost", cookies={COOKIE: other})
    assert client.get(url).status_code == 401


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb"])
def test_a_login_leads_to_our_own_pages_only(signing, authority, to: str) -> None:
    assert come_back(signing, authority, to).headers["refresh"] == "0; url=/"


def test_what_the_provider_says_is_not_repeated(signing) -> None:
    url = to_provider(signing)
    state = parse_qs(urlsplit(url).query)["state"][0]
    answer = signing.client.get("/login/oidc/back", params={"state": state, "error": "<script>secret words"})
    assert answer.status_code == 401 and "secret words" not in answer.text


def test_a_provider_that_is_down_says_so_and_local_accounts_work(signing, provider) -> None:
    provider.is_down = True
    answer = signing.client.get("/login/oidc")
    assert answer.status_code == 503
    assert "cannot be used now" in answer.text and "local account still works" in answer.text
    assert (
        told(signing, "page-login")[-1] | {"outcome": "failure", "reason": "issuer-unreachable"}
        == told(signing, "page-login")[-1]
    )
    form = {"name": "ops", "password": "a long enough password"}
    assert signing.client.post("/login", data=form).status_code == 303


def test_only_the_configured_issuer_is_contacted(own, provider, authority, tmp_path) -> None:
    with serving(authority.issue("elsewhere")) as other:
        for name in ("token_endpoint", "jwks_uri", "authorization_endpoint"):
            provider.document = {name: f"{other.url}/x"}
            with_oidc(own, provider, authority, tmp_path)
            answer = own.client.get("/login/oidc")
            assert answer.status_code == 503 and "another host" in answer.text
        provider.document = {"issuer": other.url}
        with_oidc(own, provider, authority, tmp_path)
        assert own.client.get("/login/oidc").status_code == 503
        assert other.asked == []


def test_a_certificate_of_a_stranger_is_not_believed(own, provider, tmp_path) -> None:
    with_oidc(own, provider, Authority(tmp_path / "stranger"), tmp_path)
    answer = own.client.get("/login/oidc")
    assert answer.status_code == 503 and "certificate" in answer.text


def test_a_wrong_secret_is_told_to_site_it(own, provider, authority, tmp_path) -> None:
    provider.secret = "another"
    with_oidc(own, provider, authority, tmp_path)
    answer = come_back(own, authority)
    assert answer.status_code == 503 and "client_id and secret" in answer.text
    assert told(own, "page-login")[-1]["reason"] == "client-refused"


def test_trying_is_slowed_down(signing, provider, authority) -> None:
    provider.claims["groups"] = []
    for _ in range(TRIES):
        assert come_back(signing, authority).status_code == 401
    provider.claims["groups"] = ["pacs-admins"]
    asked_before = provider.asked.count("/token")
    assert "Too many" in come_back(signing, authority).text
    assert provider.asked.count("/token") == asked_before


# --- what the worker believes


def ask_as(shown: Shown, user: str, proof: str) -> str | None:
    """Put a request as a page that was taken over could; what became of it."""
    from gateway.flow.requests import Wanted, ask, new_id

    one = new_id()
    ask(shown.flow.engine, one, Wanted("release", shown.ids["held"]), user, "0" * 16, proof)
    build_requested(shown.config, shown.flow.engine, shown.flow.store, shown.flow.context.audit).once()
    with reading(shown.flow.engine) as session:
        row = session.get(RequestRow, one)
        return row.result if row.state == "refused" else row.state


def test_the_worker_believes_no_name_without_its_token(signing, provider) -> None:
    proof = provider.token(aud="gateway", **provider.claims)
    viewer = provider.token(aud="gateway", **{**provider.claims, "groups": ["radiology"]})
    stranger = provider.token(key=RSAKey.generate_key(2048, {"kid": "one"}), aud="gateway", **provider.claims)
    now = int(time.time())
    old = provider.token(aud="gateway", **provider.claims, iat=now - int(LONGEST_S) - 120)
    for user, given in (
        ("oidc:jane.doe", ""),
        ("oidc:someone.else", proof),
        ("ops", proof),  # a local operator's name
        ("oidc:jane.doe", viewer),
        ("oidc:jane.doe", stranger),
        ("oidc:jane.doe", old),
        ("oidc:jane.doe", provider.token(aud="other", **provider.claims)),
        ("oidc:jane.doe", "x"),
    ):
        assert ask_as(signing, user, given) == "not-an-operator", (user, given[:20])
    expired_since = provider.token(aud="gateway", **provider.claims, iat=now - 3000, exp=now - 2700)
    assert ask_as(signing, "oidc:jane.doe", expired_since) == "done"  # sessions outlive tokens


def test_a_request_waits_while_nobody_can_vouch(signing, provider) -> None:
    from gateway.flow.requests import Wanted, ask, new_id

    provider.is_down = True
    one = new_id()
    proof = provider.token(aud="gateway", **provider.claims)
    ask(signing.flow.engine, one, Wanted("release", signing.ids["held"]), "oidc:jane.doe", "0" * 16, proof)
    with pytest.raises(UnreachableError):
        build_requested(signing.config, signing.flow.engine, signing.flow.store, signing.flow.context.audit).once()
    assert asked(signing)[0].state == "asked"
    provider.is_down = False
    build_requested(signing.config, signing.flow.engine, signing.flow.store, signing.flow.context.audit).once()
    assert asked(signing)[0].state == "done"


def test_a_request_of_nobody_holds_up_no_others(signing, provider) -> None:
    """Its provider is down; what a local operator asked for is done all the same."""
    from gateway.flow.requests import Wanted, ask, new_id

    provider.is_down = True
    first, second = new_id(), new_id()
    proof = provider.token(aud="gateway", **provider.claims)
    ask(signing.flow.engine, first, Wanted("release", signing.ids["held"]), "oidc:jane.doe", "0" * 16, proof)
    ask(signing.flow.engine, second, Wanted("pause", destination="second"), "ops", "1" * 16)
    requested = build_requested(signing.config, signing.flow.engine, signing.flow.store, signing.flow.context.audit)
    with pytest.raises(UnreachableError):
        requested.once()
    assert {one.id: one.state for one in asked(signing)} == {first: "asked", second: "done"}


# --- before anything starts


def test_doctor_asks_the_provider(signing, provider) -> None:
    (one,) = doctor._issuers(signing.config)
    assert (one.level, one.area) == ("ok", "identity") and "1 keys" in one.message
    provider.is_down = True
    (one,) = doctor._issuers(signing.config)
    assert one.level == "error" and one.unreachable and "503" in one.message


def test_the_secret_is_read_by_the_page_alone(signing) -> None:
    from gateway.config.duties import secrets_of

    holders = {
        role
        for role in ("ingress", "worker", "restore", "page")
        if any(path == ("page", "oidc", "client_secret") for path, _, _ in secrets_of(signing.config, role))
    }
    assert holders == {"page"}
    assert "s3cret" not in signing.client.get("/configuration").text
    assert "s3cret" not in repr(provider_of(signing.config.page.oidc))
