"""Originals over DICOMweb where each request shows a token of the site's identity provider besides its certificate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import RSAKey

from gateway.audit import events
from gateway.config.identity import Tokens
from gateway.config.models import Tls
from gateway.service.identity import bearer_of
from tests.network.retrieve.conftest import bound, lines_soon
from tests.network.retrieve.test_dicomweb import RELATED, parts_of, session_of
from tests.support.identity import Provider, serving

ANY = {"Accept": f"{RELATED}; transfer-syntax=*"}
AUDIENCE = "https://gateway.hospital.example/dicomweb"
SCOPES = "openid dicomweb.search dicomweb.retrieve"


def thumbprint_of(tls: Tls) -> str:
    der = ssl.PEM_cert_to_DER_cert(tls.certificate.read_text())
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def signed(provider: Provider, head: dict, body: str) -> str:
    """A token with any head, and a signature that is good."""
    first = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
    made = provider.key.private_key.sign(f"{first}.{body}".encode(), PKCS1v15(), SHA256())
    return f"{first}.{body}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


@pytest.fixture(scope="module")
def provider(authority) -> Iterator[Provider]:
    with serving(authority.issue("login")) as provider:
        yield provider


@pytest.fixture
def good(provider: Provider, reading_tls: Tls) -> dict:
    """The claims of a token that counts."""
    return {"aud": AUDIENCE, "scope": SCOPES, "sub": "jane.doe", "cnf": {"x5t#S256": thumbprint_of(reading_tls)}}


@pytest.fixture
def web(start_web, reading_tls, authority, provider):
    tokens = Tokens(issuer=provider.url, trust=authority.trust, audience=AUDIENCE)
    return start_web(bound(reading_tls), bearer=bearer_of(tokens))


def ask(web, tls: Tls, token: str | None, path: str = "/studies?limit=1", scheme: str = "Bearer") -> requests.Response:
    headers = {**ANY, "Authorization": f"{scheme} {token}"} if token is not None else dict(ANY)
    if "?" in path:
        headers["Accept"] = "application/dicom+json"
    return session_of(tls).get(f"https://localhost:{web.port}/dicomweb{path}", headers=headers)


def test_who_shows_certificate_and_token_gets_the_original(web, site, reading_tls, provider, good, audit, tmp_path):
    ct = site.samples["ct"]
    token = provider.token(**good)
    assert {ask(web, reading_tls, token, scheme=each).status_code for each in ("Bearer", "bearer", "BEARER")} == {200}
    answer = ask(web, reading_tls, token, f"/studies/{ct.study}")
    assert answer.status_code == 200 and ct.data in parts_of(answer)[0]
    (line,) = lines_soon(audit, events.ORIGINAL_RESTORED)
    assert line["user"] == "jane.doe"


def test_without_a_token_nothing_leaves(web, site, reading_tls, audit):
    answer = ask(web, reading_tls, None, f"/studies/{site.samples['ct'].study}")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="originals"')
    (line,) = lines_soon(audit, events.REQUEST_REFUSED)
    assert (line["reason"], line["calling_ae"]) == ("token-missing", "READING1")
    assert audit.lines(events.RESTORE_INTENDED) == []


def test_a_token_of_another_certificate_is_none(web, authority, reading_tls, provider, good, audit):
    stolen = {**good, "cnf": {"x5t#S256": thumbprint_of(authority.issue("another"))}}
    for claims, reason in ((stolen, "token-of-other-certificate"), ({**good, "cnf": None}, "token-not-bound"),
                           ({**good, "cnf": {"jkt": "x"}}, "token-not-bound"),
                           ({**good, "cnf": {"x5t#S256": ""}}, "token-of-other-certificate")):  # fmt: skip
        answer = ask(web, reading_tls, provider.token(**claims))
        assert answer.status_code == 401 and 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == reason


def test_a_token_without_the_certificate_is_none(web, authority, provider, good):
    """Another workstation's certificate, of the same authority: the token does not make it a workstation."""
    other = authority.issue("stranger")
    answer = ask(web, other, provider.token(**{**good, "cnf": {"x5t#S256": thumbprint_of(other)}}))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"aud": "https://other.example"}, "token-audience"),
        ({"aud": [AUDIENCE + "x"]}, "token-audience"),
        ({"aud": None}, "token-audience"),
        ({"iss": "https://evil.example"}, "token-issuer"),
        ({"exp": 1_000}, "token-expired"),
        ({"exp": None}, "token-malformed"),
        ({"exp": "never"}, "token-malformed"),
        ({"iat": None}, "token-malformed"),
        ({"iat": 10_000_000_000}, "token-not-yet"),
        ({"nbf": 10_000_000_000}, "token-not-yet"),
        ({"iat": 1_000, "exp": 10_000_000_000}, "token-expired"),  # one for ever
    ],
)
def test_what_a_token_says_has_to_fit(web, reading_tls, provider, good, audit, change, reason):
    answer = ask(web, reading_tls, provider.token(**{**good, **change}))
    assert answer.status_code == 401, answer.text
    assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == reason


def test_scopes_are_asked_for_each_kind(web, site, reading_tls, provider, good, audit):
    study = f"/studies/{site.samples['ct'].study}"
    search = provider.token(**{**good, "scope": "dicomweb.search"})
    assert ask(web, reading_tls, search).status_code == 200
    for path in (study, f"{study}/metadata"):
        answer = ask(web, reading_tls, search, path)
        assert answer.status_code == 403 and 'scope="dicomweb.retrieve"' in answer.headers["WWW-Authenticate"]
    assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == "token-scope"
    assert (
        ask(web, reading_tls, provider.token(**{**good, "scope": None, "scp": ["dicomweb.search"]})).status_code == 200
    )
    assert ask(web, reading_tls, provider.token(**{**good, "scope": "xdicomweb.search"})).status_code == 403


def test_signatures_that_are_none(web, reading_tls, provider, good, audit):
    good_one = provider.token(**good)
    head, body, signature = good_one.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    hs256 = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=").decode()
    mac = hmac.digest(provider.key.as_pem(private=False), f"{hs256}.{body}".encode(), "sha256")
    by_public = f"{hs256}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    own = (
        base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "jwk": stranger.as_dict(private=False)}).encode())
        .rstrip(b"=")
        .decode()
    )
    attacks = {
        f"{none}.{body}.": "token-algorithm",
        f"{none}.{body}.{signature}": "token-algorithm",
        by_public: "token-algorithm",
        provider.token(key=stranger, **good): "token-signature",
        f"{own}.{provider.token(key=stranger, **good).partition('.')[2]}": "token-signature",
        provider.token(header={"kid": "../../etc"}, **good): "token-key-unknown",
        signed(provider, {"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1}, body): "token-signature",
        f"{head}.{body}.{signature[:-4]}AAAA": "token-signature",
        f"{head}.{body}": "token-malformed",
        "x" * 13_000: "token-malformed",
        "a b": "token-malformed",
        "e30.e30.e30": "token-algorithm",
        f"{good_one}, Bearer {good_one}": "token-malformed",
    }
    for token, reason in attacks.items():
        assert ask(web, reading_tls, token).status_code == 401, reason
        assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == reason, token[:40]
    for line in audit.lines(events.REQUEST_REFUSED):
        assert body[:40] not in str(line)
    assert ask(web, reading_tls, good_one).status_code == 200


def test_an_issuer_that_is_down_says_so_and_a_new_key_is_learnt(start_web, authority, reading_tls, good, audit):
    with serving(authority.issue("login2")) as provider:
        tokens = Tokens(issuer=provider.url, trust=authority.trust, audience=AUDIENCE)
        bearer = bearer_of(tokens)
        now = [1000.0]
        keys = bearer._rules.keys
        keys._clock = keys._fetch.__self__._clock = lambda: now[0]  # of the keys, and of the discovery behind them
        web = start_web(bound(reading_tls), bearer=bearer)
        provider.is_down = True
        answer = ask(web, reading_tls, provider.token(**good))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        assert lines_soon(audit, events.REQUEST_REFUSED)[-1]["reason"] == "token-keys-unavailable"
        asked = len(provider.asked)
        assert ask(web, reading_tls, provider.token(**good)).status_code == 503
        assert len(provider.asked) == asked  # it is left alone for a moment
        provider.is_down = False
        now[0] += 6
        assert ask(web, reading_tls, provider.token(**good)).status_code == 200
        provider.rotate()
        new = provider.token(header={"alg": "ES256", "kid": "two"}, **good)
        assert ask(web, reading_tls, new).status_code == 401
        now[0] += 61
        assert ask(web, reading_tls, new).status_code == 200
        assert set(provider.asked) == {"/.well-known/openid-configuration", "/jwks"}


def test_keys_can_lie_in_a_file(start_web, reading_tls, provider, good, tmp_path: Path):
    file = tmp_path / "keys.json"
    file.write_bytes(provider.jwks())
    asked = len(provider.asked)
    web = start_web(
        bound(reading_tls), bearer=bearer_of(Tokens(issuer=provider.url, keys_file=file, audience=AUDIENCE))
    )
    assert ask(web, reading_tls, provider.token(**good)).status_code == 200
    assert len(provider.asked) == asked
