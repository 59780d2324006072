"""Waiting for a condition: as long as a loaded machine may need, and not a moment longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

WITHIN_S = 50.0  # less than a test has (pyproject.toml): what did not come is told by name


def until(what: str, is_so: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Return as soon as `is_so` says yes.

    Raises
    ------
    AssertionError
        "`what`" did not come to be in time.
    """
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s, and not: {what}"
        time.sleep(0.01)
