"""Port numbers for programs that are told one before they listen.

Binding port 0 and letting it go again gives a number that the kernel gives away anew: to the next connection that
anybody makes, or to the other process of tests. The numbers here lie below the kernel's own, in blocks that one process
of tests holds at a time, and each is given once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_FIRST, _LAST, _BLOCK = 12_000, 60_000, 250
_lock = threading.Lock()
_held: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given but who asked."""
    with _lock:
        return next(port for port in _numbers if _is_free(port))


def _own_numbers() -> Iterator[int]:
    last = _LAST
    kernels = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if kernels.is_file() and (below := int(kernels.read_text().split()[0])) > _FIRST + 20 * _BLOCK:
        last = below
    for first in range(_FIRST, last - _BLOCK, _BLOCK):
        if _takes(first):
            yield from range(first, first + _BLOCK)
    raise AssertionError("no block of ports is left for this process of tests")


def _takes(first: int) -> bool:
    """Hold a block until this process ends, however that comes: an abstract name (unix(7)) is bound once."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0miad-tests-ports-{first}")
    except OSError:
        name.close()
        return False
    _held.append(name)
    return True


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:
        return False
    return True


_numbers = _own_numbers()
