"""The restore role's look at new records: it goes on, whatever is full or away."""

from __future__ import annotations

import threading
from pathlib import Path

from gateway.audit import AuditLog, events
from gateway.errors import IntegrityError
from gateway.service import restore


class Watch:
    """Finds a changed record each time, and ends the test after some."""

    def __init__(self, stopping: threading.Event) -> None:
        self.looks = 0
        self._stopping = stopping

    def once(self) -> int:
        self.looks += 1
        if self.looks == 3:
            self._stopping.set()
        raise IntegrityError("record-changed", "record x is not what it was")


def run(audit: AuditLog, monkeypatch) -> Watch:
    monkeypatch.setattr(restore, "WATCH_S", 0.01)
    stopping = threading.Event()
    watch = Watch(stopping)
    thread = threading.Thread(target=restore._watch, args=(watch, audit, stopping), daemon=True)
    thread.start()
    thread.join(50)
    assert not thread.is_alive()
    return watch


def test_a_full_audit_does_not_end_the_watch(monkeypatch):
    assert run(AuditLog(Path("/dev/full")), monkeypatch).looks == 3


def test_the_first_look_is_at_once_and_each_change_is_told(monkeypatch, tmp_path):
    path = tmp_path / "audit.jsonl"
    assert run(AuditLog(path), monkeypatch).looks == 3
    assert path.read_text().count(f'"event":"{events.RECORD_CHANGED}"') == 3
