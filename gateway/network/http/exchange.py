"""One request and its answer, as the thread that serves it sees them: reading and writing wait, and have deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Scope, Send

from gateway.errors import TransientError
from gateway.network.callers import Caller, plain_address
from gateway.network.tls import PeerCertificate

if TYPE_CHECKING:
    from gateway.network.http.connection import Connection

_ALWAYS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "accept-ranges": "none",
}
_LOOP_S = 5.0  # in which the loop gets to what it was given
_LEAST = 65_536  # bytes of a body that have to come within the time of one read, but at its end


class Answered(Exception):
    """What ends an exchange before it has begun to answer: an HTTP status and a sentence.

    Parameters
    ----------
    status
        HTTP status code.
    text
        One sentence in ASCII for the caller; never holds a value of the request.
    headers
        More headers.
    """

    def __init__(self, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.headers = tuple(headers)


class Exchange:
    """For the one thread that serves it.

    Parameters
    ----------
    scope, receive, send
        As ASGI has them.
    silence_s
        Seconds that one read or write may take.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, silence_s: float) -> None:
        self._receive, self._send = receive, send
        self._loop = asyncio.get_running_loop()
        self._silence_s = silence_s
        self._connection: Connection = scope["state"]["connection"]
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._more = True  # of the body
        self.id = secrets.token_hex(8)
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")  # as it was sent: nothing is unquoted
        self.query: str = scope["query_string"].decode("latin-1")
        client = scope["client"] or ("", 0)
        self.address: str = plain_address(client[0])
        self.port: int = client[1]
        self.own_port: int = (scope["server"] or ("", 0))[1]
        self.balancer = self._connection.balancer  # who said that it comes from `address`; empty: it came by itself
        self.certificate: PeerCertificate | None = self._connection.certificate
        self.started = False
        self.ended = False

    @property
    def head_bytes(self) -> int:
        """About how long the head of the request is."""
        return len(self.path) + len(self.query) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def caller(self, calling_ae: str, called_ae: str) -> Caller:
        """Who asks, with the AE titles that it and what it asks stand for."""
        return Caller(self.id, calling_ae, called_ae, self.address, self.port, self.certificate, self.balancer)

    def header(self, name: str) -> str:
        """All values of a header, joined as RFC 9110 5.3 has it; "" when it is not there."""
        wanted = name.lower().encode()
        return ", ".join(value.decode("latin-1") for key, value in self._headers if key == wanted)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._connection.transport.is_closing()

    def start(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send the head of the answer.

        Raises
        ------
        TransientError
            ``association-lost``, as `write`.
        """
        self.started = True
        ours = dict(_ALWAYS) | {name.lower(): value for name, value in headers}
        encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in ours.items()]
        self._wait(self._send({"type": "http.response.start", "status": status, "headers": encoded}))

    def write(self, data: bytes) -> None:
        """Send a part of the body; returns when all before it is with the system.

        Raises
        ------
        TransientError
            ``association-lost``: the peer is gone, or takes nothing; the connection is broken off then.
        """
        self._wait(self._send({"type": "http.response.body", "body": data, "more_body": True}))

    def end(self) -> None:
        """End the answer, and wait until it has left."""
        self.write(b"")
        self.ended = True
        self._wait(self._send({"type": "http.response.body", "body": b"", "more_body": False}), at_end=True)

    def answer(self, status: int, media_type: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """A whole answer at once."""
        self.start(status, [("content-type", media_type), ("content-length", str(len(body))), *headers])
        self.write(body)
        self.end()

    def read(self) -> bytes:
        """The next bytes of the body; empty at its end.

        Raises
        ------
        TransientError
            ``association-lost``: the peer is gone, or too slow.
        """
        return self._wait(self._read())

    def abort(self) -> None:
        """Break the connection off: what was sent must not look whole."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and every connection with it
            self._loop.call_soon_threadsafe(self._connection.transport.abort)

    async def _read(self) -> bytes:
        pieces: list[bytes] = []
        have = 0
        while self._more and have < _LEAST:
            message: Message = await self._receive()
            if message["type"] != "http.request":
                raise ConnectionError
            pieces.append(message.get("body", b""))
            have += len(pieces[-1])
            self._more = message.get("more_body", False)
        return b"".join(pieces)

    def _wait(self, done: Coroutine[Any, Any, Any] | Any, *, at_end: bool = False) -> Any:
        try:
            waiting = asyncio.wait_for(done, self._silence_s)
            try:
                # the second limit: a loop that ends this moment takes it and never looks at it
                result = asyncio.run_coroutine_threadsafe(waiting, self._loop).result(self._silence_s + _LOOP_S)
            except RuntimeError:  # the loop has ended
                waiting.close()
                done.close()
                raise ConnectionError from None
            if self.gone and not at_end:
                raise ConnectionError
            return result
        except (OSError, TimeoutError, asyncio.CancelledError):
            self.abort()
            raise TransientError("association-lost", "the caller is gone, or too slow") from None
