"""Rules of fallback destinations: as trusted as the first, and never two ways to one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from gateway.config.base import Problem
from gateway.config.destination import Destination


class _Route(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def destinations(self) -> tuple[str, ...]: ...


def fallback_problems(routes: Sequence[_Route], destinations: Sequence[Destination]) -> Iterator[Problem]:
    """What is wrong with the fallbacks of a configuration."""
    known = {one.name: one for one in destinations}
    for index, first in enumerate(destinations):
        here = ("destinations", index, "fallback")
        if first.fallback is None or first.fallback == first.name:
            continue
        second = known.get(first.fallback)
        if second is None:
            yield here, f"no destination is named {first.fallback!r}"
        elif second.fallback is not None:
            yield here, f"{second.name} has a fallback itself: a copy goes to a second place, never to a third"
        elif second.type != first.type:
            yield here, f'{second.name} is "{second.type}" and {first.name} is "{first.type}": both must be the same'
        elif first.tls is not None and second.tls is None:
            yield here, f"{first.name} is reached by TLS and {second.name} is not: it is less safe a place"
    for index, route in enumerate(routes):
        taken = list(route.destinations)
        for position, name in enumerate(route.destinations):
            fallback = known[name].fallback if name in known else None
            if fallback is None:
                continue
            if fallback in taken:
                text = f"the fallback of {name} is {fallback}, where this route sends already, or as another fallback"
                yield ("routes", index, "destinations", position), text
            taken.append(fallback)
