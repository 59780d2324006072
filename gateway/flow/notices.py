"""What is told to people elsewhere, and what was told already: a restart neither repeats nor forgets.

A channel (mail, a webhook) has a file of its own. A notice is written there before it is sent and taken out when the
other side has it, so that after a restart the same one goes again, under the same id.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine, func, select

from gateway.audit import AuditLog, audited, events
from gateway.database import DeliveryRow, InstanceRow, reading
from gateway.errors import GatewayError
from gateway.flow.spool import sync_folder
from gateway.flow.states import HELD

MOST = 10_000  # held instances that are told apart; of more only their number is known
NAMED = 5  # internal ids of each reason in a notice
DAY_S = 86_400.0
FIRST_S, LONGEST_S = 30.0, 3600.0  # between tries to send one

log = structlog.get_logger(__name__)
Notice = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """A certificate: where the configuration names it, and when it ends (seconds since 1970)."""

    where: str
    ends_at: float


@dataclass(frozen=True)
class HeldNow:
    """What is held: id -> (route, reason code), at most `MOST`; how many in all; the destinations of some."""

    known: Mapping[str, tuple[str, str]]
    count: int


class Channel(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """As the configuration names it: "mail", or that of a webhook."""

    def send(self, notice: Notice) -> None:
        """Tell; GatewayError when the other side does not have it."""


def held_now(engine: Engine) -> HeldNow:
    """Everything that is held at this moment; GatewayError while the database does not answer."""
    with reading(engine) as session:
        query = select(InstanceRow.id, InstanceRow.route, InstanceRow.reason_code).where(InstanceRow.state == HELD)
        rows = session.execute(query.order_by(InstanceRow.received_at.desc()).limit(MOST)).all()
        count = len(rows)
        if count == MOST:
            held = select(func.count()).select_from(InstanceRow).where(InstanceRow.state == HELD)
            count = session.scalar(held) or 0
    return HeldNow({one: (route, code or "") for one, route, code in rows}, count)


def destinations_of(engine: Engine, ids: Sequence[str]) -> dict[str, list[str]]:
    """Of instances that a destination did not take: which."""
    found: dict[str, list[str]] = defaultdict(list)
    with reading(engine) as session:
        for start in range(0, len(ids), 500):
            query = select(DeliveryRow.instance_id, DeliveryRow.destination).where(
                DeliveryRow.state == HELD, DeliveryRow.instance_id.in_(ids[start : start + 500])
            )
            for one, destination in session.execute(query):
                found[one].append(destination)
    return found


class Notices:
    """One channel: what it has to be told, and telling it.

    Parameters
    ----------
    file
        Its state; in a folder of this role's own.
    engine
        Opens the database, or gives the one that is open.
    endings
        The certificates that are watched.
    """

    def __init__(
        self,
        channel: Channel,
        site: str,
        file: Path,
        engine: Callable[[], Engine],
        endings: Callable[[], Sequence[Ending]],
        audit: AuditLog,
        interval_s: float = 3600.0,
        days: Sequence[int] = (30, 14, 7, 1),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._channel = channel
        self._site = site
        self._file = file
        self._engine = engine
        self._endings = endings
        self._audit = audit
        self._interval_s = interval_s
        self._days = sorted(days)
        self._clock = clock
        self._unkept: tuple[str, dict[str, Any]] | None = None  # a notice that was tried, and what is yet to be written

    def once(self) -> bool:
        """Look, and tell what is to be told; whether something was.

        Raises
        ------
        GatewayError
            The database does not answer, or the state cannot be kept: then nothing is sent.
        """
        with _Lock(self._file.with_suffix(".lock")) as mine:
            if not mine:
                return False  # another process is at it
            state = self._caught_up(_read(self._file))
            if state["outbox"] is None:
                self._compose(state)
            if state["outbox"] is None or self._clock() < state["next_at"] <= self._clock() + LONGEST_S:
                return False
            return self._send(state)

    def _caught_up(self, state: dict[str, Any]) -> dict[str, Any]:
        """With what could not be written after the last try: while it still cannot, nobody is told the same again."""
        if self._unkept is not None:
            tried, after = self._unkept
            if state["outbox"] is not None and state["outbox"]["id"] == tried:
                state = after
                _write(self._file, state)
            self._unkept = None
        return state

    def _compose(self, state: dict[str, Any]) -> None:
        now = self._clock()
        if 0 <= now - state["sent_at"] < self._interval_s:
            return
        held = held_now(self._engine())
        told = set(state["told"]) & set(held.known)  # what was released and is held again is news
        fresh = [one for one in held.known if one not in told]
        endings, certificates = self._ending(state["certificates"], now)
        if max(held.count, state["count"] - 1) >= MOST and held.count <= state["count"]:
            fresh, told = [], set(held.known)  # too many to be told apart now or before, and no more than before
        if not fresh and not endings:
            if sorted(told) != state["told"] or held.count != state["count"]:
                _write(self._file, {**state, "told": sorted(told), "count": held.count})
            return
        notice: Notice = {
            "version": 1,
            "id": secrets.token_hex(8),
            "kind": "notice",
            "site": self._site,
            "at": int(now),
            "held": _grouped(held, fresh, destinations_of(self._engine(), fresh)),
            "held_in_all": held.count,
            "certificates": endings,
        }
        state.update(
            outbox=notice, told=sorted(held.known), count=held.count, certificates=certificates, tries=0, next_at=0.0
        )
        _write(self._file, state)

    def _ending(self, told: Mapping[str, int], now: float) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Certificates that came below the next of the days, and what is told of them all."""
        due, known = [], {}
        for one in self._endings():
            left = (one.ends_at - now) / DAY_S
            below = next((days for days in self._days if left < days), None)
            if below is None:
                continue
            key = f"{one.where} {int(one.ends_at)}"
            if told.get(key, 1 << 20) > below:
                due.append({"where": one.where, "days_left": round(left, 1)})
            known[key] = below
        return due, known

    def _send(self, state: dict[str, Any]) -> bool:
        notice = state["outbox"]
        count = sum(one["count"] for one in notice["held"]) + len(notice["certificates"])
        facts = {"operation": self._channel.name, "request_id": notice["id"], "count": count}
        try:
            self._channel.send(notice)
        except GatewayError as error:
            state["tries"] += 1
            state["next_at"] = self._clock() + min(FIRST_S * 2 ** min(state["tries"] - 1, 20), LONGEST_S)
            self._unkept = notice["id"], state
            log.warning("notice not sent", channel=self._channel.name, reason=error.code, tries=state["tries"])
            audited(self._audit, events.NOTICE_SENT, "failure", reason=error.code, **facts)
            _write(self._file, state)
            self._unkept = None
            return False
        state.update(outbox=None, sent_at=self._clock(), tries=0, next_at=0.0)
        self._unkept = notice["id"], state
        audited(self._audit, events.NOTICE_SENT, "success", **facts)
        _write(self._file, state)
        self._unkept = None
        return True


def trial_notice(site: str) -> Notice:
    """What `miad-gateway notify test` sends."""
    return {
        "version": 1,
        "id": secrets.token_hex(8),
        "kind": "test",
        "site": site,
        "at": int(time.time()),
        "held": [],
        "held_in_all": 0,
        "certificates": [],
    }


def _grouped(held: HeldNow, fresh: Sequence[str], destinations: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in fresh:
        groups[held.known[one]].append(one)
    return [
        {
            "route": route,
            "reason": reason,
            "count": len(ids),
            "destinations": sorted({name for one in ids for name in destinations.get(one, ())}),
            "instances": ids[:NAMED],
        }
        for (route, reason), ids in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


class _Lock:
    """Held by one process at a time; entering says whether it is ours."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> bool:
        self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


_NOTHING: Mapping[str, Any] = {
    "told": [], "count": 0, "certificates": {}, "sent_at": 0.0, "outbox": None, "tries": 0, "next_at": 0.0,
}  # fmt: skip


_ANEW = "what was told already cannot be read: it is told anew"


def _read(file: Path) -> dict[str, Any]:
    """The state; as at the beginning where it cannot be read: rather told twice than not at all."""
    try:
        found = json.loads(file.read_text("utf-8"))
        if isinstance(found, dict) and _is_state(state := {**_NOTHING, **found}):
            return state
        log.warning(_ANEW)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError):
        log.warning(_ANEW)
    return dict(_NOTHING)


def _is_state(state: Mapping[str, Any]) -> bool:
    """Whether everything in it is of its kind, and its notice one that can be sent."""
    if not all(type(state[key]) is type(one) for key, one in _NOTHING.items() if key != "outbox"):
        return False
    if not all(isinstance(one, str) for one in state["told"]) or not 0 <= state["tries"] < 1 << 31:
        return False
    if not all(isinstance(one, int) for one in state["certificates"].values()):
        return False
    return state["outbox"] is None or _is_notice(state["outbox"])


def _is_notice(found: Any) -> bool:
    try:
        held = all(
            {type(one["route"]), type(one["reason"])} == {str}
            and type(one["count"]) is int
            and all(isinstance(name, str) for name in [*one["destinations"], *one["instances"]])
            for one in found["held"]
        )
        ending = all(isinstance(one["where"], str) and one["days_left"] < 1e6 for one in found["certificates"])
        words, numbers = (found["id"], found["site"], found["kind"]), (found["at"], found["held_in_all"])
        return held and ending and {*map(type, words)} == {str} and {*map(type, numbers)} == {int}
    except (TypeError, KeyError):
        return False


def _write(file: Path, state: Mapping[str, Any]) -> None:
    """Whole and on the disk, or not at all; GatewayError ``notices-not-kept``."""
    beside = file.with_suffix(".new")
    try:
        with open(beside, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            json.dump(state, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, file)
        sync_folder(file.parent)
    except OSError as error:
        raise GatewayError("notices-not-kept", f"cannot write beside the page's audit: {error.strerror}") from None
