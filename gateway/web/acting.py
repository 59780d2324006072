"""Login, logout, and the forms by which an operator asks for something: pages and JSON."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Header, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from gateway.audit import audited, events
from gateway.audit.refusals import Refusals
from gateway.errors import GatewayError
from gateway.flow.requests import DONE, REFUSED, Action, Wanted, list_requests
from gateway.web import answers, views
from gateway.web.people import (
    LoginNeededError,
    from_our_page,
    may_look,
    operator_of,
    request_action,
)
from gateway.web.sessions import BROWSER_COOKIE, COOKIE, Session, Sessions
from gateway.web.sources import Sources

BROWSER_S = 180 * 86_400  # a browser is known so long
WRONG = {
    "wrong-password": "This name and password do not go together.",
    "too-many-tries": "Too many wrong passwords: wait some minutes, then try again.",
}
Name = Annotated[str, Form(max_length=64)]
Id = Annotated[str | None, Field(pattern="^[0-9a-f]{32}$")]
Word = Annotated[str | None, Field(max_length=64, pattern="^[ -~]*$")]

pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
api = APIRouter(
    prefix="/api/v1",
    responses={**answers.REFUSALS, 403: {"model": answers.Problem, "description": "Whoever asks may not."}},
)


def _log_in(request: Request, name: str, password: str) -> tuple[str, Session] | str:
    """Each try is told of, a flood of wrong ones in sum; a name that is no user's is not repeated."""
    sources: Sources = request.app.state.sources
    sessions: Sessions = request.app.state.sessions
    address = address_of(request)
    found = sessions.log_in(name, password, address or "", request.cookies.get(BROWSER_COOKIE))
    if isinstance(found, str):
        refusals: Refusals = request.app.state.refusals
        refusals.write(events.PAGE_LOGIN, found, address or "")
        return found
    told = {"user": found[1].user, "session_id": found[1].id, "peer_address": address}
    audited(sources.audit, events.PAGE_LOGIN, "success", **told)
    log_out(request)  # whoever sat here before, or handed this browser a cookie
    prove(sources, found[1], password)
    return found


def prove(sources: Sources, session: Session, password: str = "") -> None:
    """Let the worker know of a login; without the worker one logs in all the same, and sees no pictures."""
    if sources.viewer is None:
        return
    with suppress(GatewayError):
        if session.token:
            session.proof = sources.viewer.log_in_by_token(session.token, session.id)
        else:
            session.proof = sources.viewer.log_in(session.user, password, session.id)


def address_of(request: Request) -> str | None:
    """From where, as a proxy before us says; it may say anything, and what is no address is not repeated."""
    host = request.client.host if request.client else ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def log_out(request: Request) -> None:
    """End the session of this browser, if there is one."""
    sources: Sources = request.app.state.sources
    ended = request.app.state.sessions.log_out(request.cookies.get(COOKIE))
    if ended is not None:
        audited(sources.audit, events.PAGE_LOGOUT, "success", user=ended.user, session_id=ended.id)


def keep(request: Request, answer: Response, token: str, session: Session, *, secure: bool = False) -> None:
    """Give the browser its cookies. secure: also where a proxy with TLS before us does not say that it is one."""
    secure = secure or request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, path="/", httponly=True, samesite="strict", secure=secure)
    answer.set_cookie(
        BROWSER_COOKIE, session.browser, BROWSER_S, path="/", httponly=True, samesite="strict", secure=secure
    )


def back(place: str) -> str:
    """Where to go after a login: a page of ours, or the first."""
    return place if re.fullmatch(r"/(?!/)[A-Za-z0-9/_.?=&%-]*", place) else "/"


@pages.get("/login")
def login_form(request: Request, to: Annotated[str, Query(max_length=512)] = "/") -> HTMLResponse:
    """Name and password."""
    has_users = request.app.state.sessions.has_users()
    return views.render(request, "login.html", to=back(to), wrong="", has_users=has_users)


@pages.post("/login", dependencies=[Depends(from_our_page)])
def login(
    request: Request,
    name: Name,
    password: Annotated[str, Form(max_length=256)],
    to: Annotated[str, Form(max_length=512)] = "/",
) -> Response:
    """A session, or the form again."""
    found = _log_in(request, name, password)
    if isinstance(found, str):
        return views.render(request, "login.html", 401, to=back(to), wrong=WRONG[found], has_users=True)
    answer = RedirectResponse(back(to), 303)
    keep(request, answer, *found)
    return answer


@pages.post("/logout", dependencies=[Depends(from_our_page)])
def logout(request: Request) -> Response:
    """End the session."""
    log_out(request)
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@pages.post("/actions", dependencies=[Depends(from_our_page)])
def act(
    request: Request,
    form: Annotated[str, Form(max_length=64)],
    action: Annotated[Action, Form()],
    instance: Annotated[str, Form(pattern="^([0-9a-f]{32})?$")] = "",
    reason: Annotated[str, Form(max_length=64, pattern="^[ -~]*$")] = "",
    route: Annotated[str, Form(max_length=32, pattern="^[ -~]*$")] = "",
    destination: Annotated[str, Form(max_length=32, pattern="^[ -~]*$")] = "",
    confirmation: Annotated[str, Form(max_length=64, pattern="^[ -~]*$")] = "",
) -> Response:
    """Ask the worker for something, then show what became of it."""
    person = operator_of(request, form)
    wanted = Wanted(action, instance or None, reason or None, route or None, destination or None, confirmation.strip())
    asked = request_action(request.app.state.sources, person, wanted)
    return RedirectResponse(f"/requests?asked={asked}&refresh=2", 303)


@pages.get("/requests", dependencies=[Depends(may_look)])
def requests(request: Request, asked: Annotated[str, Query(pattern="^[0-9a-f]{0,32}$")] = "") -> HTMLResponse:
    """What was asked for, and what became of it."""
    lines = list_requests(request.app.state.sources.engine())
    is_settled = any(one.id == asked and one.state in (DONE, REFUSED) for one in lines)
    return views.render(request, "requests.html", is_settled=is_settled, lines=lines, asked=asked)


# --- JSON


class Login(BaseModel):
    """Name and password of a user of the page."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=256)


class LoggedIn(BaseModel):
    """What to send as X-Form-Token with each request that changes something; the session itself is the cookie."""

    user: str
    role: str
    form_token: str


class AskedFor(BaseModel):
    """One instance, or all that reason, route and destination have in common; to discard one, its id again.

    To pause, resume and echo: a destination, and nothing else.
    """

    action: Action
    instance_id: Id = None
    reason: Word = None
    route: Annotated[str | None, Field(max_length=32, pattern="^[ -~]*$")] = None
    destination: Annotated[str | None, Field(max_length=32, pattern="^[ -~]*$")] = None
    confirmation: str = Field("", max_length=32, pattern="^[ -~]*$")


class RequestId(BaseModel):
    """The request that was put before the worker."""

    id: str


class RequestFacts(BaseModel):
    """A request, and what became of it."""

    id: str
    asked_at: float
    user_name: str
    session_id: str
    action: str
    instance_id: str | None
    reason_code: str | None
    route: str | None
    destination: str | None
    state: str
    done_at: float | None
    done: int | None = Field(description="instances that it changed; of a destination 1: done, or it answers")
    result: str | None = Field(description="code of why it was refused, or did not do all")


@api.post("/session", status_code=201, dependencies=[Depends(from_our_page)])
def post_session(request: Request, response: Response, who: Login) -> LoggedIn:
    """Log in."""
    found = _log_in(request, who.name, who.password)
    if isinstance(found, str):
        raise LoginNeededError(found, WRONG[found].rstrip("."))
    keep(request, response, *found)
    session, role = request.app.state.sessions.find(found[0])
    return LoggedIn(user=session.user, role=role, form_token=session.form_token)


@api.delete("/session", status_code=204, dependencies=[Depends(from_our_page)])
def delete_session(request: Request) -> None:
    """Log out."""
    log_out(request)


@api.get("/requests", dependencies=[Depends(may_look)])
def get_requests(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[RequestFacts]:
    """What was asked for, and what became of it; the newest first."""
    found = list_requests(request.app.state.sources.engine(), limit)
    return [RequestFacts.model_validate(vars(one)) for one in found]


@api.post("/requests", status_code=202, dependencies=[Depends(from_our_page)])
def post_request(
    request: Request, wanted: AskedFor, x_form_token: Annotated[str, Header(max_length=64)] = ""
) -> RequestId:
    """Ask the worker for something; it checks anew whether it may be done."""
    person = operator_of(request, x_form_token)
    asked = Wanted(
        wanted.action,
        wanted.instance_id,
        wanted.reason or None,
        wanted.route or None,
        wanted.destination or None,
        wanted.confirmation,
    )
    return RequestId(id=request_action(request.app.state.sources, person, asked))
