"""Memory of a role's process: how threads share it, what of it is kept, and how soon what is dead is given back."""

from __future__ import annotations

import ctypes
import gc
import os

ARENAS = 2
"""Arenas of a process. glibc gives a thread one of its own, up to eight a core, and what a thread frees in its arena no
other thread gets: memory then grows until each has been as full as its thread ever filled it."""
KEPT = 32 << 20
"""Bytes at the end of an arena that may lie free, and of the largest block that is taken from one. What images are read
into is given back and wanted again at once; glibc hands it to the system and back, which clears it each time."""
_TUNED = (  # variable of the environment, glibc's tunable, parameter of mallopt(3), value
    ("MALLOC_ARENA_MAX", "glibc.malloc.arena_max", -8, ARENAS),
    ("MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold", -3, KEPT),
    ("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold", -1, KEPT),
)


def tune_malloc() -> None:
    """Let threads share ``ARENAS`` arenas, and these keep ``KEPT`` free bytes, unless glibc's own variables of the
    environment say otherwise; with another C library do nothing.

    Holds for arenas that are not there yet: to be called before threads are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        tunables = os.environ.get("GLIBC_TUNABLES", "")
        for variable, tunable, parameter, value in _TUNED:
            if variable not in os.environ and tunable not in tunables:
                libc.mallopt(parameter, value)


def leave_alone_what_is_there() -> None:
    """Let the garbage collector look no more at what a role has when it begins: modules, and what holds it together.

    It looks at all old objects only when a quarter as many wait to be looked at: with the hundreds of thousands that
    modules are, associations that ended, which refer to themselves, would wait for long.
    """
    gc.freeze()
    gc.collect()  # next to nothing is left to look at, from which it counts anew
