"""Who is asking: dependencies of the routes that want to know, and what may be asked for by whom."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from gateway.audit import audited, events
from gateway.config.accounts import UserRole
from gateway.errors import GatewayError
from gateway.flow.requests import OF_DESTINATIONS, Wanted, ask, new_id
from gateway.web.sessions import COOKIE, Session, Sessions, is_form_of
from gateway.web.sources import Sources


class LoginNeededError(GatewayError):
    """One has to log in first."""


class NotAllowedError(GatewayError):
    """Whoever asks may not."""


@dataclass(frozen=True)
class Person:
    """Who is logged in, and what they may do."""

    session: Session
    role: UserRole


def person_of(request: Request) -> Person | None:
    """Who asks; None for somebody who is not logged in."""
    sessions: Sessions = request.app.state.sessions
    # A page that comes again by itself is no sign that somebody sits before it.
    found = sessions.find(request.cookies.get(COOKIE), is_click="refresh" not in request.query_params)
    return Person(*found) if found else None


def may_look(request: Request) -> None:
    """LoginNeededError where the page shows nothing to those who are not logged in."""
    sources: Sources = request.app.state.sources
    if sources.config.page and sources.config.page.view == "login" and person_of(request) is None:
        raise LoginNeededError("login-needed", "this page is shown to those who are logged in", "log in first")


def from_our_page(request: Request) -> None:
    """NotAllowedError for a form of another site: browsers name where a form came from (Fetch, Origin header)."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (origin is not None and origin.partition("://")[2] != host):
        message = "this form came from another site"
        raise NotAllowedError("other-origin", message, "open the page itself; a proxy before it has to hand on Host")


def operator_of(request: Request, form_token: str) -> Person:
    """Who asks, when they may act and the form was given to them.

    Raises
    ------
    LoginNeededError, NotAllowedError
    """
    person = person_of(request)
    if person is None:
        raise LoginNeededError("login-needed", "to act takes a login", "log in first")
    if not is_form_of(person.session, form_token):
        raise NotAllowedError("form-too-old", "this form was given to another session", "open the page anew")
    if person.role != "operator":
        message = f"{person.session.user} may look and not act"
        raise NotAllowedError("not-an-operator", message, "miad-gateway page user add NAME --role operator")
    return person


def request_action(sources: Sources, person: Person, wanted: Wanted) -> str:
    """Tell of it in the audit, then put it where the worker finds it; returns its id.

    Raises
    ------
    NotAllowedError
        ``not-confirmed``, ``no-choice``: it would be refused anyhow.
    CapacityError
        The audit or the database does not take it.
    """
    if wanted.action == "discard" and (not wanted.instance_id or wanted.confirmation.strip() != wanted.instance_id):
        message = "to discard an instance its whole id has to be typed"
        raise NotAllowedError("not-confirmed", message, "it stands at the top of the form")
    if wanted.action in OF_DESTINATIONS:
        if not wanted.destination or wanted.instance_id or wanted.reason or wanted.route:
            raise NotAllowedError("no-choice", "name the destination, and nothing else")
    elif not (wanted.instance_id or wanted.reason or wanted.route or wanted.destination):
        raise NotAllowedError("no-choice", "neither an instance nor a choice of them is named")
    engine = sources.engine()
    request_id = new_id()
    audited(
        sources.audit,
        events.ACTION_ASKED,
        "success",
        operation=wanted.action,
        instance_id=wanted.instance_id,
        reason=wanted.reason,
        route=wanted.route,
        destination=wanted.destination,
        user=person.session.user,
        session_id=person.session.id,
        request_id=request_id,
    )
    ask(engine, request_id, wanted, person.session.user, person.session.id, person.session.token)
    return request_id


def person_shown(request: Request) -> dict[str, object]:
    """What every page says of who is looking."""
    person = person_of(request)
    return {
        "user": person.session.user if person else "",
        "sign_on": request.app.state.sources.sign_on is not None,
        "may_act": person is not None and person.role == "operator",
        "form_token": person.session.form_token if person else "",
    }
