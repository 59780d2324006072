"""What is to be known of identity providers, and of those who get notices and traces; nobody is asked here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config.duties import Role
from gateway.config.finding import Finding
from gateway.config.identity import Issuer
from gateway.config.lines import KeyPath
from gateway.config.models import Config
from gateway.config.notify import Mail, Notify, Webhook
from gateway.config.page import Page


def issuers(config: Config) -> Iterator[tuple[KeyPath, Issuer, tuple[Role, ...]]]:
    """Each table about an identity provider, and the roles that use it."""
    if config.page is not None and config.page.oidc is not None:
        yield ("page", "oidc"), config.page.oidc, ("page", "worker")
    if config.restore is not None and config.restore.tokens is not None:
        yield ("restore", "tokens"), config.restore.tokens, ("restore",)


def identity_findings(config: Config, role: Role) -> Iterator[Finding]:
    """Files that are not there, and a page that the provider could not send anybody back to."""
    for path, issuer, roles in issuers(config):
        if role not in ("all", *roles):
            continue
        for name in ("trust", "keys_file"):
            place: Path | None = getattr(issuer, name)
            if place is not None and not os.access(place, os.R_OK):
                hint = "a PEM file or folder of authorities" if name == "trust" else "a JWK set of the issuer"
                yield Finding("error", (*path, name), f"cannot read {place}", hint)
    if role in ("all", "page") and config.page is not None and config.page.oidc is not None:
        yield from _page(config.page)
    if config.traces is not None and find_spec("opentelemetry.sdk") is None:
        message = "the libraries of OpenTelemetry are not installed: nothing is traced"
        yield Finding("warning", ("traces",), message, "pip install 'miad-gateway[otel]', or take the table out")
    if role in ("all", "page") and config.notify is not None:
        yield from _notices(config.notify)


def _notices(notify: Notify) -> Iterator[Finding]:
    """Files that are not there, and what travels in clear text."""
    named: list[tuple[KeyPath, Mail | Webhook]] = [
        (("notify", "webhooks", index), one) for index, one in enumerate(notify.webhooks)
    ]
    if notify.mail is not None:
        named.append((("notify", "mail"), notify.mail))
    for path, one in named:
        if one.trust is not None and not os.access(one.trust, os.R_OK):
            yield Finding("error", (*path, "trust"), f"cannot read {one.trust}", "a PEM file or folder of authorities")
        if one.plain_statement:
            message = "names of routes and destinations, counts and reasons travel in clear text"
            yield Finding("warning", path, message, "use TLS as soon as the other side can")


def _page(page: Page) -> Iterator[Finding]:
    assert page.oidc is not None
    name = urlsplit(page.oidc.page_url).hostname or ""
    if name not in {one.lower() for one in (*page.names, page.host, "localhost", "127.0.0.1")}:
        message = f"browsers are sent back to {name}, and the page does not answer to that name"
        yield Finding("error", ("page", "oidc", "page_url"), message, f'names = ["{name}"] in [page]')
