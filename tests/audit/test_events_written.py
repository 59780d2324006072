"""An event that is declared is written somewhere: one that nobody writes is a hole in the audit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gateway.audit import EVENTS, AuditLog, audited, events
from gateway.errors import CapacityError

GATEWAY = Path(events.__file__).parents[1]
DECLARED = {name: value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}


def named_in_source() -> set[str]:
    """Every `events.NAME` outside the module that declares them."""
    found = set()
    for path in GATEWAY.rglob("*.py"):
        if path != Path(events.__file__):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "events":
                    found.add(node.attr)
    return found


def test_every_declared_event_has_codes_and_is_written() -> None:
    assert set(DECLARED.values()) == set(EVENTS)
    assert DECLARED.keys() - named_in_source() == set()


def test_a_full_disk_is_told_as_what_it_is() -> None:
    with pytest.raises(CapacityError) as caught:
        audited(AuditLog(Path("/dev/full")), events.KEY_USED, "success", operation="restore")
    assert (caught.value.code, caught.value.hint) == ("audit-full", "make room, then do it again")


def test_after_a_torn_line_the_next_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.audit import log

    audit = AuditLog(tmp_path / "audit.jsonl")
    write = log.os.write
    monkeypatch.setattr(log.os, "write", lambda file, data: write(file, data[:20]))
    with pytest.raises(OSError, match="in part"):
        audit.write(events.SERVICE_START, "success", role="restore")
    monkeypatch.setattr(log.os, "write", write)
    audit.write(events.SERVICE_STOP, "success", role="restore")
    audit.write(events.SERVICE_START, "success", role="worker")
    torn, *whole = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(torn) == 20 and [line.count('"event"') for line in whole] == [1, 1]
