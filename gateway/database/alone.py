"""One at a time over all processes that share a database: a lock on a name, which ends with whoever holds it.

On PostgreSQL it is an advisory lock of one session that the process keeps for that; on SQLite, where all processes are
on one machine, a lock on a byte of a file beside the database (an open file description lock, fcntl(2)).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from gateway.database.reach import waiting
from gateway.errors import CapacityError

LOOK_S = 0.02  # between two looks whether it is free
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid


class Alone:
    """Locks of one process. Safe for any number of threads, of which two never want the same name at once.

    Parameters
    ----------
    engine
        The database that all processes share; one in memory has a single process.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._path = "" if engine.dialect.name == "postgresql" else engine.url.database or ""
        self._mutex = threading.Lock()
        self._session: Connection | None = None

    @contextmanager
    def hold(self, name: str, within_s: float) -> Iterator[None]:
        """Hold a name; nobody else does until the block ends.

        Raises
        ------
        CapacityError
            ``busy-elsewhere``: another process holds it for longer than `within_s`; and those of the database.
        """
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2  # both kinds take 62 bits
        deadline = time.monotonic() + within_s
        if self._engine.dialect.name == "postgresql":
            self._poll(deadline, lambda: self._take(number))
            try:
                yield
            finally:
                self._give_back(number)
        elif self._path in ("", ":memory:"):
            yield
        else:
            descriptor = os.open(f"{self._path}.locks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
            try:
                self._poll(deadline, lambda: _lock(descriptor, number))
                yield
            finally:
                os.close(descriptor)  # and the lock with it

    @staticmethod
    def _poll(deadline: float, take: Callable[[], bool]) -> None:
        while not take():
            if time.monotonic() >= deadline:
                raise CapacityError("busy-elsewhere", "another process has the same instance in its hands")
            time.sleep(LOOK_S)

    def _take(self, number: int) -> bool:
        with self._mutex, waiting():
            if self._session is not None:
                try:
                    return self._try(self._session, number)
                except DBAPIError:  # it lay idle, and was lost
                    self._lose()
            self._session = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            return self._try(self._session, number)

    @staticmethod
    def _try(session: Connection, number: int) -> bool:
        return bool(session.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": number}))

    def _give_back(self, number: int) -> None:
        with self._mutex:
            if self._session is None:
                return  # it was lost, and its locks with it
            try:
                self._session.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})
            except DBAPIError:
                self._lose()

    def close(self) -> None:
        """Give the session back."""
        with self._mutex:
            self._lose()

    def _lose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()  # what it still holds ends with it, and does not go back into the pool
            session.close()


def _lock(descriptor: int, byte: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
        return False
    return True
