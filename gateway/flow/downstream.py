"""Success only when all destinations have it: routes with `ack = "downstream"`.

The instance is made durable first, as on every route. Then its association waits until it is delivered everywhere; when
that takes too long, or it is held, the answer is 0xA700 and it stays queued. What the archive sends again after that is
recognised by route, UID and digest: it waits for the instance that is there, and nothing goes out twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.config.models import Route
from gateway.errors import CapacityError
from gateway.flow.states import DELIVERED, DISCARDED, HELD
from gateway.flow.store import FlowStore

LOOK_S = 0.1  # between two looks at the row
ROW_S = 10.0  # for the row of an instance, which follows its flush
RESENT_S = 86_400.0  # what was delivered so long ago and comes again is meant to go out again

Key = tuple[str, str, str]  # route, SOP Instance UID, SHA-256


class Downstream:
    """Waits for deliveries on behalf of associations. Safe for any number of threads."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._taken: dict[Key, threading.Lock] = {}
        self._users: dict[Key, int] = {}

    def end(self) -> None:
        """Let nobody wait any longer: who does is told to try again."""
        self._ended.set()

    def commit(self, route: Route, sop_instance_uid: str, sha256: str, add: Callable[[], str]) -> str:
        """Make an instance durable, unless it is there already, and wait until it is delivered; gives its id.

        Raises
        ------
        CapacityError
            ``not-delivered-yet``, ``held``, ``discarded``, ``rows-behind``: it is kept, and may be sent again;
            ``busy-elsewhere``: another process of the role takes the same instance; and whatever `add` and the database
            raise.
        """
        deadline = time.monotonic() + route.ack_within_s
        key = (route.name, sop_instance_uid, sha256)
        with self._alone(key), self._store.alone.hold(" ".join(key), ROW_S):
            known = self._store.arrived(route.name, sop_instance_uid, sha256, time.time() - RESENT_S)
            instance_id = known or add()
            state = self._wait_for_row(instance_id)
        while state != DELIVERED:
            if state in (HELD, DISCARDED):
                raise CapacityError(state, f"kept, and {state} by the gateway", "see `miad-gateway queue ls`")
            left = deadline - time.monotonic()
            if left <= 0 or self._ended.is_set():
                where = ", ".join(route.destinations)
                raise CapacityError("not-delivered-yet", f"queued for {where}", "send it again later")
            self._ended.wait(min(LOOK_S, left))
            state = self._store.state_of(instance_id)
        return instance_id

    def _wait_for_row(self, instance_id: str) -> str | None:
        """The state of an instance once it has its row: before that nobody would recognise it."""
        deadline = time.monotonic() + ROW_S
        while (state := self._store.state_of(instance_id)) is None:
            if time.monotonic() >= deadline or self._ended.wait(LOOK_S / 10):
                raise CapacityError("rows-behind", "received instances wait for their rows in the database")
        return state

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Of the same instance on two associations the second finds what the first has made; over processes, `hold`."""
        with self._lock:
            own = self._taken.setdefault(key, threading.Lock())
            self._users[key] = self._users.get(key, 0) + 1
        try:
            with own:
                yield
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._taken[key]
