"""Hardening: the rights that a role's process gives up before it reads a key."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4  # prctl(2)


def forbid_core_dumps() -> None:
    """No crash writes this process's memory to a disk, and no other process of its user may read it (ptrace(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variables(names: Iterable[str]) -> None:
    """Take secrets that are none of this role's business out of its environment, and so out of its children's.

    Their values are blotted out where they lie: unset alone leaves them in the process's memory, as
    ``/proc/PID/environ`` shows.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in names:
        if value := libc.getenv(os.fsencode(name)):
            ctypes.memset(value, 0, len(ctypes.string_at(value)))
        os.environ.pop(name, None)
