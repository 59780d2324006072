"""Writing a multipart/related answer (RFC 2046 5.1, PS3.18 8.6.1.2), part by part as it comes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from gateway.network.http.exchange import Exchange


class MultipartAnswer:
    """Begins with its first part, so that what fails before it can still be told by a status.

    Parameters
    ----------
    part_type
        Media type of the parts, for the ``type`` parameter.
    """

    def __init__(self, exchange: Exchange, status: int, part_type: str) -> None:
        self._exchange = exchange
        self.status = status
        self._type = part_type
        self._boundary = secrets.token_hex(24)  # nobody can foresee it, and so put it into a part

    def part(self, headers: Iterable[tuple[str, str]], chunks: Iterable[bytes]) -> None:
        """Send one part; an exception of `chunks` goes through, and leaves the part in pieces."""
        if not self._exchange.started:
            media = f'multipart/related; type="{self._type}"; boundary={self._boundary}'
            self._exchange.start(self.status, [("content-type", media)])
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._exchange.write(f"\r\n--{self._boundary}\r\n{lines}\r\n".encode("ascii"))
        for chunk in chunks:
            self._exchange.write(chunk)
        self._exchange.write(b"")  # with the system, before the next begins

    def end(self) -> None:
        """Send the last boundary."""
        self._exchange.write(f"\r\n--{self._boundary}--\r\n".encode("ascii"))
        self._exchange.end()
