"""The configuration's tables about an identity provider: who signs tokens, and what they have to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import HttpsUrl, Model, Problem, ServiceUrl, checked
from gateway.config.secret import SecretRef


def _claim(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*|https://[A-Za-z0-9./_-]+", value):
        raise ValueError("the name of a claim, or a path through nested ones: realm_access.roles")
    return value


def _scope(value: str) -> str:
    """RFC 6749 3.3."""
    if not re.fullmatch(r"[!#-\[\]-~]+", value):
        raise ValueError("a scope is printable ASCII without spaces, '\"' and '\\'")
    return value


Claim = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_claim)]
Scope = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_scope)]
Text = Annotated[str, Field(min_length=1, max_length=256)]


class Issuer(Model):
    """Who signs: nobody but its own host is ever contacted."""

    issuer: Annotated[HttpsUrl, Field(min_length=1)]  # exactly as its tokens say
    trust: Path | None = None  # authorities of its certificate; unset: those of the system
    keys_file: Path | None = None  # its public keys (a JWK set); unset: asked for, as OpenID Connect Discovery has it
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10


class Tokens(Issuer):
    """Access tokens that workstations show over DICOMweb besides their certificate (RFC 8705)."""

    audience: Text
    search_scope: Scope = "dicomweb.search"  # QIDO-RS
    retrieve_scope: Scope = "dicomweb.retrieve"  # WADO-RS


class Oidc(Issuer):
    """Login to the page by OpenID Connect: authorization code with PKCE."""

    client_id: Text
    client_secret: SecretRef | None = None  # unset: a public client, that PKCE alone vouches for
    page_url: Annotated[ServiceUrl, Field(min_length=1)]  # the page as browsers know it
    user_claim: Claim = "preferred_username"
    role_claim: Claim = "groups"
    operators: tuple[Text, ...] = ()  # values of the role claim: who has one may act ...
    viewers: tuple[Text, ...] = ()  # ... or look
    scopes: tuple[Scope, ...] = ("profile",)  # asked for besides "openid"

    @model_validator(mode="after")
    def _agrees(self) -> Oidc:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if not self.operators and not self.viewers:
            text = "neither operators nor viewers are named: nobody could log in by it"
            yield ("operators",), text
        if both := sorted({*self.operators} & {*self.viewers}):
            yield ("viewers",), f"{both[0]!r} stands in operators too"
        parts = urlsplit(self.page_url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            yield (
                ("page_url",),
                "logins must not travel in clear text: https, but on this machine alone",
            )
        if parts.path not in ("", "/"):
            yield ("page_url",), "the page has no path of its own: https://HOST or https://HOST:PORT"

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends browsers back to; it has to be registered there."""
        return f"{self.page_url.rstrip('/')}/login/oidc/back"
