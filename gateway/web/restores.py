"""Who got originals back, and who was refused: lines of the restore role's audit, those of one association together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.audit import events
from gateway.web import answers
from gateway.web.audit_tail import tail

LOOK_BACK = 4 << 20  # bytes of a log: some ten thousand lines
LOGS = ("restore", "operator")
TOLD = (
    events.ORIGINAL_RESTORED,
    events.RESTORE_REFUSED,
    events.RETRIEVE,
    events.NODE_REFUSED,
    events.ASSOCIATION_REFUSED,
    events.REQUEST_REFUSED,
    events.RECORD_CHANGED,
)
_ALIKE = ("log", "event", "outcome", "reason", "association_id", "calling_ae", "peer_address", "operation")


def restores(files: Mapping[str, Path], limit: int = 100) -> answers.Restores:
    """The newest restores and refusals; a retrieval of many instances is one line with their count."""
    found = tail({role: files[role] for role in LOGS if role in files}, 1 << 20, TOLD, LOOK_BACK)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in found.lines:
        if line["event"] == events.RETRIEVE and line["outcome"] == "success":
            continue  # its originals have lines of their own
        groups.setdefault(tuple(str(line.get(name, "")) for name in _ALIKE), []).append(line)
    lines = [_told(lines) for lines in list(groups.values())[:limit]]
    return answers.Restores(lines=lines, more=len(groups) > limit, closed=[one for one in found.closed if one in LOGS])


def _told(lines: list[Mapping[str, Any]]) -> answers.RestoreLine:
    """One line for all that differ in nothing but the instance; the newest stands first."""
    newest = lines[0]
    words = {name: str(newest[name]) if name in newest else None for name in _ALIKE}
    exact = [line["bit_exact"] for line in lines if "bit_exact" in line]
    uid = newest.get("sop_instance_uid")
    return answers.RestoreLine(
        **words,
        first=lines[-1]["time"],
        last=newest["time"],
        count=len(lines),
        bit_exact=all(exact) if exact else None,
        sop_instance_uid=uid if isinstance(uid, str) and len(lines) == 1 else None,
    )
