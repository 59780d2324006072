"""Where a running role, or the supervisor, takes an operator's requests: a socket in its audit folder.

That folder is the role's own where roles have users of their own, and the socket is closed to everybody else but root
(unix(7)). Each process has a socket of its own, named by its id; one whose process is gone is removed by who meets it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from gateway.config import Config
from gateway.service.link import Link
from gateway.service.places import places

SUPERVISOR = "supervisor"
_SUFFIX = ".control"

log = structlog.get_logger(__name__)


class ControlSocket:
    """Takes connections, and tells of each message on them.

    A folder in which no socket can be made is told of: the process works without one, and reloads by SIGHUP.
    """

    def __init__(self, config: Config, role: str, heard: Callable[[Link, dict[str, Any] | None], None]) -> None:
        self._path = places(config).audit(role).with_name(f"{role}.{os.getpid()}{_SUFFIX}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            with suppress(FileNotFoundError):
                self._path.unlink()  # of an earlier process with this number
            with _short(self._path) as name:
                self._socket.bind(name)
            self._socket.listen(8)
        except OSError as error:
            log.warning("no requests of operators are taken, only SIGHUP", reason=error.strerror)
            self._socket.close()
            return
        finally:
            os.umask(mask)
        threading.Thread(target=self._accept, args=(heard,), name="control", daemon=True).start()

    def close(self) -> None:
        """Take no more requests."""
        with suppress(OSError):
            self._path.unlink()
        self._socket.close()

    def _accept(self, heard: Callable[[Link, dict[str, Any] | None], None]) -> None:
        with suppress(OSError):  # closed
            while True:
                Link(self._socket.accept()[0]).listen(heard)


def running(config: Config) -> list[tuple[str, Link]]:
    """A link to every process of this site that takes requests, with its role; ``supervisor`` speaks for its roles.

    Raises
    ------
    PermissionError
        This user may not speak to one that is there.
    """
    audit = config.site.state / "audit"
    found = []
    for path in sorted([*audit.glob(f"*{_SUFFIX}"), *audit.glob(f"*/*{_SUFFIX}")]):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as name:
                connection.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            connection.close()
            with suppress(OSError):
                path.unlink()
        except BaseException:
            connection.close()
            raise
        else:
            found.append((path.name.partition(".")[0], Link(connection)))
    return found


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of a socket that fits into an address (108 bytes), however long its folder's is (proc(5))."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
