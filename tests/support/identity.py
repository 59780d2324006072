"""An identity provider of the tests: a stand-in that signs as real ones do, over real HTTPS.

It lies when it is told to. Its signatures are joserfc's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.config.models import Tls


class Provider:
    """Keys, people and codes of one issuer; `asked` counts the paths that were asked for."""

    def __init__(self, url: str = "https://localhost", client_id: str = "gateway", secret: str = "s3cret") -> None:
        self.url = url
        self.client_id, self.secret = client_id, secret
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.claims: dict[str, Any] = {"preferred_username": "jane.doe", "groups": ["pacs-admins"], "sub": "4711"}
        self.document: dict[str, Any] = {}  # what discovery says otherwise
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.is_down = False
        self.give: str | None = None  # a token instead of the right one
        self.with_nonce = True

    def token(self, *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A signed token; claims that are None are left out."""
        now = int(time.time())
        told = {"iss": self.url, "iat": now, "exp": now + 300, **claims}
        head = {"alg": "RS256", "kid": "one", **(header or {})}
        signed_by = key or self.key
        return jwt.encode(
            head, {name: one for name, one in told.items() if one is not None}, signed_by, algorithms=[head["alg"]]
        )

    def jwks(self) -> bytes:
        """The public keys."""
        return json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()

    def rotate(self) -> None:
        """A new key, and the old one is gone."""
        self.key = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})

    def discovery(self) -> dict[str, Any]:
        """The document of OpenID Connect Discovery."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            **self.document,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Somebody logs in: where the browser is sent back to."""
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The token endpoint (RFC 6749 4.1.3, RFC 7636 4.6)."""
        basic = base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()
        if self.secret and authorization != f"Basic {basic}":
            return 401, {"error": "invalid_client"}
        given = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            given is None
            or form.get("redirect_uri") != given["redirect_uri"]
            or given.get("code_challenge_method") != "S256"
            or challenge.rstrip(b"=").decode() != given["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        nonce = {"nonce": given["nonce"]} if self.with_nonce else {}
        token = self.give or self.token(aud=self.client_id, **nonce, **self.claims)
        return 200, {"id_token": token, "access_token": "x", "token_type": "Bearer"}


@contextmanager
def serving(tls: Tls, **more: Any) -> Iterator[Provider]:
    """A provider behind TLS on this machine."""
    provider = Provider(**more)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def say(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.asked.append(parts.path)
            if provider.is_down:
                self.say(503, b"")
            elif parts.path == "/.well-known/openid-configuration":
                self.say(200, json.dumps(provider.discovery()).encode())
            elif parts.path == "/jwks":
                self.say(200, provider.jwks())
            elif parts.path == "/authorize":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.say(303, b"", Location=provider.authorize(query))
            else:
                self.say(404, b"")

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            fields = {name: values[0] for name, values in form.items()}
            status, told = provider.redeem(fields, self.headers.get("Authorization", ""))
            self.say(503 if provider.is_down else status, json.dumps(told).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.private_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    provider.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
