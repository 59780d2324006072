"""Work on a list, several at a time, as long as it goes on well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(
    count: int, at_a_time: int, do: Callable[[int], Result], goes_on: Callable[[], bool]
) -> Iterator[tuple[int, Result]]:
    """Do it for 0, 1 … `count` - 1, begun in this order, and give each result as it ends.

    goes_on: asked before each but the first; from the first no on nothing more is begun, and what is at work ends.
    """
    if at_a_time == 1 or count == 1:
        for number in range(count):
            if number and not goes_on():
                return
            yield number, do(number)
        return
    with ThreadPoolExecutor(at_a_time, thread_name_prefix="send") as pool:
        at_work: dict[Future[Result], int] = {}
        following = 0
        while True:
            while following < count and len(at_work) < at_a_time and (following == 0 or goes_on()):
                at_work[pool.submit(do, following)] = following
                following += 1
            if not at_work:
                return
            for ended in wait(at_work, return_when=FIRST_COMPLETED).done:
                yield at_work.pop(ended), ended.result()
