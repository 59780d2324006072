"""Fixtures of the network floor: an ingress with a receiver to look into, made objects, an audit to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.audit import AuditLog
from gateway.config.models import Ingress as IngressConfig
from gateway.config.models import Peer, Route
from gateway.errors import GatewayError
from gateway.flow.ports import ReceivedFacts, Requests
from gateway.network.admission import Counts
from gateway.network.ingress import IngressScp
from tests.support.network.certificates import Authority


class ReadableAudit(AuditLog):
    """An audit log whose lines a test can read back."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def lines(self, event: str | None = None) -> list[dict]:
        text = self.path.read_text() if self.path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if event in (None, line["event"])]


@dataclass
class Kept:
    """What the receiver made of one instance."""

    facts: ReceivedFacts
    data: bytes = b""
    state: str = "open"  # open, committed, aborted


class MemoryReceiver:
    """A Receiver that keeps everything in memory and fails where a test tells it to."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.fail_admit: Exception | None = None
        self.fail_begin: Exception | None = None
        self.fail_write_after: tuple[int, Exception] | None = None  # bytes
        self.fail_commit: Exception | None = None
        self.on_write: Callable[[], None] = lambda: None

    def admit(self, called_ae: str, calling_ae: str, sop_class_uid: str) -> None:
        if self.fail_admit:
            raise self.fail_admit

    def begin(self, received: ReceivedFacts) -> _MemoryIncoming:
        if self.fail_begin:
            raise self.fail_begin
        self.kept.append(Kept(received))
        return _MemoryIncoming(self, self.kept[-1])

    @property
    def committed(self) -> dict[str, bytes]:
        return {k.facts.sop_instance_uid: k.data for k in self.kept if k.state == "committed"}


class _MemoryIncoming:
    def __init__(self, receiver: MemoryReceiver, kept: Kept) -> None:
        self._receiver = receiver
        self._kept = kept

    def write(self, data: bytes | memoryview) -> None:
        assert isinstance(data, bytes | memoryview) and self._kept.state == "open"
        self._receiver.on_write()
        limit = self._receiver.fail_write_after
        if limit and len(self._kept.data) + len(data) > limit[0]:
            raise limit[1]
        self._kept.data += data

    def commit(self) -> str:
        if self._receiver.fail_commit:
            raise self._receiver.fail_commit
        self._kept.state = "committed"
        return "instance"

    def abort(self) -> None:
        self._kept.state = "aborted"


@pytest.fixture
def audit(tmp_path: Path) -> ReadableAudit:
    return ReadableAudit(tmp_path / "audit.jsonl")


@pytest.fixture
def receiver() -> MemoryReceiver:
    return MemoryReceiver()


@pytest.fixture
def start_ingress(audit: ReadableAudit, receiver: MemoryReceiver) -> Iterator[Callable[..., IngressScp]]:
    """Start an ingress on a free port; keyword arguments but these two go into its configuration."""
    started: list[IngressScp] = []

    def start(counts: Counts | None = None, requests: Requests | None = None, **settings: object) -> IngressScp:
        settings.setdefault("peers", (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",)),))
        settings.setdefault("idle_timeout_s", 30)
        settings.setdefault("handshake_timeout_s", 5)
        # The port 0, any free one, is for tests only: the model asks for a number that a peer can be told.
        config = IngressConfig(**settings).model_copy(update={"port": 0})
        routes = [Route(name=n.lower(), called_ae=n, destinations=("outside",)) for n in ("GATEWAY", "GATEWAY2")]
        ingress = IngressScp(config, routes, receiver, audit, counts=counts, requests=requests)
        ingress.start()
        started.append(ingress)
        return ingress

    yield start
    for ingress in started:
        ingress.stop(drain_s=0.5)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def full_disk() -> GatewayError:
    from gateway.errors import CapacityError

    return CapacityError("disk-full", "no space left in the spool")
