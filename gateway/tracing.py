"""Spans of what happens to an instance, for whoever collects traces (OpenTelemetry); off until `send_to` is called.

The trace of an instance is its internal id, which is random and of a trace id's length: every process that has the
instance at hand adds to the same trace, and nothing has to travel between them. Its first span, of the receipt, has an
id that all can derive, so that theirs lie below it. Attributes are names of routes and destinations, counts and codes;
no UID, no AE title, nothing of a patient (architecture, promise 7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.errors import GatewayError

FIRST = "receive"
Value = str | int | float | bool


@dataclass
class Span:
    """One step of one instance, between two moments (ns since 1970). failed: code of the error that ended it."""

    name: str
    instance_id: str
    begun: int
    ended: int = 0
    failed: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)


_sink: Callable[[Span], None] | None = None


def send_to(sink: Callable[[Span], None] | None) -> None:
    """Where spans of this process go from now on; None: nowhere."""
    global _sink
    _sink = sink


def is_on() -> bool:
    """Whether anybody collects."""
    return _sink is not None


def now() -> int:
    """The moment, where somebody collects."""
    return time.time_ns() if _sink is not None else 0


def add(name: str, instance_id: str, begun: int, attributes: Mapping[str, Value], failed: str = "") -> None:
    """A span that ends now and began at a moment of `now`."""
    if _sink is not None and begun:
        ended = max(begun, time.time_ns())  # the clock may have been set back meanwhile
        _sink(Span(name, instance_id, begun, ended, failed, attributes))


@contextmanager
def span(name: str, instance_id: str, **attributes: Value) -> Iterator[None]:
    """Around one step of one instance."""
    begun = now()
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, GatewayError) else type(error).__name__
        add(name, instance_id, begun, attributes, code)
        raise
    add(name, instance_id, begun, attributes)
