"""Opens the database: SQLite embedded (durable, many processes), or any server by URL; schema by Alembic."""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    ARRAY,
    URL,
    ColumnElement,
    Connection,
    CursorResult,
    Delete,
    Engine,
    Update,
    bindparam,
    create_engine,
    event,
    func,
    inspect,
    update,
)
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session

from gateway.database import standby
from gateway.database.reach import parse_url, told, waiting
from gateway.database.tables import Base

CONNECT_TIMEOUT_S = 10
# A server that is cut off says nothing: what it was sent (ms) and what is awaited of it (s) end after half a minute.
_WAITS = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
# The same of the server: what a machine that is gone had locked stays so until it notices, by default for hours.
# A process that stands still in the middle of a transaction loses it too.
_OF_SERVER = {
    "tcp_user_timeout": "30s",
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "4",
    "idle_in_transaction_session_timeout": "5min",
    # Our statements read few rows by index. In a vault of millions estimates let the server compile each for seconds.
    "jit": "off",
}
IDLE_S = 2.0  # after which a connection is tried before it is used
BUSY_TIMEOUT_MS = 30_000  # several processes write; a writer waits this long for its turn


def open_database(url: str, moved: Callable[[int, int], None] | None = None, *, synchronous: bool = False) -> Engine:
    """Open `url`, bring its schema up to date, and return the engine.

    Parameters
    ----------
    url
        SQLAlchemy URL. For SQLite: WAL journal with ``synchronous=FULL``, so a committed row survives a power cut, and
        a `transaction` begins as a writer (``BEGIN IMMEDIATE``), so two processes never deadlock upgrading a read.
    moved
        Called with (revisions of the schema done, revisions to do).
    synchronous
        What is written counts only when a synchronous standby has it too (`gateway.database.standby`).

    Raises
    ------
    ConfigError, UnreachableError
        As `gateway.database.reach.told`: what a person must change, and what may heal by itself.
    """
    parts = parse_url(url)
    with told(parts):
        engine = _engine(parts)
        if engine.dialect.name == "sqlite":
            _make_file(parts)
            _make_durable(engine)
        migrate(engine, moved)
    return standby.make_synchronous(engine) if synchronous else engine


def try_database(url: str) -> None:
    """Connect and look, without writing anything or bringing the schema up to date.

    An embedded database that is not there yet is right: the first role makes it.

    Raises
    ------
    ConfigError, UnreachableError
        As `open_database`.
    """
    with _looking(url) as connection:
        if connection is not None:
            inspect(connection).get_table_names()


@dataclass(frozen=True)
class SchemaVersion:
    """The revision that a database has (None: it is empty), and the newest that this release knows.

    is_known: whether this release knows the database's too; else a newer one wrote it.
    """

    current: str | None
    newest: str
    is_known: bool


def schema_version(url: str) -> SchemaVersion | None:
    """How far the schema is, without writing anything; None: an embedded database that is not there yet.

    Raises
    ------
    ConfigError, UnreachableError
        As `open_database`.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    known = {script.revision for script in scripts.walk_revisions()}
    with _looking(url) as connection:
        if connection is None:
            return None
        current = MigrationContext.configure(connection).get_current_revision()
        return SchemaVersion(current, scripts.get_current_head() or "", current is None or current in known)


@contextmanager
def _looking(url: str) -> Iterator[Connection | None]:
    """A connection that only reads; None where an embedded database is not there yet."""
    parts = parse_url(url)
    with told(parts):
        if parts.get_backend_name() == "sqlite":
            if not parts.database or not os.path.exists(parts.database):
                yield None
                return
            query = {"mode": "ro", "uri": "true"}
            parts = parts.set(database=f"file:{quote(os.path.abspath(parts.database))}", query=query)
        engine = _engine(parts)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def _engine(parts: URL) -> Engine:
    if parts.get_backend_name() == "sqlite":
        return create_engine(parts)
    # libpq waits for ever by default
    waits = _WAITS if parts.get_backend_name() == "postgresql" else {}
    given = {name: value for name, value in waits.items() if name not in parts.query}
    engine = create_engine(parts, connect_args=given)
    if waits and "options" not in parts.query:  # else the site says itself what the server is to do
        _let_server_notice(engine)
    _try_idle_connections(engine)
    standby.watch(engine)
    return engine


def _let_server_notice(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection, _record) -> None:
        settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _OF_SERVER.items())
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {settings}")
        connection.commit()


def _try_idle_connections(engine: Engine) -> None:
    """A connection that lay idle may have lost its server: try it before it is used. One just used is not tried."""

    @event.listens_for(engine, "checkin")
    def _on_checkin(_connection, record) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _on_checkout(connection, record, _proxy) -> None:
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error:
            raise DisconnectionError from None  # the pool makes a new one


def _make_file(parts: URL) -> None:
    """An empty database file with its mode: SQLite gives the files beside it (-wal, -shm) the same.

    In a folder that was made for several users (its files belong to its group, setgid) the group may write.
    """
    if not parts.database or parts.database == ":memory:":
        return
    path = Path(parts.database)
    try:
        mode = 0o660 if path.parent.stat().st_mode & stat.S_ISGID else 0o600
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError:
        return  # there already, or SQLite says why not
    os.fchmod(descriptor, mode)
    os.close(descriptor)


def sqlite_url(path: Path) -> str:
    """SQLAlchemy URL of an embedded database file."""
    return f"sqlite:///{path}"


def migrate(engine: Engine, moved: Callable[[int, int], None] | None = None) -> None:
    """Bring the schema to the newest revision (safe to run from several processes at once).

    moved: called with (revisions done, revisions to do).
    """
    config = alembic_config()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4948)")
        config.attributes["connection"] = connection
        if moved is not None:
            config.attributes["applied"] = _counting(config, connection, moved)
        command.upgrade(config, "head")


def _counting(config: AlembicConfig, connection: Connection, moved: Callable[[int, int], None]) -> Callable[..., None]:
    """What Alembic calls after each revision."""
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    to_do = sum(1 for _ in scripts.iterate_revisions("heads", current or "base"))
    numbers = itertools.count(1)

    def applied(**_step: Any) -> None:
        moved(next(numbers), to_do)

    return applied


def alembic_config() -> AlembicConfig:
    """Alembic on the migrations of this package; who uses it hands a connection over."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session in one transaction: committed when the block ends, rolled back when it raises.

    Raises
    ------
    CapacityError
        As `gateway.database.reach.waiting`: nothing is wrong with what was to be written.
    """
    with (
        waiting(),
        standby.waited_for() as commit,
        Session(engine, expire_on_commit=False) as session,
        session.begin(),
    ):
        if standby.is_asked_for(engine):
            commit.require(session.connection())
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads: it never waits for a writer. CapacityError as `transaction`."""
    with (
        waiting(),
        Session(engine.execution_options(reading_only=True), expire_on_commit=False) as session,
        session.begin(),
    ):
        yield session


@contextmanager
def at_once(engine: Engine, lasting: bool = True) -> Iterator[Connection]:
    """A connection for what one statement does by itself. CapacityError as `transaction`.

    On PostgreSQL each statement is a transaction of its own, in one round trip instead of three; on SQLite all of the
    block are one.

    Parameters
    ----------
    lasting
        False: it is not waited for the disk, so that a power cut may undo it (with what came after it, never alone).
        On PostgreSQL the statement has to say so itself: `not_lasting`.
    """
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    elif not lasting:
        engine = engine.execution_options(lasting=False)
    with waiting(), standby.waited_for() as commit, engine.begin() as connection:
        if lasting and standby.is_asked_for(engine):
            commit.require(connection)
        yield connection


def not_lasting() -> ColumnElement[str]:
    """What a statement returns besides, so that PostgreSQL does not wait for the disk when it commits."""
    return func.set_config("synchronous_commit", "off", True)


def changed(session: Session, statement: Update | Delete) -> int:
    """Execute a statement that changes rows; returns how many it changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def update_each(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]], *where: ColumnElement[bool]
) -> None:
    """Give many rows their values in few statements.

    Parameters
    ----------
    rows
        Each the `id` of a row with the new values of some columns. Those that change the same columns go in one
        statement; where all of them get the same values, that is one round trip.
    where
        What must hold of each row besides.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(row.keys() - {"id"})), []).append(row)
    target = table.__table__
    for names, members in groups.items():
        first = members[0]
        own = [name for name in names if any(row[name] != first[name] for row in members)]
        same = {name: first[name] for name in names if name not in own}
        changes = update(target).where(*where)  # type: ignore[arg-type]
        if not own:
            session.execute(changes.where(target.c.id.in_([row["id"] for row in members])).values(same))
            continue
        columns = {"of_id": target.c.id, **{f"new_{name}": target.c[name] for name in own}}
        given = [{"of_id": row["id"], **{f"new_{name}": row[name] for name in own}} for row in members]
        if session.get_bind().dialect.name == "postgresql":  # an array a column: one statement, whatever their number
            arrays = [bindparam(name, type_=ARRAY(column.type)) for name, column in columns.items()]
            table_of = func.unnest(*arrays).table_valued(*columns).render_derived(name="given")
            every = changes.where(target.c.id == table_of.c.of_id).values(
                same | {name: table_of.c[f"new_{name}"] for name in own}
            )
            session.connection().execute(every, {name: [row[name] for row in given] for name in columns})
            continue
        each = changes.where(target.c.id == bindparam("of_id")).values(
            same | {name: bindparam(f"new_{name}") for name in own}
        )
        session.connection().execute(each, given)


def _make_durable(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection, _record) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event below decides, not the driver
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection) -> None:
        options = connection.get_execution_options()
        reading_only, lasting = options.get("reading_only", False), options.get("lasting", True)
        if connection.info.get("lasting", True) != lasting:
            connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            connection.info["lasting"] = lasting
        connection.exec_driver_sql("BEGIN" if reading_only else "BEGIN IMMEDIATE")
