"""Runs each role as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog

CANNOT_START = 2  # exit code of a role whose configuration cannot be used (`gateway.commands.exits`)
PARENT = "MIAD_SUPERVISOR_PID"
"""Environment variable that tells a role which process supervises it."""

log = structlog.get_logger(__name__)


class Supervisor:
    """Runs each role as a process of its own and starts one that has died again.

    A role that ends with `CANNOT_START` (bad configuration, port taken) is not tried again: all stop.
    """

    RESTART_S = 1.0

    def __init__(self, config_path: Path, roles: list[str]) -> None:
        self._config_path = config_path
        self._roles = roles
        self._children: dict[str, subprocess.Popen] = {}
        self._stopping = threading.Event()

    def run(self) -> int:
        """Supervise until a signal comes. Returns 0 when every role ended in order, 1 or `CANNOT_START` when not."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stopping.set())
        for role in self._roles:
            self._start(role)
        while not self._stopping.wait(0.2):
            for role, child in list(self._children.items()):
                if child.poll() == CANNOT_START:
                    log.error("role cannot start with this configuration", role=role)
                    self._stop_all()
                    return CANNOT_START
                if child.returncode is not None:
                    log.error("role ended, starting it again", role=role, exit_code=child.returncode)
                    self._stopping.wait(self.RESTART_S)
                    if not self._stopping.is_set():
                        self._start(role)
        return self._stop_all()

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(self._config_path)]
        environment = {**os.environ, PARENT: str(os.getpid())}
        # A session of its own: Ctrl-C reaches the supervisor only, which stops the roles in order.
        self._children[role] = subprocess.Popen(command, env=environment, start_new_session=True)

    def _stop_all(self) -> int:
        for child in self._children.values():
            child.terminate()
        deadline = time.monotonic() + 40
        clean = True
        for child in self._children.values():
            try:
                clean &= child.wait(max(0.1, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                child.kill()
                clean = False
        return 0 if clean else 1
