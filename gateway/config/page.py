"""The configuration's table [page]: the status page and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config.base import Host, Model, Port, url_or_reference
from gateway.config.identity import Oidc


class Page(Model):
    """The role that shows the flow in a browser; it listens on this machine alone unless told otherwise.

    It speaks HTTP: whoever lets it out of the machine puts a reverse proxy with TLS before it, or tunnels.
    """

    host: Host = "127.0.0.1"
    port: Port = 8480
    names: tuple[Host, ...] = ()  # host names that browsers may ask for it by, as a reverse proxy's
    view: Literal["anyone", "login"] = "anyone"  # who may look; to act always takes a login
    users: Path = Path("page-users")  # made by `miad-gateway page user add`; without it nobody can act
    session_minutes: Annotated[float, Field(ge=1, le=1440)] = 30  # without a click, then one has to log in again
    oidc: Oidc | None = None  # login by the site's identity provider, besides local accounts
    viewer: bool = False  # pictures before and after the mark, for operators: pixels may hold burned-in names
    database_url: Annotated[str, AfterValidator(url_or_reference)] = ""  # an account of its own; empty: [database] url
