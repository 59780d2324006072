"""Serves the page over HTTP until it is stopped."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.errors import ConfigError

REQUEST_S = 10.0  # in which a request has come whole, and an answer was read
STOP_S = 5  # answers at hand have so long
BACKLOG = 128
MOMENT_S = 10


class _Patient(H11Protocol):
    """A connection that is closed when its request does not come, or its answer is not read: who holds many open so
    keeps others out.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait_no_more()
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._late = self.loop.call_later(REQUEST_S, self._close_late)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()

    def _close_late(self) -> None:
        is_at_work = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if is_at_work and not self.flow.write_paused:  # the page itself takes long
            self._wait()
        else:
            self.transport.abort()


class PageServer:
    """One HTTP server in a thread of its own.

    Parameters
    ----------
    before
        A server of this process that this one follows: the same host and port is handed on.
    now_and_then
        Called every `MOMENT_S` seconds.

    Raises
    ------
    ConfigError
        ``cannot-listen``: nobody can listen there.
    """

    def __init__(
        self,
        app: FastAPI,
        host: str,
        port: int,
        before: PageServer | None = None,
        now_and_then: Callable[[], None] = lambda: None,
    ) -> None:
        self._where = (host, port)
        self._socket: socket.socket
        try:
            if before is not None and before._where == self._where:
                self._socket = before._socket.dup()
            else:
                family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
                self._socket = socket.create_server(self._where, family=family, backlog=BACKLOG)
            self.port: int = self._socket.getsockname()[1]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no address of this machine"
            raise ConfigError("cannot-listen", f"the page cannot listen on {host} port {port}: {reason}") from None

        async def notify() -> None:
            await asyncio.to_thread(now_and_then)

        # No access log: paths hold ids. Forwarded headers are believed of a proxy on this machine alone.
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            proxy_headers=True,
            forwarded_allow_ips="127.0.0.1",
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=16_384,
            http=_Patient,
            ws="none",
            loop="asyncio",
            callback_notify=notify,
            timeout_notify=MOMENT_S,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="page", daemon=True
        )

    def start(self) -> None:
        """Listen is on already; answers begin now."""
        self._thread.start()

    def pause(self) -> None:
        """Take no more requests, and return."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Finish the answers at hand and close the port."""
        self.pause()
        if self._thread.ident is not None:
            self._thread.join(STOP_S + 5)
        self._socket.close()
