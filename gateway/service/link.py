"""Messages between a supervisor and its roles, and between an operator's command and either: JSON lines on a socket."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

VARIABLE = "MIAD_SUPERVISOR_LINK"
"""Environment variable that tells a role the file descriptor of the link to its supervisor."""
LONGEST = 16 << 20  # bytes of one message
_LOOK_S = 0.2  # between two looks whether to wait any longer


class Link:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._read = bytearray()  # what has come of the next message
        self._sending = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Link, socket.socket]:
        """A link, and the socket of its other end."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    @classmethod
    def from_environment(cls) -> Link | None:
        """The link to the supervisor, None where there is none; neither it nor its name goes to further children."""
        number = os.environ.pop(VARIABLE, "")
        if not number:
            return None
        os.set_inheritable(int(number), False)
        return cls(socket.socket(fileno=int(number)))

    def send(self, message: dict[str, Any], timeout_s: float | None = None) -> bool:
        """Send one message; False when the other side is gone, or takes nothing for `timeout_s`."""
        try:
            with self._sending:
                if timeout_s is not None:
                    self._socket.settimeout(timeout_s)
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(
        self, timeout_s: float | None = None, is_over: Callable[[], bool] = lambda: False
    ) -> dict[str, Any] | None:
        """The next message; None when the other side is gone, takes longer than `timeout_s`, or sends something else.

        One thread at a time receives, and sends with a timeout only where no other one receives.

        Parameters
        ----------
        is_over
            Asked several times a second where there is a timeout: whether to wait no longer.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            message = json.loads(self._line(deadline, is_over))
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def answer(
        self, number: int, timeout_s: float, is_over: Callable[[], bool] = lambda: False
    ) -> dict[str, Any] | None:
        """The answer to the message of this number, past what comes late to earlier ones; None as `receive`."""
        deadline = time.monotonic() + timeout_s
        while (message := self.receive(max(0.0, deadline - time.monotonic()), is_over)) is not None:
            if message.get("number") == number:
                return message
        return None

    def _line(self, deadline: float | None, is_over: Callable[[], bool]) -> bytes:
        """The next line; ValueError when there is none to come, OSError (a timeout too) when none comes."""
        looked = 0
        while (end := self._read.find(b"\n", looked)) < 0:
            looked = len(self._read)
            if looked > LONGEST:
                raise ValueError
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            self._socket.settimeout(left if left is None else min(left, _LOOK_S))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                if left is None or left <= _LOOK_S or is_over():
                    raise
                continue
            if not data:
                raise ValueError
            self._read += data
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def listen(self, heard: Callable[[Link, dict[str, Any] | None], None]) -> None:
        """Call `heard` with each message, in a thread; with None once, when the other side is gone."""

        def run() -> None:
            while True:
                message = self.receive()
                heard(self, message)
                if message is None:
                    return

        threading.Thread(target=run, name="link", daemon=True).start()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
