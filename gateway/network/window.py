"""The asynchronous operations window of one association (PS3.7 D.3.3.3): how many requests are finished side by side.

What is agreed on is the same from either side; of what we ask for, `gateway.network.outstanding` keeps account.

Without one (1, the default of the standard) a request is finished by the thread that has read it, and the next one is
read after that. With more, each is finished by a thread of the window, so that those of one association share a flush.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def agreed(ours: int, theirs: int) -> int:
    """How many operations may be under way, of what each side can; 0 of theirs: it sets no limit."""
    return min(theirs or ours, ours)


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
        self._work: queue.SimpleQueue[tuple[str, Callable[[], None]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, instance: str, finish: Callable[[], None]) -> None:
        """Finish a request; of one SOP instance they are finished one after the other, in the order they came in.

        Parameters
        ----------
        instance
            The SOP Instance UID that it is about.
        finish
            Finishes and answers it.
        """
        if self.most == 1:
            finish()
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._under_way) < self.most and instance not in self._under_way)
            self._under_way.append(instance)
            is_short = len(self._under_way) > len(self._threads)
        if is_short and not self._has_one_more() and not self._threads:
            self._finish(instance, finish)
        else:
            self._work.put((instance, finish))

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        with self._changed:
            return bool(self._under_way)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def end(self) -> None:
        """Wait until nothing is under way, and end the threads."""
        self.settle()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _has_one_more(self) -> bool:
        """Start a thread; not where the system has none left: then those that are there do it all."""
        # A daemon, unlike those of concurrent.futures: a commit that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._serve, name="window", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._threads.append(thread)
        return True

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            self._finish(*work)

    def _finish(self, instance: str, finish: Callable[[], None]) -> None:
        try:
            finish()
        except Exception as error:
            self._failed(error)
        finally:
            with self._changed:
                self._under_way.remove(instance)
                self._changed.notify_all()
