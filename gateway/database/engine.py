"""Opens the database: SQLite embedded (durable, many processes), or any server by URL; schema by Alembic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

BUSY_TIMEOUT_MS = 30_000  # several processes write; a writer waits this long for its turn


def open_database(url: str) -> Engine:
    """Open `url`, bring its schema up to date, and return the engine.

    Parameters
    ----------
    url
        SQLAlchemy URL. For SQLite: WAL journal with ``synchronous=FULL``, so a committed row survives a power cut, and
        a `transaction` begins as a writer (``BEGIN IMMEDIATE``), so two processes never deadlock upgrading a read.
    """
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        _make_durable(engine)
    migrate(engine)
    return engine


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
    """A session in one transaction: committed when the block ends, rolled back when it raises."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads: it never waits for a writer."""
    with Session(engine.execution_options(reading_only=True), expire_on_commit=False) as session, session.begin():
        yield session


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
