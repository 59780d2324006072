"""Who is logged in: kept in this process alone, so that a restart logs everybody out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.accounts import UserRole, read_accounts
from gateway.errors import ConfigError
from gateway.web.guessing import Guesses
from gateway.web.passwords import is_right

COOKIE = "miad-gateway-session"
BROWSER_COOKIE = "miad-gateway-browser"  # opens nothing: who logged in here before does not wait for others' guesses
LONGEST_S = 12 * 3600.0  # then one has to log in again, whatever one did
MOST = 500  # sessions; the one that was quiet longest goes first


@dataclass
class Session:
    """One login. `id` names it in the audit and opens nothing; `form_token` stands in each form (CSRF)."""

    user: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    begun: float = 0.0
    seen: float = 0.0
    proof: str = field(default="", repr=False)  # by which the worker knows this login; "": it does not
    password_hash: str = field(default="", repr=False)  # whose password it was; a new one ends it
    browser: str = field(default="", repr=False)  # for its cookie
    role: UserRole | None = None  # as the identity provider's token says; None: as the file of users does
    token: str = field(default="", repr=False)  # that token, by which the worker knows who asks


class Sessions:
    """Logins of one page.

    Parameters
    ----------
    users
        The file of `gateway.config.accounts`, read at each login and each click: who was removed is out at once.
    idle_s
        A session without a click for so long has ended.
    """

    def __init__(self, users: Path, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._idle_s = idle_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._guesses = Guesses(clock)

    def has_users(self) -> bool:
        """Whether anybody could log in."""
        try:
            return bool(read_accounts(self._users))
        except ConfigError:
            return False

    def log_in(
        self, user: str, password: str, source: str = "", browser: str | None = None
    ) -> tuple[str, Session] | str:
        """A new session with the token that its cookie holds; or why not: ``wrong-password``, ``too-many-tries``.

        Parameters
        ----------
        source, browser
            The address that it comes from, and `Session.browser` of an earlier login there: see `Guesses`.
        """
        account = read_accounts(self._users).get(user)
        tried = f"{user} {account.password_hash}" if account else user
        if not self._guesses.begin(tried, source, browser, is_user=account is not None):
            return "too-many-tries"
        if not is_right(account.password_hash if account else None, password) or account is None:
            return "wrong-password"
        browser = self._guesses.succeeded(tried, source, browser)
        return self._open(Session(user, password_hash=account.password_hash, browser=browser))

    def may_sign_on(self, source: str, browser: str | None = None) -> bool:
        """Whether somebody may try to come by the identity provider now; it counts as failed until `sign_on`."""
        return self._guesses.begin(_sign_on_of(source), source, browser, is_user=True)

    def sign_on(
        self, user: str, role: UserRole, token: str, source: str = "", browser: str | None = None
    ) -> tuple[str, Session]:
        """A new session of somebody whom the identity provider vouches for, with the token of its cookie."""
        browser = self._guesses.succeeded(_sign_on_of(source), source, browser)
        return self._open(Session(user, role=role, token=token, browser=browser))

    def _open(self, session: Session) -> tuple[str, Session]:
        token, now = secrets.token_urlsafe(32), self._clock()
        session.begun = session.seen = now
        with self._lock:
            while len(self._sessions) >= MOST:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].seen)]
            self._sessions[_key(token)] = session
        return token, session

    def find(self, token: str | None, *, is_click: bool = True) -> tuple[Session, UserRole] | None:
        """The session behind a cookie and what its user may do now; None when there is none, or it has ended."""
        if not token:
            return None
        now = self._clock()
        with self._lock:
            session = self._sessions.get(_key(token))
            if session is None:
                return None
            if now - session.seen > self._idle_s or now - session.begun > LONGEST_S:
                del self._sessions[_key(token)]
                return None
        if session.role is not None:
            session.seen = now if is_click else session.seen
            return session, session.role
        account = read_accounts(self._users).get(session.user)
        if account is None or account.password_hash != session.password_hash:
            self.log_out(token)
            return None
        session.seen = now if is_click else session.seen
        return session, account.role

    def log_out(self, token: str | None) -> Session | None:
        """End a session; gives it, when there was one."""
        with self._lock:
            return self._sessions.pop(_key(token), None) if token else None


def is_form_of(session: Session, form_token: str) -> bool:
    """Whether a form was given to this session (CSRF)."""
    return hmac.compare_digest(session.form_token.encode(), form_token.encode())


def _sign_on_of(source: str) -> str:
    """What tries by the identity provider are counted by: whoever fails at one address keeps out nobody elsewhere."""
    return f"sign-on {source}"


def _key(token: str) -> bytes:
    """Tokens are not kept: what reads this process's memory later finds digests."""
    return hashlib.sha256(token.encode()).digest()
