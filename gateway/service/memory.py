"""Memory of a role's process: how the C library hands it to many threads."""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
"""Arenas of a process. glibc gives a thread one of its own, up to eight a core, and what a thread frees in its arena no
other thread gets: memory then grows for hours, until each has been as full as its thread ever filled it."""
_M_ARENA_MAX = -8  # mallopt(3)


def keep_arenas_few() -> None:
    """Let threads share ``ARENAS`` arenas, unless MALLOC_ARENA_MAX says otherwise; with another C library do nothing.

    Holds for arenas that are not there yet: to be called before threads are.
    """
    libc = ctypes.CDLL(None)
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, ARENAS)
