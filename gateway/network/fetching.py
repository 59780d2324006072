"""Short requests to one configured HTTP service and nobody else: no redirect, no proxy, bounded answers, deadlines."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import ConfigError, TransientError, UnreachableError
from gateway.network.connect import Peer, connect
from gateway.network.patient_socket import PatientSocket
from gateway.network.tls import trusting_context

LONGEST_ANSWER = 1 << 18  # bytes


class Fetcher:
    """Asks one origin: scheme, host and port of `url`.

    Parameters
    ----------
    url
        Of the service.
    trust
        Authorities of its certificate; None: those of the system.
    certificate, private_key
        Shown to it, where both are given.

    Raises
    ------
    ConfigError
        As `gateway.network.tls.client_context`.
    """

    def __init__(
        self,
        url: str,
        trust: Path | None = None,
        timeout_s: float = 10.0,
        certificate: Path | None = None,
        private_key: Path | None = None,
    ) -> None:
        self._origin = _origin(url)
        self._timeout_s = timeout_s
        self._tls = trusting_context(trust, certificate, private_key) if self._origin[0] == "https" else None

    def covers(self, url: str) -> bool:
        """Whether a URL is of this origin."""
        try:
            return _origin(url) == self._origin
        except ConfigError:
            return False

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body."""
        return self.ask("GET", url, b"", headers or {})

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        return self.ask("POST", url, body, headers)

    def tell(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post; the status, and nothing of the body is read: once they say that they have it, nothing takes it back."""
        return self.ask("POST", url, body, headers, reads=False)[0]

    def ask(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, reads: bool = True
    ) -> tuple[int, bytes]:
        """One request on a connection of its own; without `reads` the answer's body is left unread.

        Raises
        ------
        ConfigError
            ``other-origin``: it is not of the origin that was configured; nothing is sent.
        UnreachableError
            Codes ``unreachable``, ``no-answer``, ``unexpected-answer``, and those of TLS.
        """
        if not self.covers(url):
            raise ConfigError("other-origin", f"a URL outside of {self.place} is not asked", "only what is configured")
        scheme, host, port = self._origin
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        peer = Peer(host, port, "", "", self._tls, connect_timeout_s=self._timeout_s)
        try:
            with_tls = connect(peer)
        except TransientError as error:
            raise UnreachableError(error.code, error.message, error.hint) from None
        with_tls.settimeout(self._timeout_s)
        patient = PatientSocket(with_tls)
        connection = _Connection(host, port)
        connection.default_port = 443 if scheme == "https" else 80
        connection.sock = patient
        try:
            connection.request(method, target, body or None, {"Connection": "close", **headers})
            patient.begin(self._timeout_s)
            answer = connection.getresponse()
            data = answer.read(LONGEST_ANSWER + 1) if reads else b""
        except TimeoutError:
            raise UnreachableError("no-answer", f"{self.place} did not answer in {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError):
            raise UnreachableError("unexpected-answer", f"{self.place} does not speak HTTP, or broke off") from None
        finally:
            connection.close()
        if len(data) > LONGEST_ANSWER:
            raise UnreachableError("unexpected-answer", f"{self.place} answered more than {LONGEST_ANSWER} bytes")
        return answer.status, data

    @property
    def place(self) -> str:
        """The origin, for people."""
        scheme, host, port = self._origin
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class _Connection(http.client.HTTPConnection):
    """On a socket that is connected already; never connects by itself."""

    auto_open = 0
    sock: Any


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
        raise ConfigError("bad-url", "that is no URL of a service", "https://HOST/PATH")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)
