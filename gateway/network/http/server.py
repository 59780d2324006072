"""The port: uvicorn with its accept replaced, as `gateway.network.listener` does it for DICOM.

Stock: connections are not counted before their handshake, and the handshake has a minute. Here the address is looked at
on accept (`gateway.network.door`), and the handshake has its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.errors import ConfigError, DeliveryError
from gateway.log import describe_error, get_logger
from gateway.network.admission import Places
from gateway.network.callers import plain_address
from gateway.network.door import Door
from gateway.network.http.connection import Connection
from gateway.network.http.exchange import Answered, Exchange
from gateway.network.listener import handshake_failure
from gateway.network.proxy_protocol import HeaderError, receive_async

BACKLOG = 128
LONGEST_HEAD = 16_384  # bytes of a request before its body
TEXT = "text/plain; charset=utf-8"

log = get_logger(__name__)


@dataclass(frozen=True)
class HttpListen:
    """Where and how a port listens; `port` 0 takes any free one.

    `handshake_timeout_s` bounds the handshake, and the head of a request; `idle_timeout_s` one read or write.
    """

    host: str
    port: int
    handshake_timeout_s: float = 5
    idle_timeout_s: float = 60
    is_shared: bool = False  # other processes of this user may listen on the same port


class HttpsServer:
    """One listening port.

    Parameters
    ----------
    tls
        From `gateway.network.tls.server_context`: every client shows a certificate.
    door
        Counts connections.
    serve
        Called in a thread of its own for each request; answers it, or raises `Answered`. What else it raises is
        answered with 500, or breaks the connection off where the answer has begun.
    every_moment
        Called several times a second.
    """

    def __init__(
        self,
        listen: HttpListen,
        tls: ssl.SSLContext,
        door: Door,
        serve: Callable[[Exchange], None],
        every_moment: Callable[[], None] = lambda: None,
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._door = door
        self._serve = serve
        self.every_moment = every_moment
        self._socket: socket.socket | None = None
        self._port = listen.port
        self._thread: threading.Thread | None = None
        self._server = _Server(self)

    @property
    def port(self) -> int:
        """The port that is, or was, listened on."""
        return self._port

    def bind(self, before: HttpsServer | None = None) -> None:
        """Listen, and accept nothing yet; `before`: one of the same host and port hands its socket on.

        Raises
        ------
        ConfigError
            ``cannot-listen``.
        """
        where = (self._listen.host, self._listen.port)
        try:
            if before is not None and before._socket is not None and before._where == where:
                self._socket = before._socket.dup()
            else:
                family = socket.getaddrinfo(where[0] or None, where[1], type=socket.SOCK_STREAM)[0][0]
                shared = self._listen.is_shared
                self._socket = socket.create_server(where, family=family, backlog=BACKLOG, reuse_port=shared)
            self._socket.setblocking(False)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no address of this machine"
            message = f"cannot listen on {where[0]} port {where[1]}: {reason}"
            raise ConfigError("cannot-listen", message, "is the port taken?") from None
        self._port = self._socket.getsockname()[1]

    @property
    def _where(self) -> tuple[str, int]:
        return self._listen.host, self._listen.port

    def start(self) -> None:
        """Serve in a thread and return."""
        if self._socket is None:
            self.bind()
        self._thread = threading.Thread(target=self._server.run, args=([],), name=f"https-{self.port}", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Take no more connections; requests at hand go on."""
        self._server.should_exit = True
        if self._thread is None and self._socket is not None:
            self._socket.close()

    def finish(self) -> None:
        """After `pause`: wait until every request has ended by itself."""
        if self._thread is not None:
            self._thread.join()

    def stop(self, drain_s: float = 5.0) -> None:
        """Take no more, give requests `drain_s` seconds to end, break off what is left."""
        self._server.config.timeout_graceful_shutdown = max(drain_s, 0.1)  # type: ignore[assignment]
        self.pause()
        if self._thread is not None:
            self._thread.join(drain_s + 5)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: give the request a thread, and wait for it."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._listen.idle_timeout_s)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            try:
                self._work(exchange)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                    loop.call_soon_threadsafe(done.set)

        threading.Thread(target=work, name=f"exchange-{exchange.id}", daemon=True).start()
        try:
            await done.wait()
        finally:
            if not exchange.ended:
                exchange.abort()

    def _work(self, exchange: Exchange) -> None:
        try:
            try:
                if exchange.head_bytes > LONGEST_HEAD:
                    raise Answered(431, "the head of the request is too long")
                self._serve(exchange)
            except Answered as answered:
                if exchange.started:
                    raise
                body = f"{answered.text}\n".encode()
                exchange.answer(answered.status, TEXT, body, answered.headers)
        except DeliveryError:
            exchange.abort()
        except Exception as error:
            log.error("request failed", association_id=exchange.id, error=describe_error(error))
            self._apologise(exchange)

    @staticmethod
    def _apologise(exchange: Exchange) -> None:
        if exchange.started:
            exchange.abort()
            return
        with contextlib.suppress(DeliveryError):
            exchange.answer(500, TEXT, b"internal error\n")

    async def accept(self, config: uvicorn.Config, server: uvicorn.Server) -> None:
        """Accept connections until cancelled; each shakes hands by itself."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        greeting: set[asyncio.Task] = set()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError:  # no more descriptors, or a client that has gone already
                await asyncio.sleep(0.05)
                continue
            source = plain_address(address[0])
            waits = self._door.is_balancer(source)
            places = self._door.await_header(source) if waits else self._door.enter(source)
            if places is None:
                connection.close()
                continue
            task = loop.create_task(self._greet(config, server, connection, source, places))
            greeting.add(task)
            task.add_done_callback(greeting.discard)

    async def _greet(
        self, config: uvicorn.Config, server: uvicorn.Server, connection: socket.socket, address: str, places: Places
    ) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        deadline = self._listen.handshake_timeout_s
        begun = asyncio.get_running_loop().time()
        balancer, client = "", None
        try:
            if self._door.is_balancer(address):
                client = await receive_async(connection, deadline)
                begun = asyncio.get_running_loop().time()
                balancer, address = address, address if client is None else plain_address(client.address)
                waited, entered = places, self._door.enter(address, balancer)
                waited.give_back()
                if entered is None:
                    connection.close()
                    return
                places = entered
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(server, config, places, deadline, client, balancer),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=deadline,
                ssl_shutdown_timeout=1.0,
            )
        except Exception as error:
            places.give_back()
            connection.close()
            late = asyncio.get_running_loop().time() - begun >= deadline  # asyncio tells of it as of a lost connection
            is_header = isinstance(error, HeaderError)
            reason = "tls-handshake-timeout" if late and not is_header else handshake_failure(error)
            if reason:
                self._door.refuse(address, reason, balancer)

    def close(self) -> None:
        """Close this socket; one that was handed on goes on listening."""
        if self._socket is not None:
            self._socket.close()


class _Server(uvicorn.Server):
    """Begins and ends with the accepting of its port."""

    def __init__(self, port: HttpsServer) -> None:
        # No access log: paths hold UIDs. No header of a proxy is believed: certificates are shown to us.
        config = uvicorn.Config(
            port.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=5,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            http="h11",
            ws="none",
            interface="asgi3",
            loop="asyncio",
        )
        super().__init__(config)
        self._of_port = port
        self._accepting: asyncio.Task | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._accepting = asyncio.create_task(self._of_port.accept(self.config, self))

    async def on_tick(self, counter: int) -> bool:
        self._of_port.every_moment()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        self._of_port.close()
        await super().shutdown(sockets=[])
