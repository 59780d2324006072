"""CPU seconds of the processes of one gateway, from /proc: a figure that other work on the machine hardly moves."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(config: Path) -> dict[str, float]:
    """Role -> CPU seconds so far, with those of its children, of the gateway that runs with this configuration."""
    children, spent, roles = defaultdict(list), {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        process = int(folder.name)
        children[int(fields[1])].append(process)
        spent[process] = sum(map(int, fields[11:15])) / TICK  # its own, and those of children that have ended
        if str(config) in words and "--role" in words:
            roles[process] = words[words.index("--role") + 1]

    def all_of(process: int) -> float:
        return spent[process] + sum(all_of(child) for child in children[process])

    found: dict[str, float] = defaultdict(float)
    for process, role in roles.items():
        found[role] += all_of(process)
    return dict(found)
