"""What an upgrade needs: how far the schema is, whether anything has changed since, a copy, the way there and back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from alembic import command
from sqlalchemy import URL, Engine, create_engine, inspect, select

from gateway.database.engine import alembic_config, open_database, reading, schema_version
from gateway.database.reach import parse_url, told
from gateway.database.tables import (
    CommitmentRow,
    DeliveryRow,
    InstanceRow,
    OverrideRow,
    PausedRow,
    PayloadCheckRow,
    RequestRow,
    SegmentRow,
    VaultRow,
)
from gateway.errors import ConfigError, UnreachableError

OLDEST_BACK = "0012"
"""The oldest revision whose release reads all files (spool, records, payloads) as this one writes them: it moves on
with their formats."""

_REVISION = ("--data-only", "--table=alembic_version", "--file=-")  # of a copy, as text


def content_digest(url: str) -> str:
    """A digest of what this site has done: instances and deliveries with their states, segments, records, requests,
    what archives were promised, what was paused and passed.

    Two equal digests mean that nothing of all that has happened in between. Hexadecimal SHA-256.

    Raises
    ------
    ConfigError, UnreachableError
        As `gateway.database.open_database`; the schema must be this release's.
    """
    engine = open_database(url)
    digest = hashlib.sha256()
    try:
        with reading(engine) as session:
            for columns in (
                (InstanceRow.id, InstanceRow.state, InstanceRow.derived_file, InstanceRow.record),
                (DeliveryRow.id, DeliveryRow.state, DeliveryRow.dimse_status, DeliveryRow.commit_state),
                (SegmentRow.id, SegmentRow.rows_until),
                (VaultRow.locator, VaultRow.derived_sha256, VaultRow.payload_file),
                (RequestRow.id, RequestRow.state),
                (CommitmentRow.id, CommitmentRow.state),
                (PayloadCheckRow.locator, PayloadCheckRow.promised_at),
                (PausedRow.destination, PausedRow.paused_at),
                (OverrideRow.route, OverrideRow.until, OverrideRow.stopped_at),
            ):
                digest.update(columns[0].class_.__tablename__.encode())
                in_order = inspect(columns[0].class_).primary_key
                for row in session.execute(select(*columns).order_by(*in_order).execution_options(yield_per=10_000)):
                    digest.update(repr(tuple(row)).encode())
    finally:
        engine.dispose()
    return digest.hexdigest()


def downgrade(url: str, revision: str) -> None:
    """Bring the schema back to that of an older release, with all rows.

    Raises
    ------
    ConfigError
        ``revision-unknown``; ``revision-too-old``: that release could not read what this one has written to the disk.
    """
    config = alembic_config()
    version = schema_version(url)
    if version is not None and not version.is_known:
        raise ConfigError("database-newer", "the database was written by a newer version of the gateway")
    if not revision.isdecimal() or len(revision) != 4 or revision > (version.newest if version else ""):
        raise ConfigError("revision-unknown", f"this release knows no revision {revision!r}", "as 0012")
    if revision < OLDEST_BACK:
        message = (
            f"the release of schema {revision} cannot read spool and records as they are written since {OLDEST_BACK}"
        )
        hint = "stay with this release, or put the database back as it was, where nothing has happened since"
        raise ConfigError("revision-too-old", message, hint)
    engine = open_database(url)
    try:
        with told(parse_url(url)), engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, revision)
    finally:
        engine.dispose()


def copy_to(url: str, file: Path) -> None:
    """Write a copy of the database to a new file (mode 0600): SQLite's own, or `pg_dump --format=custom`.

    Raises
    ------
    ConfigError
        ``output-exists``; ``no-database``; ``program-missing``: no pg_dump.
    UnreachableError
        ``database-copy``: it failed; its words are not repeated, they may hold values.
    """
    parts = parse_url(url)
    if file.exists():
        raise ConfigError("output-exists", f"{file} is there already", "choose another file")
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        if parts.get_backend_name() == "sqlite":
            _copy_sqlite(_file_of(parts), file)
        else:
            _run(parts, "pg_dump", "--format=custom", "--no-owner", f"--file={file}", f"--dbname={_address(parts)}")
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def put_back(url: str, file: Path) -> None:
    """Put a copy of `copy_to` in the place of what the database holds. Nobody else may use the database meanwhile.

    Raises
    ------
    ConfigError, UnreachableError
        As `copy_to`; then the database is as it was.
    """
    parts = parse_url(url)
    if parts.get_backend_name() == "sqlite":
        _copy_sqlite(file, _file_of(parts))
        return
    # What the copy knows is replaced, and nothing else: tables of a newer schema would stay, and be in the way of the
    # next upgrade. So the schema goes back first, with all rows; interrupted here, it is that of the copy.
    found = re.search(r"^COPY .*FROM stdin;\n(\S+)$", _run(parts, "pg_restore", *_REVISION, str(file)), re.MULTILINE)
    version = schema_version(url)
    if found is not None and version is not None and version.is_known and version.current != found[1]:
        with told(parts):
            _schema_back(url, found[1])
    words = ("--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error")
    _run(parts, "pg_restore", *words, f"--dbname={_address(parts)}", str(file))


def _file_of(parts: URL) -> Path:
    if not parts.database or not Path(parts.database).is_file():
        raise ConfigError("no-database", f"there is no database {parts.database or ''}", "has the gateway run here?")
    return Path(parts.database)


def _copy_sqlite(source: Path, target: Path) -> None:
    """By SQLite's online backup: a consistent state, the write-ahead log included; target is replaced as one commit."""
    try:
        with _sqlite(source) as from_, _sqlite(target) as to:
            from_.backup(to)
            (found,) = to.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error:
        raise UnreachableError("database-copy", f"{source} cannot be copied to {target}", "is there room?") from None
    if found != "ok":
        raise UnreachableError("database-copy", f"{source} is damaged", "restore an earlier backup")


@contextlib.contextmanager
def _sqlite(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def _schema_back(url: str, revision: str) -> None:
    config = alembic_config()
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, revision)
    finally:
        engine.dispose()


def _address(parts: URL) -> str:
    """As an argument, without the password: other users of the machine can see arguments."""
    return parts.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _run(parts: URL, program: str, *words: str) -> str:
    if shutil.which(program) is None:
        raise ConfigError("program-missing", f"{program} is not here", "apt-get install postgresql-client")
    environment = {**os.environ, **({"PGPASSWORD": str(parts.password)} if parts.password else {})}
    done = subprocess.run([program, *words], env=environment, capture_output=True)
    if done.returncode != 0:
        raise UnreachableError(
            "database-copy", f"{program} ended with exit code {done.returncode}", "see the server's log"
        )
    return done.stdout.decode("utf-8", "replace")


def upgrade(url: str, moved: Callable[[int, int], None] | None = None) -> None:
    """Bring the schema to this release's newest revision, as any start does; the rest as `open_database`."""
    engine: Engine = open_database(url, moved)
    engine.dispose()
