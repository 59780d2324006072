"""Why a database cannot be opened, said without passwords and without the hosts of others.

Two kinds: what a person must change (`ConfigError`: scheme, driver, user, password, name), and what may heal by itself
(`UnreachableError`: nobody answers). Once it is open, whoever works with it waits as for a full disk (`CapacityError`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from gateway.errors import CapacityError, ConfigError, GatewayError, UnreachableError

# SQLSTATEs that waiting does not heal (PostgreSQL manual, appendix A).
_REFUSED = {
    "28000": "the server does not let this user in",
    "28P01": "wrong user or password",
    "3D000": "there is no database of this name",
    "42501": "this user lacks a right that the role needs",
}
_REFUSED_WORDS = {  # libpq says it in words when the connection itself is refused; the first that is found counts
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    r'role "[^"]*" does not exist': "28000",
    "does not exist": "3D000",
    "permission denied": "42501",
}
_HINT = "correct [database] url"


def parse_url(url: str) -> URL:
    """The parts of a database URL.

    Raises
    ------
    ConfigError
        ``database-url``: it is no SQLAlchemy URL (its text is not repeated: it may hold a password);
        ``database-scheme``: it is that of a database which the gateway does not run on.
    """
    try:
        parts = make_url(url)
    except (exc.ArgumentError, ValueError):
        message = "the database URL cannot be read"
        raise ConfigError("database-url", message, "written as postgresql+psycopg://USER:PASSWORD@HOST/NAME") from None
    if parts.drivername.partition("+")[0] not in ("sqlite", "postgresql"):
        raise _unknown_scheme(parts)
    return parts


@contextmanager
def told(url: URL) -> Iterator[None]:
    """Within, what SQLAlchemy and the driver raise when a database cannot be opened becomes one error in words.

    Raises
    ------
    ConfigError
        ``database-scheme``, ``database-driver``, ``database-refused``, ``database-file``, ``database-newer``: waiting
        does not heal it.
    UnreachableError
        ``database-unreachable``, ``database-locked``, ``database-full``: it may answer later.
    """
    try:
        yield
    except exc.NoSuchModuleError:
        raise _unknown_scheme(url) from None
    except ModuleNotFoundError as error:
        message = f"the driver {error.name} of {_word(url.drivername)} is not installed"
        raise ConfigError("database-driver", message, "pip install 'miad-gateway[postgresql]'") from None
    except exc.DBAPIError as error:
        raise _explained(url, error) from None
    except CommandError:
        message = "the database was written by a newer version of the gateway"
        raise ConfigError("database-newer", message, "install that version, or restore a backup") from None


# How an open database says that it cannot write or answer now. SQLite: result codes, www.sqlite.org/rescode.html.
_SQLITE_WAITS = {
    "SQLITE_FULL": ("database-full", "the database's disk is full", "make room on it"),
    "SQLITE_READONLY": ("database-read-only", "the database cannot be written to", "see to its file and its disk"),
    "SQLITE_IOERR": ("database-unreachable", "the database's disk fails", "look at the machine's log"),
    "SQLITE_CANTOPEN": ("database-unreachable", "the database's file cannot be opened", "see to its folder and disk"),
    "SQLITE_BUSY": ("database-locked", "another process has locked the database for too long", ""),
    "SQLITE_LOCKED": ("database-locked", "another process has locked the database for too long", ""),
}
# PostgreSQL: classes of SQLSTATE (manual, appendix A); None: the connection is gone, so nothing was answered.
_POSTGRESQL_WAITS = {
    "53": ("database-full", "the database's server has no room", "make room on its disk"),
    "25006": ("database-read-only", "the database is read-only now", "is it a standby?"),
    "57014": ("database-slow", "the database has not done it in time", "does it wait for its disk, or for a standby?"),
    "57P": ("database-unreachable", "the database's server is going down or starting", ""),
    "58": ("database-unreachable", "the database's server fails", "look at its log"),
    "08": ("database-unreachable", "the connection to the database is lost", "is the server running?"),
    "40": ("database-locked", "the database could not settle who is first", ""),
}


@contextmanager
def waiting() -> Iterator[None]:
    """Within, what an open database cannot do now is a CapacityError: whoever sees it tries again later.

    What was not committed is not there; when the connection was lost at the commit, it may be there all the same.

    Raises
    ------
    CapacityError
        ``database-full``, ``database-read-only``, ``database-locked``, ``database-slow``, ``database-unreachable``.
    """
    try:
        yield
    except exc.DBAPIError as error:
        found = _waits(error)
        if found is None:
            raise
        raise CapacityError(*found) from None


def _waits(error: exc.DBAPIError) -> tuple[str, str, str] | None:
    """Code, message and hint of a failure that waiting may heal; None for all else."""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return next((told for prefix, told in _SQLITE_WAITS.items() if name.startswith(prefix)), None)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        lost = error.connection_invalidated or isinstance(error, exc.OperationalError)
        return _POSTGRESQL_WAITS["08"] if lost else None
    return next((told for prefix, told in _POSTGRESQL_WAITS.items() if state.startswith(prefix)), None)


def _explained(url: URL, error: exc.DBAPIError) -> GatewayError:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, error)
    where = f"the database at {url.host or 'this machine'}" + (f" port {url.port}" if url.port else "")
    state = getattr(error.orig, "sqlstate", None)
    words = str(error.orig)
    if state is None:
        state = next((code for text, code in _REFUSED_WORDS.items() if re.search(text, words)), None)
    if state in _REFUSED:
        return ConfigError("database-refused", f"{where} refuses: {_REFUSED[state]}", _HINT)
    if "could not translate host name" in words or "resolve host" in words:
        return UnreachableError("database-unreachable", f"{where}: the name is not known", _HINT)
    if "timeout" in words.lower() or "timed out" in words.lower():
        return UnreachableError("database-unreachable", f"{where} does not answer in time", "is the server running?")
    if "refused" in words.lower():
        return UnreachableError("database-unreachable", f"{where}: nobody listens there", "is the server running?")
    code = f" (SQLSTATE {state})" if state else ""
    return UnreachableError("database-unreachable", f"{where} cannot be used{code}", "look at the server's log")


def _sqlite(url: URL, error: exc.DBAPIError) -> GatewayError:
    """SQLite's own messages are fixed words without values (sqlite3ErrStr)."""
    words = str(error.orig)
    if "database is locked" in words or "busy" in words:
        return UnreachableError("database-locked", f"{url.database} is locked by another process for too long")
    if "full" in words:
        return UnreachableError("database-full", f"no room for {url.database}", "make room on its disk")
    reason = words if re.fullmatch(r"[a-z ]{1,80}", words) else "cannot be used"
    hint = "is it a file of the gateway's, and may this user write to it and its folder?"
    return ConfigError("database-file", f"{url.database}: {reason}", hint)


def _unknown_scheme(url: URL) -> ConfigError:
    message = f"the gateway cannot use a database of the kind {_word(url.drivername)!r}"
    return ConfigError("database-scheme", message, "sqlite, or postgresql+psycopg")


def _word(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_+]{1,40}", text) else "(not a word)"
