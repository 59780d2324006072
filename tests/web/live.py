"""The page as a real server, with a worker's side that does what is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.service.page import page_sources
from gateway.service.wiring import build_requested
from gateway.web.app import create_app
from gateway.web.server import PageServer
from tests.web.conftest import Shown


@contextmanager
def served(shown: Shown, port: int = 0) -> Iterator[str]:
    """The address of the page; requests are looked at five times a second."""
    server = PageServer(create_app(page_sources(shown.config)), "127.0.0.1", port)
    server.start()
    done = threading.Event()
    requested = build_requested(shown.config, shown.flow.engine, shown.flow.store, shown.flow.context.audit)

    def work() -> None:
        while not done.wait(0.2):
            requested.once()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    yield f"http://127.0.0.1:{server.port}"
    done.set()
    worker.join()
    server.stop()
