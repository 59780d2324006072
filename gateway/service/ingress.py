"""Role ingress: C-STORE SCP to spool. It holds the spool key and no other secret."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from gateway.audit import AuditLog
from gateway.config import Config
from gateway.database import Wakes, open_wakes
from gateway.errors import ConfigError, GatewayError
from gateway.service.places import database, places
from gateway.service.spools import received_spool

if TYPE_CHECKING:
    from gateway.flow.receive import SpoolReceiver
    from gateway.network.ingress import IngressScp
    from gateway.network.stow import IngressWeb


class IngressParts:
    """Builds what the role runs; what outlives a reload is held here."""

    def __init__(self, config: Config, audit: AuditLog) -> None:
        from gateway.network.admission import SharedCounts

        self._audit = audit
        self._engine = database(config)
        self._counts = SharedCounts(places(config).counts("ingress"))

    def build(self, config: Config, before: IngressPart | None) -> IngressPart:
        """The SCP that faces the archive; the first one also takes over what dead processes left in the spool."""
        from gateway.config.commitment import Commitment
        from gateway.flow.durability import durability_of
        from gateway.flow.promises import RequestBook
        from gateway.flow.receive import SpoolReceiver
        from gateway.flow.store import FlowStore, lease_owner
        from gateway.keys.keyring import load_spool_cipher
        from gateway.network.ingress import IngressScp

        if not config.routes:
            raise ConfigError("no-route", "the configuration has no [[routes]]: nothing could be received", "add one")
        spool = received_spool(config, load_spool_cipher(config.keys))
        wakes = open_wakes(self._engine)
        store = FlowStore(self._engine, lease_owner(), wakes)
        if before is None:
            durability_of(spool, store).take_over()
        receiver = SpoolReceiver(config.ingress, config.routes, spool, store, failed=_end_soon)
        try:
            requests = RequestBook(self._engine, config.commitment or Commitment())
            scp = IngressScp(
                config.ingress, config.routes, receiver, self._audit, counts=self._counts, requests=requests
            )
            web = self._web(config, receiver)
            scp.bind(before.scp if before else None)
            try:
                if web is not None:
                    web.bind(before.web if before else None)
            except BaseException:
                scp.pause()
                raise
        except BaseException:
            receiver.close()
            wakes.close()
            raise
        return IngressPart(scp, receiver, wakes, web)

    def _web(self, config: Config, receiver: SpoolReceiver) -> IngressWeb | None:
        from gateway.network.stow import IngressWeb

        if config.ingress.dicomweb_port is None:
            return None
        return IngressWeb(config.ingress, config.routes, receiver, self._audit, self._counts)


class IngressPart:
    """The ports, and the receiver behind it (`gateway.service.part`)."""

    def __init__(self, scp: IngressScp, receiver: SpoolReceiver, wakes: Wakes, web: IngressWeb | None = None) -> None:
        self.scp = scp
        self.web = web
        self._ports: list[IngressScp | IngressWeb] = [scp, *([web] if web else [])]
        self._receiver = receiver
        self._wakes = wakes

    def start(self) -> None:
        """Accept connections."""
        for port in self._ports:
            port.start()

    def pause(self) -> None:
        """Accept no more of them."""
        for port in self._ports:
            port.pause()

    def finish(self) -> None:
        """Let every association come to its end."""
        for port in self._ports:
            port.finish()
        self.discard()

    def stop(self) -> None:
        """Give associations a few seconds; raises when the spool's disk did not take a flush."""
        self._receiver.hurry()
        for port in self._ports:
            port.stop()
        self._receiver.close()
        self._wakes.close()
        if self._receiver.failed:
            raise GatewayError("flush-failed", "the disk of the spool did not take a flush", "look at the disk")

    def discard(self) -> None:
        """Close ports and segment."""
        self.pause()
        self._receiver.close()
        self._wakes.close()


def _end_soon() -> None:
    """Ask this process to end in order, once those who wait for an answer have had theirs."""
    os.kill(os.getpid(), signal.SIGTERM)
