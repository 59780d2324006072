"""What an issuer says of itself (OpenID Connect Discovery 1.0), and its keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.identity.jwks import FAILED_S, FRESH_S

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Asks(Protocol):
    """Short requests to one origin (`gateway.network.fetching.Fetcher`)."""

    def covers(self, url: str) -> bool:
        """Whether a URL is of that origin."""

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body; GatewayError where there is none."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body; GatewayError where there is none."""


class Discovery:
    """The issuer's endpoints, asked for when they are needed and kept for an hour. Safe for any number of threads.

    Parameters
    ----------
    issuer
        As configured. What is found there has to say exactly the same, and all its endpoints have to lie on its own
        host: nobody else is ever contacted, whatever it says.
    """

    def __init__(self, issuer: str, asks: Asks, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._asks = asks
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Mapping[str, str] = {}
        self._at = -FRESH_S
        self._failed: GatewayError | None = None
        self._failed_at = -FAILED_S

    def endpoint(self, name: str) -> str:
        """The URL of one of `ENDPOINTS`.

        Raises
        ------
        UnreachableError, ConfigError
            Codes ``issuer-unreachable``, ``issuer-unusable``.
        """
        with self._lock:
            if self._clock() - self._at >= FRESH_S:
                self._found, self._at = self._ask(), self._clock()
            found = self._found.get(name, "")
        if not found:
            raise ConfigError("issuer-unusable", f"{self._issuer} names no {name}", "is it the right issuer?")
        return found

    def keys(self) -> bytes:
        """Its JWK set, as bytes."""
        return get(self._asks, self.endpoint("jwks_uri"), self._issuer)

    def _ask(self) -> Mapping[str, str]:
        """Once for all who wait here: the next one asks `FAILED_S` after it failed."""
        if self._failed is not None and self._clock() - self._failed_at < FAILED_S:
            raise self._failed
        try:
            found = self._read()
        except GatewayError as error:
            self._failed, self._failed_at = error, self._clock()
            raise
        self._failed = None
        return found

    def _read(self) -> Mapping[str, str]:
        data = get(self._asks, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration", self._issuer)
        try:
            told: Any = json.loads(data)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or told.get("issuer") != self._issuer:
            message = f"what is found at {self._issuer} does not say that it is that issuer"
            raise ConfigError("issuer-unusable", message, "write the issuer exactly as its provider does")
        found = {name: told[name] for name in ENDPOINTS if isinstance(told.get(name), str)}
        for name, url in found.items():
            if not self._asks.covers(url):
                message = f"the {name} of {self._issuer} lies on another host: it is not asked"
                raise ConfigError("issuer-unusable", message, "the issuer has to have all of its endpoints itself")
        return found


def get(asks: Asks, url: str, issuer: str) -> bytes:
    """The body of a good answer; UnreachableError ``issuer-unreachable``."""
    try:
        status, body = asks.get(url, {"Accept": "application/json"})
    except UnreachableError as error:
        raise UnreachableError("issuer-unreachable", f"{issuer}: {error.message}", error.hint) from None
    if status != 200:
        raise UnreachableError("issuer-unreachable", f"{issuer} answered HTTP {status}", "see its own log")
    return body
