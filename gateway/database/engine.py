"""Opens the database: SQLite embedded (durable, many processes), or any server by URL; schema by Alembic."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import URL, CursorResult, Delete, Engine, Update, create_engine, event, inspect
from sqlalchemy.orm import Session

from gateway.database.reach import parse_url, told, waiting

CONNECT_TIMEOUT_S = 10
BUSY_TIMEOUT_MS = 30_000  # several processes write; a writer waits this long for its turn


def open_database(url: str) -> Engine:
    """Open `url`, bring its schema up to date, and return the engine.

    Parameters
    ----------
    url
        SQLAlchemy URL. For SQLite: WAL journal with ``synchronous=FULL``, so a committed row survives a power cut, and
        a `transaction` begins as a writer (``BEGIN IMMEDIATE``), so two processes never deadlock upgrading a read.

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
        migrate(engine)
    return engine


def try_database(url: str) -> None:
    """Connect and look, without writing anything or bringing the schema up to date.

    An embedded database that is not there yet is right: the first role makes it.

    Raises
    ------
    ConfigError, UnreachableError
        As `open_database`.
    """
    parts = parse_url(url)
    with told(parts):
        if parts.get_backend_name() == "sqlite":
            if not parts.database or not os.path.exists(parts.database):
                return
            query = {"mode": "ro", "uri": "true"}
            parts = parts.set(database=f"file:{quote(os.path.abspath(parts.database))}", query=query)
        engine = _engine(parts)
        try:
            with engine.connect() as connection:
                inspect(connection).get_table_names()
        finally:
            engine.dispose()


def _engine(parts: URL) -> Engine:
    if parts.get_backend_name() == "sqlite":
        return create_engine(parts)
    # libpq waits for ever by default
    waits = {"connect_timeout": CONNECT_TIMEOUT_S} if parts.get_backend_name() == "postgresql" else {}
    given = {name: value for name, value in waits.items() if name not in parts.query}
    return create_engine(parts, pool_pre_ping=True, connect_args=given)


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


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision (safe to run from several processes at once)."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4948)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session in one transaction: committed when the block ends, rolled back when it raises.

    Raises
    ------
    CapacityError
        As `gateway.database.reach.waiting`: nothing is wrong with what was to be written.
    """
    with waiting(), Session(engine, expire_on_commit=False) as session, session.begin():
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


def changed(session: Session, statement: Update | Delete) -> int:
    """Execute a statement that changes rows; returns how many it changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


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
        reading_only = connection.get_execution_options().get("reading_only", False)
        connection.exec_driver_sql("BEGIN" if reading_only else "BEGIN IMMEDIATE")
