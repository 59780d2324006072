"""CPU seconds and memory of the processes of one gateway, from /proc: what other work on the machine hardly moves."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(config: Path) -> dict[str, float]:
    """Role -> CPU seconds so far, with those of its children, of the gateway that runs with this configuration."""
    # its own, and those of children that have ended
    return _of_roles(config, lambda _, fields: sum(map(int, fields[11:15])) / TICK)


def cpu_of_one(process: int) -> float:
    """CPU seconds so far of one process that runs."""
    return sum(map(int, _stat(Path(f"/proc/{process}"))[11:13])) / TICK


def memory_of(config: Path) -> dict[str, int]:
    """Role -> bytes that its processes and their children hold of their own now (`RssAnon`), of the same gateway."""
    return {role: int(size) for role, size in _of_roles(config, _own_memory).items()}


def _stat(folder: Path) -> list[str]:
    """What stands behind the command's name, which may hold anything."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _own_memory(folder: Path, _: list[str]) -> float:
    lines = (folder / "status").read_text().splitlines()
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _of_roles(config: Path, reading: Callable[[Path, list[str]], float]) -> dict[str, float]:
    """Return role -> sum of a reading over its processes and their children."""
    children, read, roles = defaultdict(list), {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            fields = _stat(folder)
            value = reading(folder, fields)
        except OSError:  # it has ended
            continue
        process = int(folder.name)
        children[int(fields[1])].append(process)
        read[process] = value
        if str(config) in words and "--role" in words:
            roles[process] = words[words.index("--role") + 1]

    def all_of(process: int) -> float:
        return read[process] + sum(all_of(child) for child in children[process])

    found: dict[str, float] = defaultdict(float)
    for process, role in roles.items():
        found[role] += all_of(process)
    return dict(found)
