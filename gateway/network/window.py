"""The asynchronous operations window of one association (PS3.7 D.3.3.3): how many requests are finished side by side.

Without one (1, the default of the standard) a request is finished by the thread that has read it, and the next one is
read after that. With more, each is finished by a thread of the window, so that those of one association share a flush.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Window:
    """Finishes requests of one association.

    Parameters
    ----------
    most
        How many may be under way; one more waits for a place, and with it the thread that reads the socket.
    failed
        Called, in a thread of the window, when a request could not even be answered; without a window it raises.
    """

    def __init__(self, most: int = 1, failed: Callable[[Exception], None] = lambda _: None) -> None:
        self.most = most
        self._failed = failed
        self._changed = threading.Condition()
        self._under_way: list[str] = []
        self._pool = ThreadPoolExecutor(most, "window") if most > 1 else None

    def run(self, instance: str, finish: Callable[[], None]) -> None:
        """Finish a request; of one SOP instance they are finished one after the other, in the order they came in.

        Parameters
        ----------
        instance
            The SOP Instance UID that it is about.
        finish
            Finishes and answers it.
        """
        if self._pool is None:
            finish()
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._under_way) < self.most and instance not in self._under_way)
            self._under_way.append(instance)
        self._pool.submit(self._finish, instance, finish)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def end(self) -> None:
        """Wait until nothing is under way, and end the threads."""
        self.settle()
        if self._pool is not None:
            self._pool.shutdown()

    def _finish(self, instance: str, finish: Callable[[], None]) -> None:
        try:
            finish()
        except Exception as error:
            self._failed(error)
        finally:
            with self._changed:
                self._under_way.remove(instance)
                self._changed.notify_all()
