"""A socket for `http.client` on which a whole answer has one deadline.

Stock: the timeout counts for each read anew. A service that sends a byte now and then, or one "100 Continue" after the
other, holds its caller for as long as it likes.
"""

from __future__ import annotations

import io
import socket
import time


class PatientSocket:
    """As much of a socket as `http.client.HTTPConnection` uses.

    Parameters
    ----------
    connection
        Connected, and secured where it is to be; its timeout bounds each send.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._send_s = connection.gettimeout()
        self._deadline = time.monotonic() + (self._send_s or 0.0)

    def begin(self, within_s: float) -> None:
        """From now on everything that is read has to come within so many seconds."""
        self._deadline = time.monotonic() + within_s

    def sendall(self, data: bytes) -> None:
        """Send all of it; TimeoutError as a socket."""
        self._connection.settimeout(self._send_s)
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What an answer is read from; `mode` is "rb", as nobody asks for another."""
        return io.BufferedReader(_Reading(self, self._connection.makefile("rb", buffering=0)))

    def wait_no_longer(self) -> None:
        """Bound the next read by the deadline.

        Raises
        ------
        TimeoutError
            It is over.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close it, when what reads from it is closed too."""
        self._connection.close()


class _Reading(io.RawIOBase):
    def __init__(self, of: PatientSocket, source: socket.SocketIO) -> None:
        super().__init__()
        self._of = of
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]
        self._of.wait_no_longer()
        return self._source.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
