"""Commits that count only when a synchronous standby has them, too: what durability ``cluster`` asks of PostgreSQL.

PostgreSQL commits on its own disk first and waits for its standby afterwards. Where that wait is cancelled, by a time
limit, an operator or a server that goes down, COMMIT succeeds all the same and only a *warning* says that the standby
may not have it. Here that is no success. And where nobody is named to be waited for, nothing is committed at all:
managers of clusters take the name out when the last standby is gone, unless they are told to be strict; then
they name ``*``. But that is anybody who connects: a copy in the making (pg_basebackup) confirms as well, and if the
server is lost it is no standby. So ``*`` names nobody.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text

from gateway.database.reach import parse_url, told
from gateway.errors import CapacityError, ConfigError

COMMIT_S = 20.0  # for a transaction with its standby's answer; archives wait for theirs for 30 s and more
CANCEL_S = 5.0
_WAITS_FOR_STANDBY = "SyncRepWaitForLSN"  # PostgreSQL's function, by which the warning is known in every language
_SETTINGS = text(
    "SELECT current_setting('synchronous_standby_names'), set_config('synchronous_commit', CASE"
    " WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
)
# a name in synchronous_standby_names that is one whatever stands in it; but "*" is anybody, to the server, as * is
_QUOTED = re.compile(r'(?!"\*"(?!"))"(?:[^"]|"")*"')
_of_thread = threading.local()


def watch(engine: Engine) -> None:
    """Notice, on every connection from now on, that a commit was not waited for (`waited_for`)."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.add_notice_handler(_on_notice)


def make_synchronous(engine: Engine) -> Engine:
    """The same database, where each transaction that writes has to be confirmed by a standby (`Commit.require`).

    Raises
    ------
    ConfigError
        ``not-postgresql``.
    """
    if engine.dialect.name != "postgresql":
        raise _not_postgresql()

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # statements that are a transaction of their own have no place to say it
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') <> 'remote_apply'"
        )
        connection.commit()

    return engine.execution_options(synchronous=True)


def server_settings(url: str) -> dict[str, str]:
    """What the server says of its standbys and flushes, without writing anything.

    Raises
    ------
    ConfigError, UnreachableError
        ``not-postgresql``, and as `gateway.database.reach.told`.
    """
    parts = parse_url(url)
    if parts.get_backend_name() != "postgresql":
        raise _not_postgresql()
    with told(parts):
        engine = create_engine(parts, poolclass=NullPool)
        with engine.connect() as connection:
            names = ("synchronous_standby_names", "fsync", "full_page_writes")
            return {name: str(connection.scalar(text(f"SHOW {name}"))) for name in names}


def _not_postgresql() -> ConfigError:
    message = "durability is cluster, and the database is no PostgreSQL: it lies on one machine"
    return ConfigError("not-postgresql", message, "set [database] url to a PostgreSQL server")


def is_asked_for(engine: Engine) -> bool:
    """Whether `make_synchronous` gave it."""
    return bool(engine.get_execution_options().get("synchronous"))


class Commit:
    """A transaction's commit, which has to be confirmed, for `COMMIT_S` at most from when it was `require`d."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._timer: threading.Timer | None = None

    def require(self, connection: Connection) -> None:
        """In the transaction: have its commit wait for a standby.

        Raises
        ------
        CapacityError
            ``database-alone``: the server has no synchronous standby.
        """
        if without := alone(connection.execute(_SETTINGS).one()[0]):
            raise without
        # PostgreSQL's own time limits end before a commit waits for its standby
        self._timer = threading.Timer(COMMIT_S, self._cancel, [connection.connection.dbapi_connection])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """It is committed, or will not be."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:  # what comes next on this connection is not cancelled
            self._over = True

    def _cancel(self, connection: Any) -> None:
        with self._lock:
            if not self._over:
                with suppress(Exception):  # a server that does not answer: the connection ends by its keepalives
                    connection.cancel_safe(timeout=CANCEL_S)


def alone(names: str) -> CapacityError | None:
    """What is wrong with ``synchronous_standby_names``; None: a commit waits for a standby by its name."""
    hint = "start a standby and name it in synchronous_standby_names; with Patroni: synchronous_mode_strict"
    if not names.strip():
        return CapacityError("database-alone", "PostgreSQL has no synchronous standby", hint)
    if "*" in _QUOTED.sub("", names):
        return CapacityError("database-alone", "PostgreSQL names anybody as standby (*)", hint)
    return None


@contextmanager
def waited_for() -> Iterator[Commit]:
    """Around a transaction and its commit.

    Raises
    ------
    CapacityError
        ``database-unconfirmed``: it is committed on the server, and its standby may not have it.
    """
    _of_thread.cancelled = False
    commit = Commit()
    try:
        yield commit
    finally:
        commit.end()
    if _of_thread.cancelled:
        _of_thread.cancelled = False
        message = "no standby has confirmed the commit"
        raise CapacityError("database-unconfirmed", message, "is a synchronous standby running and connected?")


def _on_notice(diagnostic: Any) -> None:
    if diagnostic.source_function == _WAITS_FOR_STANDBY:
        _of_thread.cancelled = True
