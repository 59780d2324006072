"""The worker's end of the socket between it and the page (`gateway.service.viewing`): checks, and answers."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from gateway.audit import AuditLog, audited, events
from gateway.config.page import Page
from gateway.errors import CapacityError, GatewayError, fault
from gateway.flow.viewing import Viewing
from gateway.identity.login import Proofs
from gateway.protect.viewing import VIEWS, Wish
from gateway.service.viewing import (
    ASKING_S,
    LARGEST,
    LONGEST,
    SUFFIX,
    NotUnderstoodError,
    line_of,
    message_of,
    short_name,
)
from gateway.web.sessions import Sessions

MODE = 0o660
READING_S = 20.0  # in which an answer was read
A_MINUTE = 120  # pictures, of all people together: whoever goes through an archive is stopped
_ID = re.compile("[0-9a-f]{32}")
_SESSION = re.compile("[0-9a-f]{16}")
_WIDEST = 1e9

log = structlog.get_logger(__name__)


class ViewPort:
    """The worker's end: a listening socket, and one thread that answers.

    Parameters
    ----------
    sessions
        Checks passwords, and knows who has proven theirs.
    proofs
        Checks tokens of the site's identity provider; None: there is none.
    """

    def __init__(
        self, folder: Path, viewing: Viewing, sessions: Sessions, audit: AuditLog, proofs: Proofs | None = None
    ) -> None:
        self._proofs = proofs
        self._path = folder / f"worker.{os.getpid()}{SUFFIX}"
        self._viewing = viewing
        self._sessions = sessions
        self._audit = audit
        self._socket: socket.socket | None = None
        self._seen: deque[float] = deque()
        self._closed = threading.Event()
        self._before: ViewPort | None = None
        self._is_named = True  # the socket's name in the folder is this port's

    def bind(self, before: ViewPort | None = None) -> None:
        """Listen, or take the socket of the port before over. A folder where nobody can listen is told of: the worker
        works on, and shows nothing.
        """
        if before is not None and before._socket is not None:
            self._socket, self._before = before._socket.dup(), before
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            _sweep(self._path.parent)
            with short_name(self._path) as name:
                made.bind(name)
                os.chmod(name, MODE)
            made.listen(4)
            made.settimeout(0.5)
        except OSError as error:
            made.close()
            log.error("no pictures for the page: nobody can listen in the folder of the viewer", reason=error.strerror)
            return
        finally:
            os.umask(mask)
        self._socket = made

    def start(self) -> None:
        """Answer."""
        if self._before is not None:
            self._before._is_named, self._before = False, None
        if self._socket is not None:
            self._socket.settimeout(0.5)
            threading.Thread(target=self._run, args=(self._socket,), name="view", daemon=True).start()

    def pause(self) -> None:
        """Take no more; the picture at hand is finished."""
        self._closed.set()

    def finish(self) -> None:
        """Close; the name goes with the last port of this process."""
        self.pause()
        if self._socket is not None:
            self._socket.close()
            if self._is_named:
                with suppress(OSError):
                    self._path.unlink()

    stop = finish

    def discard(self) -> None:
        """Close what was bound and never started; the port before keeps its socket."""
        self._is_named = self._before is None
        self.finish()

    def _run(self, listening: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with connection, suppress(OSError):
                head, picture = self._answer(connection)
                connection.settimeout(READING_S)
                connection.sendall(json.dumps(head).encode() + b"\n" + picture)

    def _answer(self, connection: socket.socket) -> tuple[dict[str, Any], bytes]:
        try:
            message = message_of(line_of(connection, ASKING_S, LONGEST))
            if message.get("do") == "login":
                return {"ok": True, "proof": self._log_in(message)}, b""
            if message.get("do") == "view":
                return self._view(message)
            raise NotUnderstoodError("not-understood", "there is no such message")
        except GatewayError as error:
            return {"ok": False, "code": error.code, "message": error.message, "hint": error.hint}, b""
        except OSError:
            raise
        except Exception as error:  # its text may quote anything: type and place are enough (promise 7)
            log.error("a picture could not be made", fault=fault(error))
            return {"ok": False, "code": "view-failed", "message": "it could not be shown", "hint": "see the log"}, b""

    def _log_in(self, message: Mapping[str, Any]) -> str:
        if "token" in message:
            return self._log_in_by_token(message)
        user, password, session_id = (message.get(name) for name in ("user", "password", "session_id"))
        is_whole = all(isinstance(one, str) for one in (user, password, session_id))
        if not is_whole or not _SESSION.fullmatch(str(session_id)):
            raise NotUnderstoodError("not-understood", "a login has a user, a password and a session")
        found = self._sessions.log_in(str(user), str(password))
        if isinstance(found, str):
            raise GatewayError(found, "this login is not taken")
        token, session = found
        session.id = str(session_id)  # lines of both roles name one session
        return token

    def _log_in_by_token(self, message: Mapping[str, Any]) -> str:
        given, session_id = message.get("token"), message.get("session_id")
        if not isinstance(given, str) or not isinstance(session_id, str) or not _SESSION.fullmatch(session_id):
            raise NotUnderstoodError("not-understood", "such a login has a token and a session")
        if self._proofs is None:
            raise GatewayError("no-provider", "the worker knows no identity provider", "reload it")
        found = self._proofs.identity(given)
        token, session = self._sessions.sign_on(found.user, found.role, given)
        session.id = session_id
        return token

    def _view(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        instance_id, wish = _wish(message)
        found = self._sessions.find(str(message.get("proof", "")))
        if found is None:
            hint = "log out and in again"
            raise GatewayError("not-logged-in-there", "the worker does not know this login, or not any more", hint)
        session, role = found
        told = {"user": session.user, "session_id": session.id}
        now = time.monotonic()
        while self._seen and now - self._seen[0] > 60.0:
            self._seen.popleft()
        refusal: GatewayError | None = None
        if role != "operator":
            refusal = GatewayError("not-an-operator", f"{session.user} may not see pictures", "an operator may")
        elif len(self._seen) >= A_MINUTE:
            refusal = CapacityError("too-many-views", f"more than {A_MINUTE} pictures in a minute", "wait a minute")
        if refusal is not None:
            facts = {"instance_id": instance_id, "operation": wish.view, "reason": refusal.code, **told}
            audited(self._audit, events.INSTANCE_VIEWED, "refused", **facts)
            raise refusal
        self._seen.append(now)
        made = self._viewing.picture(instance_id, wish, told)
        if len(made.png) > LARGEST:
            raise GatewayError("too-large-to-view", "the picture is too large", "ask for a smaller one")
        facts = {name: getattr(made, name) for name in ("frames", "rows", "columns", "window", "span")}
        return {"ok": True, "length": len(made.png), **facts}, made.png


def sessions_of(page: Page) -> Sessions:
    """What the worker checks logins by: the page's users, as the page has them."""
    return Sessions(page.users, page.session_minutes * 60)


def _wish(message: Mapping[str, Any]) -> tuple[str, Wish]:
    """NotUnderstoodError for what is no wish."""
    instance_id, view, frame = (message.get(name) for name in ("instance", "view", "frame"))
    window, side = message.get("window"), message.get("side")
    is_right = isinstance(instance_id, str) and _ID.fullmatch(instance_id) and view in VIEWS
    is_right = is_right and type(frame) is int and 1 <= frame < 1 << 31
    is_right = is_right and (side is None or (type(side) is int and 16 <= side <= 16384))
    if window is not None:
        is_right = is_right and isinstance(window, list) and len(window) == 2 and all(map(_is_number, window))
        is_right = is_right and window[1] > 0
    if not is_right:
        raise NotUnderstoodError("not-understood", "that is no wish for a picture")
    pair = (float(window[0]), float(window[1])) if window else None
    return str(instance_id), Wish(view, frame, pair, side)  # type: ignore[arg-type]  # looked at above


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (abs(value) <= _WIDEST)
    )


def _sweep(folder: Path) -> None:
    """Remove sockets of processes that are gone."""
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                continue
            try:
                with short_name(path) as name:
                    probe.settimeout(1.0)
                    probe.connect(name)
            except ConnectionRefusedError:
                path.unlink()
