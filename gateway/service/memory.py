"""Memory of a role's process: how threads share it, and how soon what is dead is given back."""

from __future__ import annotations

import ctypes
import gc
import os

ARENAS = 2
"""Arenas of a process. glibc gives a thread one of its own, up to eight a core, and what a thread frees in its arena no
other thread gets: memory then grows until each has been as full as its thread ever filled it."""
_M_ARENA_MAX = -8  # mallopt(3)


def keep_arenas_few() -> None:
    """Let threads share ``ARENAS`` arenas, unless MALLOC_ARENA_MAX says otherwise; with another C library do nothing.

    Holds for arenas that are not there yet: to be called before threads are.
    """
    libc = ctypes.CDLL(None)
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, ARENAS)


def leave_alone_what_is_there() -> None:
    """Let the garbage collector look no more at what a role has when it begins: modules, and what holds it together.

    It looks at all old objects only when a quarter as many wait to be looked at: with the hundreds of thousands that
    modules are, associations that ended, which refer to themselves, would wait for long.
    """
    gc.freeze()
    gc.collect()  # next to nothing is left to look at, from which it counts anew
