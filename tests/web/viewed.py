"""The page with a worker's port for pictures behind it, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from starlette.testclient import TestClient

from gateway.audit import AuditLog
from gateway.flow.viewing import Viewing
from gateway.service.page import page_sources
from gateway.service.view_port import ViewPort, sessions_of
from gateway.service.viewing import view_folder
from gateway.web.app import create_app
from tests.web.conftest import Shown


def with_viewer(shown: Shown) -> Shown:
    """The same site, whose page wants pictures."""
    page = shown.config.page.model_copy(update={"viewer": True})
    config = shown.config.model_copy(update={"page": page})
    client = TestClient(create_app(page_sources(config)), base_url="http://localhost", follow_redirects=False)
    return Shown(shown.flow, config, client, shown.ids)


def port_of(shown: Shown, audit: AuditLog | None = None) -> ViewPort:
    """A worker's port, not bound yet."""
    context = shown.flow.context if audit is None else replace(shown.flow.context, audit=audit)
    viewing = Viewing(context, shown.flow.engine)
    return ViewPort(view_folder(shown.config), viewing, sessions_of(shown.config.page), context.audit)


@contextmanager
def answering(port: ViewPort, before: ViewPort | None = None) -> Iterator[ViewPort]:
    """The port at work."""
    port.bind(before)
    port.start()
    yield port
    port.stop()
