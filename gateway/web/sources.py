"""What the page reads, handed in by whoever puts the role together, and one look at the flow shared by all who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine, select

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.database import InstanceRow, reading
from gateway.errors import UnreachableError
from gateway.flow.overview import Overview, look

SHARE = 30  # a look that took a second is good for so many seconds: the page takes a thirtieth of the database's time
SHORTEST_S = 1.0
PATIENCE_S = 5.0  # then the figures of before are shown, until a long look has ended
FAILED_S = 2.0  # so long nobody asks a database again that has just failed


@dataclass(frozen=True)
class Certificate:
    """One certificate that the configuration names: where it stands there, and when it ends (seconds since 1970)."""

    where: str
    ends_at: float


@dataclass(frozen=True)
class Listener:
    """A port that a role of this machine listens on, or should."""

    role: str
    address: str
    up: bool


class Viewer(Protocol):
    """Who makes pictures of instances: the worker."""

    def log_in(self, user: str, password: str, session_id: str) -> str:
        """Prove a password; returns what to ask by."""

    def log_in_by_token(self, token: str, session_id: str) -> str:
        """The same by the token of an identity provider."""

    def picture(self, proof: str, wish: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Facts and PNG; `wish`: instance, view, frame, window, side. GatewayError: why there is none."""


class Looks:
    """The flow at a glance, looked at no more often than it costs.

    Parameters
    ----------
    engine
        Opens the database, or gives the one that is open.
    """

    def __init__(
        self, engine: Callable[[], Engine], config: Config, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._until = -1.0
        self._last: Overview | Exception | None = None
        self._at_work: threading.Event | None = None

    def overview(self) -> Overview:
        """The last look, or a new one when that is old. Where a new one takes long, the last is given meanwhile.

        Raises
        ------
        GatewayError
            The database does not answer, or not to this account.
        """
        with self._lock:
            is_old = self._last is None or self._clock() >= self._until
            if is_old and self._at_work is None:
                self._at_work = threading.Event()
                threading.Thread(target=self._look, args=(self._at_work,), name="look", daemon=True).start()
            at_work, patience = self._at_work if is_old else None, None if self._last is None else PATIENCE_S
        if at_work is not None:
            at_work.wait(patience)
        last = self._last
        if not isinstance(last, Overview):
            raise last or UnreachableError("database-unreachable", "the database was not looked at yet")
        return last

    def ping(self) -> None:
        """Whether the database answers at this moment; GatewayError as `overview`."""
        with reading(self._engine()) as session:
            session.execute(select(InstanceRow.id).limit(1))

    def _look(self, at_work: threading.Event) -> None:
        begun = self._clock()
        found: Overview | Exception
        try:
            found = look(self._engine(), self._config.routes, self._config.destinations)
            rest_s = max(SHORTEST_S, (self._clock() - begun) * SHARE)
        except Exception as error:  # whoever asks is told
            found, rest_s = error, FAILED_S
        with self._lock:
            self._last, self._until, self._at_work = found, self._clock() + rest_s, None
        at_work.set()


@dataclass(frozen=True)
class Sources:
    """Everything that the page knows.

    Attributes
    ----------
    engine
        Opens the database, or gives the one that is open; raises `GatewayError` while it does not answer.
    audit_files
        Role -> its audit log.
    certificates, listeners
        As they are now.
    audit
        Where the page tells of who logged in and asked for what.
    viewer
        None: switched off.
    sign_on
        The site's identity provider (`gateway.web.single_sign_on.SignOn`); None: there are local accounts only.
    """

    config: Config
    engine: Callable[[], Engine]
    audit_files: Mapping[str, Path]
    certificates: Callable[[], Sequence[Certificate]]
    listeners: Callable[[], Sequence[Listener]]
    audit: AuditLog
    version: str = ""
    viewer: Viewer | None = None
    sign_on: Any = None
    looks: Looks = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", Looks(self.engine, self.config))
