"""Role page: shows the flow. It holds no key, reads rows, certificates and audit lines, and listens for HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from fastapi import FastAPI
from sqlalchemy import Engine

from gateway import __version__
from gateway.audit import AuditLog
from gateway.config import Config, format_path
from gateway.config.duties import ROLES
from gateway.config.page import Page
from gateway.errors import ConfigError
from gateway.flow.notices import Ending
from gateway.keys.certificate_files import certificate_files, read_certificates, tls_tables
from gateway.network.presence import is_ours, listeners
from gateway.service.identity import provider_of
from gateway.service.notifying import Notifying
from gateway.service.places import page_database, places
from gateway.service.viewing import ViewClient, view_folder
from gateway.web.app import create_app
from gateway.web.server import PageServer
from gateway.web.sources import Certificate, Listener, Sources


class PageParts:
    """Builds what the role runs."""

    def __init__(self, config: Config, audit: AuditLog) -> None:
        self._opened = _Opened(config)

    def build(self, config: Config, before: PagePart | None) -> PagePart:
        """The page, whether or not the database answers."""
        if config.page is None:
            raise ConfigError("no-page", "the configuration has no [page] table", "add one, or do not start the role")
        sources, page = page_sources(config, self._opened), config.page
        app = create_app(sources)
        if before is not None and before.logins == _logins(page):  # who has logged in stays so
            app.state.sessions = before.app.state.sessions
        notifying = None
        if config.notify is not None:
            notifying = Notifying(config, self._opened, lambda: list(_endings(sources)), sources.audit)
        server = PageServer(app, page.host, page.port, before.server if before else None, app.state.refusals.sum_up)
        return PagePart(app, _logins(page), server, notifying)


class PagePart:
    """The server (`gateway.service.part`)."""

    def __init__(
        self, app: FastAPI, logins: tuple[object, ...], server: PageServer, notifying: Notifying | None = None
    ) -> None:
        self._notifying = notifying
        self.app = app
        self.logins = logins
        self.server = server

    def start(self) -> None:
        """Answer."""
        self.server.start()
        if self._notifying is not None:
            self._notifying.start()

    def pause(self) -> None:
        """Take no more requests."""
        self.server.pause()
        if self._notifying is not None:
            self._notifying.stop()

    def finish(self) -> None:
        """Finish the answers at hand."""
        if self._notifying is not None:
            self._notifying.stop()
        self.server.stop()
        self.app.state.refusals.sum_up(all_of_them=True)

    stop = discard = finish


def _logins(page: Page) -> tuple[object, ...]:
    """What of the table says who may log in, and for how long."""
    return page.users, page.session_minutes, page.oidc


def page_sources(config: Config, engine: Callable[[], Engine] | None = None) -> Sources:
    """What the page reads of one site; `engine` opens its database, by default anew."""
    where = places(config)
    return Sources(
        config=config,
        engine=engine or _Opened(config),
        audit_files={role: where.audit(role) for role in (*ROLES, "operator")},
        certificates=lambda: list(_certificates(config)),
        listeners=lambda: [Listener(str(path[0]), f"{h}:{p}", is_ours(h, p)) for path, h, p in listeners(config)],
        audit=AuditLog(where.audit("page")),
        version=__version__,
        sign_on=provider_of(config.page.oidc) if config.page and config.page.oidc else None,
        viewer=ViewClient(view_folder(config)) if config.page and config.page.viewer else None,
    )


def _endings(sources: Sources) -> Iterator[Ending]:
    """Our own certificates: those of authorities are renewed by others, who are told by their own."""
    for one in sources.certificates():
        if not one.where.endswith(".trust"):
            yield Ending(one.where, one.ends_at)


class _Opened:
    """The database, opened when somebody asks and it answers; then it stays open."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = page_database(self._config)
            return self._engine


def _certificates(config: Config) -> Iterator[Certificate]:
    for path, tls, _ in tls_tables(config, "all"):
        for name, files in (("certificate", [tls.certificate]), ("trust", certificate_files(tls.trust))):
            for certificate in (one for file in files for one in read_certificates(file)):
                yield Certificate(format_path((*path, name)), certificate.not_valid_after_utc.timestamp())
