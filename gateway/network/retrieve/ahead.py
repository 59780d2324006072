"""Opens and verifies the next originals of a retrieval while the one before them is on its way.

Decrypting, decompressing and hashing leave the interpreter's lock, so this takes no time from sending. What is ready
waits in memory that `gateway.restore` bounds; at most `AHEAD` originals are ready or in the making, two where they are
large. Records are looked up there as well, before the last of those that were looked up is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Self

from gateway.errors import GatewayError
from gateway.network.retrieve.session import Restorer
from gateway.network.retrieve.suboperations import Original, Planned

AHEAD = 4  # so that what takes long now and then (a flush, a large one) does not hold up those behind it
AT_LEAST = 2
AT_ONCE = 2  # in the making: one alone leaves a core idle while the receiver waits for it
LARGE = 4 << 20  # bytes of those ahead, beyond which no more than `AT_LEAST` are
LOOKED_UP = 32  # records in one statement: what is sent was looked at a moment ago
_RUNNING_LOW = 4  # of those that were looked up


class Ready:
    """One original that is being verified, or why there is none. Close it, or use it in a `with` block."""

    def __init__(self, original: Original, verified: Future[None]) -> None:
        self.original = original
        self._verified = verified

    @property
    def is_verified(self) -> bool:
        """Whether nothing has to be waited for."""
        return self._verified.done()

    def verify(self) -> None:
        """Wait until it was verified; raises what `Original.verify` raises."""
        self._verified.result()

    def close(self) -> None:
        """Close the original, once nobody works at it any more; that is not waited for."""
        self._verified.cancel()
        self._verified.add_done_callback(lambda _: self.original.__exit__(None, None, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Ahead:
    """The originals of a plan, one after the other. For one thread; use it in a `with` block.

    Parameters
    ----------
    planned
        In the order in which they are taken.
    """

    def __init__(self, restorer: Restorer, planned: Iterable[Planned]) -> None:
        self._restorer = restorer
        self._left = iter(planned)
        self._found: deque[Original | GatewayError] = deque()  # looked up, and not begun
        self._coming: Future[list[Original | GatewayError]] | None = None  # being looked up
        self._begun: deque[Ready | GatewayError] = deque()
        self._pool = ThreadPoolExecutor(AT_ONCE, "verify")

    def take(self) -> Ready:
        """The next one of the plan.

        Raises
        ------
        GatewayError
            As `Restorer.by_locator`: it cannot be restored for certain. The one after it may be.
        """
        self._begin()
        one = self._begun.popleft()
        self._begin()
        if isinstance(one, GatewayError):
            raise one
        return one

    @property
    def is_ready(self) -> bool:
        """Whether the next one has not to be waited for."""
        one = self._begun[0] if self._begun else None
        return isinstance(one, GatewayError) or (one is not None and one.is_verified)

    def _begin(self) -> None:
        while len(self._begun) < AHEAD and (self._found or self._has_more()):
            original = self._found[0]
            if isinstance(original, GatewayError):
                self._begun.append(original)
            elif self._has_room(original):
                self._begun.append(Ready(original, self._pool.submit(original.verify)))
            else:
                break
            self._found.popleft()
        if len(self._found) <= _RUNNING_LOW:
            self._look_further()

    def _has_room(self, original: Original) -> bool:
        sizes = [one.original.size for one in self._begun if isinstance(one, Ready)]
        return len(sizes) < AT_LEAST or sum(sizes) + original.size <= LARGE

    def _has_more(self) -> bool:
        """Wait for what is being looked up; whether that was anything."""
        self._look_further()
        if self._coming is not None:
            coming, self._coming = self._coming, None
            self._found.extend(coming.result())
        return bool(self._found)

    def _look_further(self) -> None:
        if self._coming is None:
            locators = [planned.locator for planned in islice(self._left, LOOKED_UP)]
            if locators:
                self._coming = self._pool.submit(self._look_up, locators)

    def _look_up(self, locators: list[str]) -> list[Original | GatewayError]:
        try:
            found = self._restorer.by_locators(locators)
        except GatewayError as error:  # of the database, or of the list: of each of them nothing is certain
            return [error] * len(locators)
        return [found[locator] for locator in locators]

    def __enter__(self) -> Self:
        self._look_further()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for one in self._begun:
            if isinstance(one, Ready):
                one.close()
        for original in self._found:  # those that are being looked up hold nothing yet
            if not isinstance(original, GatewayError):
                original.__exit__(None, None, None)
