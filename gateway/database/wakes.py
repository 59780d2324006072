"""Wake-ups: whoever has changed rows tells the processes that wait for such rows, so that nobody has to ask for ever.

A wake-up is a hint. It is told after the commit, it may be lost, and it may come for nothing: who waits looks at the
rows all the same, now and then, so that a lost one costs that pause and never a row.

What is told is a *topic*, a short word of the configuration and the program, nothing of a patient. PostgreSQL carries
it by NOTIFY, on a connection of its own and after the commit: a NOTIFY within it would make all commits of the server
wait for each other. Beside an embedded database each process that listens has a named pipe, with the mode of the
database file, so that it works where each role has a user of its own.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine

from gateway.errors import fault

CHANNEL = "miad_gateway_wake"
LEFT_S = 60.0  # a pipe that nobody has read for so long was left by a process that was killed
LONGEST_TOPIC = 64
_RETRY_S = 2.0  # until a lost connection is made anew
_LOOK_S = 1.0  # how long the connection that listens keeps a process that ends
_CLOSE_S = 2.0

Heard = Callable[[Iterable[str] | None], None]
"""What hears the topics that others told; None: any may have been missed."""

log = structlog.get_logger(__name__)


class Bell:
    """What one thread waits on. What rings while nobody waits is heard at the next wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = False
        self._due: float | None = None

    def ring(self, in_s: float = 0.0) -> None:
        """Ring, or ring after some seconds; of several such times the first counts."""
        with self._changed:
            if in_s > 0:
                due = time.monotonic() + in_s
                self._due = due if self._due is None else min(due, self._due)
            else:
                self._rung = True
            self._changed.notify_all()

    def wait(self, longest_s: float) -> bool:
        """Wait until it rings; False: it did not within `longest_s`."""
        end = time.monotonic() + longest_s
        with self._changed:
            while not self._rung:
                now = time.monotonic()
                if self._due is not None and self._due <= now:
                    self._due = None
                    break
                if now >= end:
                    return False
                self._changed.wait(min(end, end if self._due is None else self._due) - now)
            self._rung = False
            return True


class Link(Protocol):
    """The way to other processes."""

    def listen(self, heard: Heard) -> None:
        """Call `heard` for what others tell, from a thread of its own. An OSError: it cannot be."""

    def tell(self, topics: set[str]) -> None:
        """Tell others. It never raises, and never waits long."""

    def close(self) -> None:
        """Tell what is left, and listen no more."""


class Wakes:
    """Topics that threads of this process wait for, and the link to other processes; without one it is alone."""

    def __init__(self, link: Link | None = None) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._bells: dict[str, list[Bell]] = {}

    def listen(self) -> None:
        """Hear what other processes tell from now on."""
        if self._link is None:
            return
        try:
            self._link.listen(self._heard)
        except OSError as error:
            log.warning("no wake-ups by other processes: they are looked for now and then", reason=error.strerror)

    def bell(self, topic: str) -> Bell:
        """A new bell that rings whenever the topic is told."""
        bell = Bell()
        with self._lock:
            self._bells.setdefault(topic, []).append(bell)
        return bell

    def tell(self, topics: Iterable[str]) -> None:
        """There is something for these topics; say so after the commit."""
        told = set(topics)
        if told:
            self._heard(told)
            if self._link is not None:
                self._link.tell(told)

    def tell_later(self, topic: str, in_s: float) -> None:
        """There will be; only this process hears it, others find it when they look."""
        for bell in self._of(topic):
            bell.ring(in_s)

    def close(self) -> None:
        """Tell what is left, and listen no more."""
        if self._link is not None:
            self._link.close()

    def _heard(self, topics: Iterable[str] | None) -> None:
        with self._lock:
            known = list(self._bells)
        for topic in known if topics is None else topics:
            for bell in self._of(topic):
                bell.ring()

    def _of(self, topic: str) -> list[Bell]:
        with self._lock:
            return list(self._bells.get(topic, ()))


def open_wakes(engine: Engine) -> Wakes:
    """The wake-ups of the processes that share a database. Nothing is opened before it is needed."""
    if engine.dialect.name == "postgresql":
        return Wakes(NotifyLink(engine))
    name = engine.url.database
    return Wakes(PipeLink(Path(name)) if name and name != ":memory:" else None)


class PipeLink:
    """Named pipes beside an embedded database, one for each process that listens."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._prefix = f"{database.name}-wake-"
        self._own: Path | None = None
        self._pipe = -1
        self._closing = False

    def listen(self, heard: Heard) -> None:
        """Make a pipe and read it; as `Link.listen`."""
        self._sweep()
        own = self._database.with_name(f"{self._prefix}{secrets.token_hex(8)}")
        mode = stat.S_IMODE(self._database.stat().st_mode) & 0o660
        os.mkfifo(own, 0o600)
        # for writing too: with no writer left, every read would end at once
        self._pipe, self._own = os.open(own, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), own
        os.fchmod(self._pipe, mode)
        threading.Thread(target=self._read, args=(heard,), name="wakes", daemon=True).start()

    def tell(self, topics: set[str]) -> None:
        """Write to all pipes but the own; one that is full has more to hear than it has heard."""
        told = b"".join(topic.encode() + b"\n" for topic in sorted(topics))
        for path in self._pipes():
            if path != self._own:
                with suppress(OSError):
                    _write(path, told)

    def close(self) -> None:
        """As `Link.close`."""
        if self._own is not None:
            self._closing = True
            with suppress(OSError):
                _write(self._own, b"\n")
            with suppress(OSError):
                self._own.unlink()

    def _pipes(self) -> list[Path]:
        with suppress(OSError), os.scandir(self._database.parent) as entries:
            return [Path(entry.path) for entry in entries if entry.name.startswith(self._prefix)]
        return []

    def _sweep(self) -> None:
        """Delete the pipes of processes that were killed."""
        for path in self._pipes():
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime < LEFT_S:
                    continue  # begun this moment, perhaps
                try:
                    _write(path, b"\n")
                except OSError:
                    path.unlink()

    def _read(self, heard: Heard) -> None:
        while True:
            data = os.read(self._pipe, 65536)
            if self._closing:
                os.close(self._pipe)
                return
            heard({line.decode("ascii", "replace") for line in data.split(b"\n") if 0 < len(line) <= LONGEST_TOPIC})


def _write(path: Path, data: bytes) -> None:
    """Write to a pipe; OSError when nobody reads it, when it is full, or when it is none."""
    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
            raise FileNotFoundError(2, "no pipe")
        os.write(pipe, data)
    finally:
        os.close(pipe)


class NotifyLink:
    """LISTEN and NOTIFY of PostgreSQL, each on a connection of its own and in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._closing = False
        self._teller: threading.Thread | None = None
        self._own_pid = 0  # of the server's process that tells for us: what it tells we know

    def listen(self, heard: Heard) -> None:
        """As `Link.listen`."""
        threading.Thread(target=self._hear, args=(heard,), name="wakes", daemon=True).start()

    def tell(self, topics: set[str]) -> None:
        """As `Link.tell`: what comes while the last is told goes together."""
        with self._changed:
            self._waiting |= topics
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="wakes-told", daemon=True)
                self._teller.start()
            self._changed.notify_all()

    def close(self) -> None:
        """As `Link.close`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._teller is not None:
            self._teller.join(_CLOSE_S)

    def _connect(self) -> Any:
        """A connection of the driver, out of the pool for good: each statement is a transaction."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.autocommit = True
        return connection

    def _hear(self, heard: Heard) -> None:
        while not self._closing:
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    heard(None)
                    while not self._closing:
                        for one in connection.notifies(timeout=_LOOK_S):
                            if one.pid != self._own_pid:
                                heard({one.payload})
            except Exception as error:
                log.warning("no wake-ups by other processes for now", fault=fault(error))
                self._pause()

    def _tell(self) -> None:
        while self._wait():
            try:
                with self._connect() as connection:
                    self._own_pid = connection.info.backend_pid
                    # a wake-up needs no flush of the server's log
                    connection.execute("SET synchronous_commit = off")
                    while self._wait():
                        told = [CHANNEL, self._take()]
                        connection.execute("SELECT pg_notify(%s, t) FROM unnest(%s::text[]) t", told)
            except Exception as error:
                self._take()  # others find the rows when they look
                log.warning("others are not woken for now", fault=fault(error))
                self._pause()

    def _wait(self) -> bool:
        """Wait until there is something to tell; False: there is nothing, and it is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return bool(self._waiting)

    def _take(self) -> list[str]:
        with self._changed:
            taken, self._waiting = sorted(self._waiting), set()
            return taken

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, _RETRY_S)
