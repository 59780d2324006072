"""How many at once: connections and associations, counted over all ports and processes of a role.

`Counts` is for one process and all of its ports. `SharedCounts` is for several processes of one role on one machine:
each writes its own counts into a file of its own, in a folder that they share, and adds up everybody's before it takes
a place. A process that is killed gives its places back at once, since the lock on its file ends with it.

    counts.take("connections", 100)      True when there was a place, which is now taken
    counts.give("connections")           gives it back

Keys are words of ours with an IP address or an AE title behind them: nothing of a patient.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_log = logging.getLogger(__name__)


class Counts:
    """Places taken in this process. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: Counter[str] = Counter()

    def take(self, key: str, limit: int) -> bool:
        """Take a place under `key` unless `limit` are taken; whether there was one."""
        with self._lock, self._exclusive():
            if self._own[key] + self._others(key) >= limit:
                return False
            self._own[key] += 1
            self._publish()
            return True

    def give(self, key: str) -> None:
        """Give a place back that `take` gave to this process."""
        with self._lock, self._exclusive():
            self._own[key] -= 1
            if self._own[key] <= 0:
                del self._own[key]
            self._publish()

    def taken(self, key: str) -> int:
        """How many places are taken under `key`, by everybody."""
        with self._lock, self._exclusive():
            return self._own[key] + self._others(key)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        yield

    def _others(self, key: str) -> int:
        return 0

    def _publish(self) -> None:
        """Tell the others, where there are any."""


class SharedCounts(Counts):
    """Places taken by all processes that name the same folder.

    Parameters
    ----------
    folder
        Made when missing; on a local file system, since locks have to work. Nothing in it needs to survive a restart.

    Raises
    ------
    OSError
        The folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._untold = False  # what was taken last could not be written
        self._gate = os.open(folder / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}.counts"
        with self._lock, self._exclusive():
            self._file = os.open(folder / self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _others(self, key: str) -> int:
        return sum(counts.get(key, 0) for counts in self._living())

    def _living(self) -> Iterator[dict[str, int]]:
        """What each other process has taken; the file of one that has ended is removed."""
        for path in self._folder.glob("*.counts"):
            if path.name == self._name:
                continue
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # its process lives
                    with contextlib.suppress(ValueError):  # written in part, on a full disk
                        yield json.loads(file.read() or b"{}")
                else:
                    path.unlink()

    def _publish(self) -> None:
        """Tell the others; on a full disk they count without us for a while, and nobody is sent away for that."""
        data = json.dumps(self._own).encode()
        try:
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))
        except OSError as error:
            if not self._untold:
                _log.warning("places are counted by this process alone: %s", error.strerror)
            self._untold = True
        else:
            self._untold = False


class Places:
    """The places that one connection holds; given back together, once, whoever asks first."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._keys: list[str] = []
        self._lock = threading.Lock()
        self._ended = False

    def take(self, wanted: Iterable[tuple[str, int]]) -> str:
        """Take a place under each (key, limit); returns the key that was full, or nothing when all were taken.

        When one is full, none of `wanted` is taken.
        """
        taken: list[str] = []
        for key, limit in wanted:
            if not self._counts.take(key, limit):
                for one in taken:
                    self._counts.give(one)
                return key
            taken.append(key)
        with self._lock:
            if not self._ended:
                self._keys += taken
                return ""
        for one in taken:  # the connection has ended in the meantime
            self._counts.give(one)
        return ""

    @property
    def ended(self) -> bool:
        """Everything was given back: the connection is over."""
        return self._ended

    def give_back(self) -> None:
        """Give everything back; again is harmless."""
        with self._lock:
            keys, self._keys, self._ended = self._keys, [], True
        for key in keys:
            self._counts.give(key)
