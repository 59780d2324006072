"""Work on a list, several at a time, as long as it goes on well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(
    count: int,
    most: int,
    do: Callable[[int], Result],
    goes_on: Callable[[], bool],
    places: Callable[[], int] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Do it for 0, 1 … `count` - 1, begun in this order, and give each result as it ends.

    Parameters
    ----------
    most
        So many at a time at most.
    goes_on
        Asked before each but the first; from the first no on nothing more is begun, and what is at work ends.
    places
        How many at a time there is room for now; None: for `most`. Not asked where there is nothing to do.
    """
    if not count:
        return
    if most == 1 or count == 1:
        for number in range(count):
            if number and not goes_on():
                return
            yield number, do(number)
        return
    with ThreadPoolExecutor(most, thread_name_prefix="send") as pool:
        at_work: dict[Future[Result], int] = {}
        following = 0
        while True:
            room = most if places is None else max(1, min(most, places()))
            while following < count and len(at_work) < room and (following == 0 or goes_on()):
                at_work[pool.submit(do, following)] = following
                following += 1
            if not at_work:
                return
            for ended in wait(at_work, return_when=FIRST_COMPLETED).done:
                yield at_work.pop(ended), ended.result()
