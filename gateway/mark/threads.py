"""Frames on a CPU: as many at once as there are cores, each computed by one core alone.

Parts of one frame's work may be shared by a second set of threads: their results come in a fixed order.

Small networks gain little from a second core inside one convolution, and what a sum over two cores gives in its last
bit depends on how many there are. One core per frame is faster for a backlog, and a frame's stored values depend
neither on the number of cores nor on what else is marked beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

R = TypeVar("R")


class FrameThreads:
    """A pool of threads of which each gives PyTorch one core.

    Parameters
    ----------
    count
        threads; None: as many as PyTorch would use by itself (``OMP_NUM_THREADS`` is respected).
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = torch.get_num_threads() if count is None else count
        self._pool = ThreadPoolExecutor(self.count, "mark", _use_one_core)

    def map(self, function: Callable[..., R], *items: Sequence[object]) -> Iterator[R]:
        """Yield the function's results as ``map`` does, in order; an exception is raised where its result would be.

        A function that runs here must not map on the same threads: they could all be waiting.
        """
        return self._pool.map(function, *items)


def _use_one_core() -> None:
    torch.set_num_threads(1)  # holds for the calling thread
