"""A flush that fails ends the ingress: who waits is told to come again, and the supervisor starts another process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gateway.audit import events
from gateway.config import Source
from gateway.database import InstanceRow, reading
from gateway.errors import DeliveryError, TransientError
from gateway.keys.keyring import load_spool_cipher
from gateway.network.scu import Peer, ScuAssociation
from gateway.service import database
from gateway.service.spools import received_spool
from gateway.service.supervisor import Supervisor
from tests.conftest import REPOSITORY
from tests.support.failing_flush import VARIABLE
from tests.support.network.samples import CT, EXPLICIT, ct
from tests.support.reloading import TOML, Site
from tests.support.until import until

ENDED = "role ended, starting it again"


class Supervised:
    """The ingress of a site under the real supervisor, whose disk fails once where `order` says so."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, text=TOML.replace("port = {port}\n", "port = {port}\nmin_free_mib = 0\n", 1))
        self.order = folder / "order"
        self.told: list[structlog.typing.EventDict] = []
        words = ["-m", "tests.support.failing_flush", "serve", "--role", "ingress", "--config", str(self.site.file)]
        environment = {**os.environ, VARIABLE: str(self.order), "PYTHONPATH": str(REPOSITORY)}
        self.supervisor = Supervisor(
            self.site.file,
            {"ingress": environment},
            lambda role: [sys.executable, *words],
            Source.read(self.site.file),
        )
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = self.supervisor.run()

    @property
    def process(self) -> int:
        """Its number."""
        process = self.supervisor._children["ingress"].process
        assert process is not None
        return process.pid

    def associate(self) -> ScuAssociation:
        """With the ingress that is there, or the next one."""
        found: list[ScuAssociation] = []

        def try_it() -> bool:
            try:
                peer = Peer("127.0.0.1", self.site.port, "RELAY", "ARCHIVE", response_timeout_s=40)
                found.append(ScuAssociation(peer, [(CT, EXPLICIT)]))
            except DeliveryError:
                return False
            return True

        until("the ingress takes an association", try_it)
        return found[0]

    def kept(self) -> dict[str, bytes]:
        """SOP Instance UID -> data set of everything that has a row."""
        config = Source.read(self.site.file).parse()
        spool = received_spool(config, load_spool_cipher(config.keys))
        found = {}
        with reading(database(config)) as session:
            for row in session.query(InstanceRow):
                assert row.spool_file is not None
                with spool.open(row.spool_file) as file:
                    found[row.sop_instance_uid] = file.read()
        return found

    def end(self) -> int | None:
        self.supervisor._stopping.set()
        self._thread.join(50)
        return self.code


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervised]:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    with structlog.testing.capture_logs() as told:
        supervised = Supervised(tmp_path / "site")
        supervised.told = told
        yield supervised
        supervised.end()


def store(association: ScuAssociation, image: tuple[str, bytes]) -> tuple[int, str]:
    answer = association.store(CT, image[0], EXPLICIT, io.BytesIO(image[1]))
    return answer.status, answer.comment


@pytest.mark.full  # the role starts twice; in one process: tests/flow/test_segments.py
def test_a_failed_flush_ends_the_ingress_and_nothing_acknowledged_is_lost(supervised: Supervised) -> None:
    images = [ct(16) for _ in range(4)]
    before, in_flight, after, late = images
    association, idle = supervised.associate(), supervised.associate()
    assert store(association, before) == (0, "")
    first = supervised.process
    supervised.order.touch()
    status, comment = store(association, in_flight)
    assert status == 0xA700 and comment.startswith("flush-failed: "), comment
    assert not supervised.order.exists()
    with contextlib.suppress(TransientError, OSError):  # it may be gone by now; while it is there it takes nothing
        assert store(idle, late)[0] == 0xA700
    for one in (association, idle):
        one.abort()
    until("the process has ended", lambda: [line for line in supervised.told if line["event"] == ENDED])
    [line] = [line for line in supervised.told if line["event"] == ENDED]
    assert (line["role"], line["exit_code"]) == ("ingress", 1)
    anew = supervised.associate()
    assert supervised.process != first
    assert before[0] in supervised.kept() and not {in_flight[0], late[0]} & supervised.kept().keys()
    for image in (in_flight, after, late):
        assert store(anew, image) == (0, "")
    anew.release()
    assert supervised.end() == 0
    assert supervised.kept() == dict(images)
    refused = supervised.site.audited("ingress", events.INSTANCE_REFUSED)
    assert {(line["reason"], line["status"]) for line in refused} <= {
        ("flush-failed", "0xA700"),
        ("stopping", "0xA700"),
        ("aborted-mid-object", "0x0110"),
    }
    assert len(supervised.site.audited("ingress", events.SERVICE_START)) == 2
