"""Login by the site's identity provider: to it, and back from it."""

from __future__ import annotations

import base64
import hmac
import json
import re
from typing import Annotated, Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from gateway.audit import audited, events
from gateway.audit.refusals import Refusals
from gateway.config.accounts import UserRole
from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.web import views
from gateway.web.acting import WRONG, address_of, back, keep, log_out, prove
from gateway.web.people import LoginNeededError
from gateway.web.sessions import BROWSER_COOKIE, Sessions
from gateway.web.sources import Sources

COOKIE = "miad-gateway-login"  # what a login on its way has to bring back; the browser's own, and for ten minutes
COOKIE_S = 600
PLACE = "/login/oidc"

pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


class Begun(Protocol):
    """A login on its way (`gateway.identity.login.Begun`)."""

    url: str
    state: str
    nonce: str
    verifier: str


class Identity(Protocol):
    """Who logged in (`gateway.identity.login.Identity`)."""

    user: str
    role: UserRole
    token: str


class SignOn(Protocol):
    """The site's identity provider (`gateway.identity.login.Provider`)."""

    @property
    def page_url(self) -> str:
        """The page as browsers have to know it."""

    def begin(self) -> Begun:
        """Where to send a browser."""

    def finish(self, code: str, nonce: str, verifier: str) -> Identity:
        """Who came back; GatewayError where nobody gets in."""


@pages.get(PLACE)
def to_provider(request: Request, to: Annotated[str, Query(max_length=512)] = "/") -> Response:
    """Send the browser to the provider."""
    provider = _provider(request)
    try:
        begun = provider.begin()
    except GatewayError as error:
        return _no(request, error)
    answer = RedirectResponse(begun.url, 303)
    kept = json.dumps([begun.state, begun.nonce, begun.verifier, back(to)])
    value = base64.urlsafe_b64encode(kept.encode()).decode()
    # Lax: the browser comes back from another site.
    answer.set_cookie(COOKIE, value, COOKIE_S, path=PLACE, httponly=True, samesite="lax", secure=_is_secure(provider))
    return answer


@pages.get(f"{PLACE}/back")
def from_provider(
    request: Request,
    state: Annotated[str, Query(max_length=128)] = "",
    code: Annotated[str, Query(max_length=2048)] = "",
    error: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """A session, or why there is none. What the provider says is not repeated."""
    provider = _provider(request)
    sessions: Sessions = request.app.state.sessions
    begun = _begun(request)
    if begun is None or not hmac.compare_digest(begun[0].encode(), state.encode()):
        hint = f"begin again, and in the same browser, at {provider.page_url}"
        return _no(request, LoginNeededError("login-not-begun", "this login was not begun here, or too long ago", hint))
    if error or not code:
        return _no(request, LoginNeededError("provider-refused", "the identity provider did not let you in"))
    source, browser = address_of(request) or "", request.cookies.get(BROWSER_COOKIE)
    if not sessions.may_sign_on(source, browser):
        return _no(request, LoginNeededError("too-many-tries", WRONG["too-many-tries"]))
    try:
        found = provider.finish(code, begun[1], begun[2])
    except GatewayError as refused:
        return _no(request, refused)
    sources: Sources = request.app.state.sources
    token, session = sessions.sign_on(found.user, found.role, found.token, source, browser)
    told = {"user": session.user, "session_id": session.id, "peer_address": source or None}
    try:
        audited(sources.audit, events.PAGE_LOGIN, "success", operation="oidc", **told)
    except GatewayError:
        sessions.log_out(token)
        raise
    log_out(request)  # whoever sat here before
    prove(sources, session)
    # Not a redirect: on one that began at another site browsers would not send the session's cookie (SameSite=strict).
    answer = views.render(request, "signed_on.html", to=begun[3], user=session.user)
    answer.headers["refresh"] = f"0; url={begun[3]}"
    answer.delete_cookie(COOKIE, PLACE)
    keep(request, answer, token, session, secure=_is_secure(provider))
    return answer


def _provider(request: Request) -> SignOn:
    provider = request.app.state.sources.sign_on
    if provider is None:
        raise LoginNeededError("no-provider", "there is no identity provider here", "log in by name and password")
    return provider


def _no(request: Request, error: GatewayError) -> Response:
    """Tell of it, and show the way in by a local account where there is one."""
    is_ours = isinstance(error, UnreachableError | ConfigError)
    refusals: Refusals = request.app.state.refusals
    tell = refusals.write_failure if is_ours else refusals.write
    tell(events.PAGE_LOGIN, error.code, address_of(request) or "", operation="oidc")
    has_users = request.app.state.sessions.has_users()
    words = str(error) if not is_ours else f"The identity provider cannot be used now: {error}"
    if is_ours and has_users:
        words += ". A local account still works"
    status = 503 if is_ours else 401
    answer = views.render(request, "login.html", status, to="/", wrong=words, has_users=has_users)
    answer.delete_cookie(COOKIE, PLACE)
    return answer


def _begun(request: Request) -> tuple[str, str, str, str] | None:
    try:
        state, nonce, verifier, to = json.loads(base64.urlsafe_b64decode(request.cookies.get(COOKIE, "")))
        state, nonce, verifier, to = (str(one) for one in (state, nonce, verifier, to))
    except (ValueError, TypeError, RecursionError):
        return None
    are_ours = all(re.fullmatch("[A-Za-z0-9_-]{1,128}", one) for one in (state, nonce, verifier))
    return (state, nonce, verifier, back(to)) if are_ours else None


def _is_secure(provider: SignOn) -> bool:
    return provider.page_url.startswith("https://")
