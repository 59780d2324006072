"""What stands around every answer: which host names are ours, headers, and errors without their text."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import fault

HEADERS = {
    # no script, nothing from elsewhere, nobody's frame
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LONGEST_BODY = 16_384  # bytes
_STATIC_CACHE = "public, max-age=3600"

log = structlog.get_logger(__name__)


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    hosts
        Names by which the page may be asked for, besides addresses and this machine's own name: a page that any name
        reaches could be read by a script of another site whose name points here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = {name.lower() for name in (*hosts, "localhost", socket.gethostname())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when it is meant for us, and give its answer our headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _with_headers(message.get("headers", ()), scope["path"])
            await send(message)

        if not self._is_ours(scope):
            answer = PlainTextResponse("421 this page is not served under that name: add it to page.names\n", 421)
            await answer(scope, receive, guarded)
            return
        if (refusal := _too_long(scope)) is not None:
            await refusal(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception as error:  # its text may quote anything: type and place are enough (promise 7)
            log.error("page failed", path=_place(scope), fault=fault(error))
            if begun:
                raise ConnectionAbortedError from None
            await PlainTextResponse("500 the page failed: see its log\n", 500)(scope, receive, guarded)

    def _is_ours(self, scope: Scope) -> bool:
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._hosts
        return True


def _too_long(scope: Scope) -> PlainTextResponse | None:
    """The answer to a request whose body is longer than any form of ours, or does not say how long it is."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return PlainTextResponse("411 say how long the body is\n", 411)
    return PlainTextResponse("413 no form is so long\n", 413) if int(length) > LONGEST_BODY else None


def _with_headers(given: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    ours: MutableMapping[str, str] = dict(HEADERS)
    if path.startswith("/static/"):
        ours["cache-control"] = _STATIC_CACHE
    names = {name.encode() for name in ours}
    kept = [(name, value) for name, value in given if name.lower() not in names]
    return kept + [(name.encode(), value.encode()) for name, value in ours.items()]


def _place(scope: MutableMapping[str, Any]) -> str:
    """Which page: the route's own pattern, not what was asked for."""
    return getattr(scope.get("route"), "path", "")
