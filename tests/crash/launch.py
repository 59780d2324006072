"""`gateway.cli` with named points at which the process kills itself: for the kill tests only.

    MIAD_KILL_ARM=FILE python -m tests.crash.launch serve --role all --config gateway.toml

FILE says where: ``{"point": NAME, "call": N}``; while it is not there nothing happens. The process that reaches the
point for the N-th time renames FILE to FILE.fired (so that one process dies, not two) and sends itself SIGKILL, or what
``"signal"`` names: "SIGSTOP" lets it stand still there. The product has no hooks: its functions are replaced here, from
outside.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from gateway import cli
from gateway.flow import worker
from tests.crash.points import POINTS, Point

ARM_VARIABLE = "MIAD_KILL_ARM"


class Trigger:
    """Counts the calls of the armed point and kills this process at the one asked for."""

    def __init__(self, arm: Path) -> None:
        self._arm = arm
        self._lock = threading.Lock()
        self._order = ""
        self._calls = 0

    def reached(self, name: str) -> None:
        """This process is at a point."""
        with self._lock:
            try:
                order = self._arm.read_text()
            except FileNotFoundError:
                return
            wanted = json.loads(order)
            if wanted["point"] != name:
                return
            if order != self._order:
                self._order, self._calls = order, 0
            self._calls += 1
            if self._calls < wanted["call"]:
                return
            try:
                self._arm.rename(f"{self._arm}.fired")
            except FileNotFoundError:
                return
            os.kill(os.getpid(), signal.Signals[wanted.get("signal", "SIGKILL")])


def put_point(point: Point, trigger: Trigger) -> None:
    """Replace the point's function by one that tells the trigger before or after it."""
    module_name, _, path = point.target.partition(":")
    owner = importlib.import_module(module_name)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        if point.when == "before":
            trigger.reached(point.name)
        result = original(*args, **kwargs)
        # An empty claim is no work: killed there, the process would die before it began.
        if point.when == "after" and result != []:
            trigger.reached(point.name)
        return result

    setattr(owner, name, wrapped)


def start_roles_through_this_launcher() -> None:
    """Let the supervisor start its roles with this module in place of `gateway.cli`."""
    original = subprocess.Popen

    def popen(command, *args, **kwargs):
        return original(["tests.crash.launch" if part == "gateway.cli" else part for part in command], *args, **kwargs)

    subprocess.Popen = popen


def main() -> None:
    """Put the points of this process's role, then be the command line. SIGUSR2: tell where each thread stands."""
    faulthandler.register(signal.SIGUSR2)
    role = sys.argv[sys.argv.index("--role") + 1]
    if role == "all":
        start_roles_through_this_launcher()
    worker.RETENTION_S = 5.0  # what is done goes soon
    trigger = Trigger(Path(os.environ[ARM_VARIABLE]))
    for point in POINTS:
        if point.role == role:
            put_point(point, trigger)
    cli.main()


if __name__ == "__main__":
    main()
