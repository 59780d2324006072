"""One connection: uvicorn's HTTP/1.1 protocol with deadlines, and with the certificate that was shown.

Stock: a client that says nothing after its handshake, or half a request, is waited for without end; so is the rest of a
body that nobody reads; and no request knows the certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from gateway.network.admission import Places
from gateway.network.proxy_protocol import Client
from gateway.network.tls import PeerCertificate, certificate_facts

KEEP_ALIVE_S = 5.0  # a connection without a request is kept so long


class Connection(H11Protocol):
    """A connection whose handshake is over.

    Parameters
    ----------
    places
        What it holds at the door; given back when it is over.
    request_s
        Seconds for one request's head.
    origin, balancer
        Who a balancer says that it is from, and that balancer's address; None and empty: it came by itself.
    """

    certificate: PeerCertificate | None = None

    def __init__(
        self,
        server: Server,
        config: Config,
        places: Places,
        request_s: float,
        origin: Client | None = None,
        balancer: str = "",
    ) -> None:
        super().__init__(config=config, server_state=server.server_state, app_state={})
        self._server = server
        self._places = places
        self._request_s = request_s
        self._origin = origin
        self.balancer = balancer
        self._deadline: asyncio.TimerHandle | None = None
        self._served: Any = None  # the cycle that the deadline was taken off for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is over: a request has to come."""
        super().connection_made(transport)
        if self._origin is not None:
            self.client = (self._origin.address, self._origin.port)
        secured = transport.get_extra_info("ssl_object")
        der = secured.getpeercert(binary_form=True) if isinstance(secured, ssl.SSLObject) else None
        self.certificate = certificate_facts(der) if der else None
        # A write waits for all before it: a slow reader takes little memory, and what was written has nearly all left.
        transport.set_write_buffer_limits(high=1, low=0)  # with 0, TLS would pause over an empty buffer
        self.app_state["connection"] = self
        self._expect(self._request_s)

    def data_received(self, data: bytes) -> None:
        """As stock; the deadline ends with the head of a request."""
        super().data_received(data)
        if self.cycle is not None and self.cycle is not self._served and not self.cycle.response_complete:
            self._served = self.cycle
            self._expect(None)

    def on_response_complete(self) -> None:
        """The next request has its time; what is left of this one's body may take no longer either."""
        self._expect(KEEP_ALIVE_S + self._request_s)
        super().on_response_complete()
        if self.cycle is not None and self.cycle is not self._served and not self.cycle.response_complete:
            self._served = self.cycle  # it had been sent already
            self._expect(None)
        elif self._server.should_exit and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give everything back."""
        self._expect(None)
        self._places.give_back()
        super().connection_lost(exc)

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)
