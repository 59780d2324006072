"""Puts the channels of [notify] together, and runs each in a thread of role page: it holds no key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from sqlalchemy import Engine

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.errors import GatewayError, fault
from gateway.flow.notices import Channel, Ending, Notices
from gateway.network.notifying import MailChannel, WebhookChannel
from gateway.service.places import places

LOOK_S = 15.0

log = structlog.get_logger(__name__)


def channels_of(config: Config) -> list[Channel]:
    """Mail and webhooks of the configuration. ConfigError: a `trust` cannot be used."""
    found: list[Channel] = []
    if config.notify is None:
        return found
    if (mail := config.notify.mail) is not None:
        found.append(MailChannel(mail, mail.password.resolve if mail.password is not None else None))
    return found + [WebhookChannel(one, one.secret.resolve) for one in config.notify.webhooks]


class Notifying:
    """Every channel in a thread of its own, so that none waits for another."""

    def __init__(
        self,
        config: Config,
        engine: Callable[[], Engine],
        endings: Callable[[], Sequence[Ending]],
        audit: AuditLog,
        look_s: float = LOOK_S,
    ) -> None:
        self._look_s = look_s
        self._stopped = threading.Event()
        self._notices = []
        for one in channels_of(config):
            assert config.notify is not None
            self._notices.append(
                Notices(
                    one,
                    config.site.name,
                    state_file(config, one.name),
                    engine,
                    endings,
                    audit,
                    config.notify.interval_minutes * 60,
                    config.notify.certificate_days,
                )
            )

    def start(self) -> None:
        """Begin to look."""
        for one in self._notices:
            threading.Thread(target=self._run, args=(one,), name="notices", daemon=True).start()

    def stop(self) -> None:
        """Look no more; what is being sent is sent to its end, or again after the next start."""
        self._stopped.set()

    def _run(self, notices: Notices) -> None:
        last = ""
        while not self._stopped.is_set():
            try:
                notices.once()
                last = ""
            except Exception as error:  # the database may be away for a while: go on when it is not
                now = error.code if isinstance(error, GatewayError) else fault(error)
                if now != last:
                    log.error("notices wait", fault=now)
                last = now
            self._stopped.wait(self._look_s)


def state_file(config: Config, channel: str) -> Path:
    """Where a channel's state lies: beside the page's audit, in a folder that is its own where users are separate."""
    return places(config).audit("page").with_name(f"notified-{channel}.json")
