"""What a child gives up before it looks at the first foreign byte; each step by itself, and told how far it went."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys

from gateway.dicom.pixels.children.syscalls import filter_for

NOBODY = 65534
_DUMPABLE, _NO_NEW_PRIVS, _SECCOMP, _FILTER = 4, 38, 22, 2  # prctl(2)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # landlock(7); these numbers are the same on every architecture
_ASK_VERSION = 1


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def confine(memory: int) -> dict[str, bool]:
    """Give up everything but computing.

    Parameters
    ----------
    memory
        Bytes of address space for this process, what it has already included.

    Returns
    -------
    dict
        What is in force: "no-new-privileges", "landlock" (no file, no TCP port, no foreign signal), "seccomp" (no
        system call but those of `gateway.dicom.pixels.children.syscalls`), "user" (one that owns nothing).
    """
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, memory)):
        most = resource.getrlimit(limit)[1]  # whoever started the role may allow less
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))
    done = {"user": _leave_root(), "no-new-privileges": False, "landlock": False, "seccomp": False}
    if sys.platform != "linux":
        return done
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    done["no-new-privileges"] = libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    done["landlock"] = _landlock(libc)
    done["seccomp"] = _seccomp(libc)
    return done


def _leave_root() -> bool:
    """Become a user that owns nothing; False where this process is not root and keeps the user that it has."""
    if os.getuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:  # root of a container that may not change its user
        return False
    return True


def _landlock(libc: ctypes.CDLL) -> bool:
    """Refuse every access that this kernel's Landlock knows; no rule gives any back."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # rename across folders, truncate, ioctl
    attributes = _RulesetAttributes((1 << rights) - 1, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        return libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> bool:
    program = filter_for(platform.machine())
    if program is None:
        return False
    filter_ = _SockFprog(len(program) // 8, program)
    return libc.prctl(_SECCOMP, _FILTER, ctypes.byref(filter_), 0, 0) == 0
