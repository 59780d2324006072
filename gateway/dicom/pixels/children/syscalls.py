"""The system calls that a child may still make once it is confined, and the filter that lets no other pass (seccomp).

Reading, writing and mapping what is open already, memory, time, signals of its own, and ending. Everything else is
answered with EPERM: no file can be opened, no socket made, no process started, traced, read or signalled.
"""

from __future__ import annotations

import struct

# name: number on x86_64, on aarch64 (None: there is none). linux/arch/x86/entry/syscalls/syscall_64.tbl,
# linux/include/uapi/asm-generic/unistd.h
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "ppoll": (271, 73),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
# column above, AUDIT_ARCH_*, and the number of fcntl, of which one command may pass: Python's mmap copies a descriptor
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 72), "aarch64": (1, 0xC00000B7, 25)}
_COPY = 1030  # F_DUPFD_CLOEXEC

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets within struct seccomp_data, little endian
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050001  # kill the process; allow; errno EPERM


def filter_for(machine: str) -> bytes | None:
    """The BPF program as an array of struct sock_filter; None for a machine whose numbers are not known here."""
    if machine not in _ARCHITECTURES:
        return None
    column, architecture, fcntl = _ARCHITECTURES[machine]
    numbers = [number for numbers in _ALLOWED.values() if (number := numbers[column]) is not None]
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NUMBER)]
    for number in numbers:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program += [(_EQUAL, 0, 3, fcntl), (_LOAD, 0, 0, _SECOND_ARGUMENT), (_EQUAL, 0, 1, _COPY), (_RETURN, 0, 0, _ALLOW)]
    program += [(_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
