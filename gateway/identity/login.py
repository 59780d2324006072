"""Logging in by OpenID Connect Core 1.0: authorization code (3.1) with PKCE (RFC 7636), state and nonce."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

from gateway.config.accounts import UserRole
from gateway.config.identity import Oidc
from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.identity.discovery import Asks, Discovery
from gateway.identity.tokens import Claims, TokenRules, verify

PREFIX = "oidc:"  # of names: no local account has a colon in its own, so nobody is taken for another
MOST_ASKING = 8  # logins that wait for the provider at once: the page's other threads stay free for everybody else
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,89}")
_CODE = re.compile(r"[ -~]{1,2048}")


class LoginRefusedError(GatewayError):
    """Somebody who does not get in; `code` says why."""


@dataclass(frozen=True)
class Begun:
    """A login on its way: where the browser goes, and what it has to bring back."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Identity:
    """Who logged in, what they may do, and the ID token that says so."""

    user: str
    role: UserRole
    token: str


class Provider:
    """The page's side of a login. Safe for any number of threads.

    Parameters
    ----------
    asks
        Requests to the issuer alone.
    secret
        Gives the client's secret; None: a public client.
    """

    def __init__(
        self, oidc: Oidc, discovery: Discovery, rules: TokenRules, asks: Asks, secret: Callable[[], bytes] | None
    ) -> None:
        self._oidc = oidc
        self._discovery = discovery
        self._rules = rules
        self._asks = asks
        self._secret = secret
        self._places = threading.BoundedSemaphore(MOST_ASKING)

    @property
    def page_url(self) -> str:
        """The page as browsers have to know it for a login."""
        return self._oidc.page_url.rstrip("/")

    def begin(self) -> Begun:
        """Where to send a browser that wants to log in.

        Raises
        ------
        UnreachableError, ConfigError
            ``issuer-unreachable``, ``issuer-unusable``.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._oidc.client_id,
            "redirect_uri": self._oidc.redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._oidc.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        with self._place():
            endpoint = self._discovery.endpoint("authorization_endpoint")
        return Begun(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", state, nonce, verifier)

    def finish(self, code: str, nonce: str, verifier: str) -> Identity:
        """Who came back with a code.

        Raises
        ------
        LoginRefusedError
            ``code-refused``, ``token-nonce``, ``user-unusable``, ``no-role``.
        TokenError
            As `gateway.identity.verify`.
        UnreachableError, ConfigError
            The provider does not answer, or refuses us.
        """
        if not _CODE.fullmatch(code):
            raise LoginRefusedError("code-refused", "what came back is no code")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._oidc.redirect_uri,
            "code_verifier": verifier,
        }
        with self._place():
            token = self._redeemed(form)
            claims = verify(token, self._rules)
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise LoginRefusedError("token-nonce", "the token was made for another login")
        party = claims.get("azp")
        if party is not None and party != self._oidc.client_id:  # Core 3.1.3.7
            raise LoginRefusedError("token-audience", "the token is meant for somebody else")
        user, role = who(claims, self._oidc)
        return Identity(user, role, token)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the few that may wait for the provider; who finds none is told so at once."""
        if not self._places.acquire(blocking=False):
            message = f"{self._oidc.issuer} is slow: {MOST_ASKING} logins wait for its answer"
            raise UnreachableError("issuer-unreachable", message, "try again in a moment")
        try:
            yield
        finally:
            self._places.release()

    def _redeemed(self, form: dict[str, str]) -> str:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._secret is None:
            form = {**form, "client_id": self._oidc.client_id}
        else:  # RFC 6749 2.3.1
            secret = self._secret().decode("utf-8", "replace").strip()
            pair = f"{quote_plus(self._oidc.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        endpoint = self._discovery.endpoint("token_endpoint")
        try:
            status, body = self._asks.post(endpoint, urlencode(form).encode(), headers)
        except UnreachableError as error:
            message = f"{self._oidc.issuer}: {error.message}"
            raise UnreachableError("issuer-unreachable", message, error.hint) from None
        told = _object(body)
        if status in (400, 401) and told.get("error") in ("invalid_client", "unauthorized_client"):
            message = f"{self._oidc.issuer} does not know this gateway by its client_id and secret"
            raise ConfigError("client-refused", message, "compare [page.oidc] with the client that is registered there")
        if status in (400, 401):
            raise LoginRefusedError("code-refused", "the provider does not take the code that came back")
        token = told.get("id_token")
        if status != 200 or not isinstance(token, str):
            message = f"{self._oidc.issuer} answered HTTP {status} without an ID token"
            raise UnreachableError("issuer-unreachable", message, "see its own log")
        return token


class Proofs:
    """Who somebody is by the ID token of their login: for the worker, which believes no name that the page gives."""

    def __init__(self, oidc: Oidc, rules: TokenRules) -> None:
        self._oidc = oidc
        self._rules = rules

    def role_of(self, user: str, token: str) -> UserRole | None:
        """What that user may do; None where the token is no proof. GatewayError: it cannot be looked at now."""
        try:
            found, role = who(verify(token, self._rules, of_login=True), self._oidc)
        except UnreachableError:
            raise
        except GatewayError:
            return None
        return role if found == user else None

    def identity(self, token: str) -> Identity:
        """Who logged in a moment ago; GatewayError as `Provider.finish`."""
        user, role = who(verify(token, self._rules), self._oidc)
        return Identity(user, role, token)


def who(claims: Claims, oidc: Oidc) -> tuple[str, UserRole]:
    """Name and role that the claims give, as the configuration maps them.

    Raises
    ------
    LoginRefusedError
        ``user-unusable``, ``no-role``.
    """
    name = _claim(claims, oidc.user_claim)
    if not isinstance(name, str) or not _USER.fullmatch(name):
        message = f"the token's {oidc.user_claim} is no name that can be used here"
        raise LoginRefusedError("user-unusable", message, "name another claim as user_claim")
    values = _claim(claims, oidc.role_claim)
    has = {one for one in (values if isinstance(values, list) else [values]) if isinstance(one, str)}
    if has & set(oidc.operators):
        return PREFIX + name, "operator"
    if has & set(oidc.viewers):
        return PREFIX + name, "viewer"
    raise LoginRefusedError("no-role", f"nothing in the token's {oidc.role_claim} lets them in", "ask the site's IT")


def _claim(claims: Claims, path: str) -> Any:
    """A claim by its whole name, or by a path through nested ones."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    return told if isinstance(told, dict) else {}
