"""How long the demo waits for the gateway's queue: as long as something comes further."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.flow.selection import QueueEntry
from gateway.flow.store import DELIVERED, HELD

# Without one instance that comes further. A batch of large images takes a minute on two cores that have nothing else to
# do, and on busy ones has taken more than three.
STALLED_S = 900.0
LOOK_S = 0.2


def wait_for_delivery(
    look: Callable[[], Sequence[QueueEntry]],
    count: int,
    messages: Console,
    log: Path,
    stalled_s: float = STALLED_S,
) -> Sequence[QueueEntry]:
    """Look at the queue until `count` instances are delivered or held, and return what was seen last.

    Parameters
    ----------
    look
        gives the instances that count.
    count
        how many were sent.
    messages
        shows how far it is, and that nothing comes further.
    log
        named then.
    stalled_s
        seconds without any change of a state after which it ends.
    """
    seen, moved_at = Counter[str](), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task("marked and delivered", total=count)
        while True:
            entries = look()
            states = Counter(entry.state for entry in entries)
            done = states[DELIVERED] + states[HELD]
            if states != seen:
                seen, moved_at = states, time.monotonic()
                progress.update(task, completed=done)
            is_stalled = time.monotonic() - moved_at > stalled_s
            if is_stalled:
                messages.print(f"nothing has come further for {stalled_s:g} s: see {log}")
            if is_stalled or done >= count:
                return entries
            time.sleep(LOOK_S)
