"""Runs each role as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

CANNOT_START = 2  # exit code of a role whose configuration cannot be used (`gateway.commands.exits`)
PARENT = "MIAD_SUPERVISOR_PID"
"""Environment variable that tells a role which process supervises it."""

log = structlog.get_logger(__name__)


@dataclass
class _Child:
    """One role: its process, when it was started, and when it is to be started again."""

    process: subprocess.Popen
    started: float
    restarts: int = 0  # in a row, without `Supervisor.STEADY_S` between them
    due: float | None = None


class Supervisor:
    """Runs each role as a process of its own and starts one that has died again, after a pause that doubles.

    A role that ends with `CANNOT_START` (a configuration that waiting does not heal, a port taken) is not tried again;
    the others go on. When none is left, so ends the supervisor.

    Parameters
    ----------
    config_path
        The configuration file that each role reads anew.
    environments
        Each role with the environment that its process gets: no secrets of other roles.
    command
        What runs a role; for tests. Default: ``miad-gateway serve --role ROLE``.
    """

    RESTART_S = 1.0  # the first pause ...
    LONGEST_RESTART_S = 60.0  # ... and the longest
    STEADY_S = 60.0  # a role that ran so long begins anew with the first pause

    def __init__(
        self,
        config_path: Path,
        environments: Mapping[str, Mapping[str, str]],
        command: Callable[[str], list[str]] | None = None,
    ) -> None:
        self._config_path = config_path
        self._environments = environments
        self._command = command or self._serve
        self._children: dict[str, _Child] = {}
        self._failed: set[str] = set()
        self._stopping = threading.Event()

    def run(self) -> int:
        """Supervise until a signal comes, or no role is left.

        Returns 0 when every role ended in order, `CANNOT_START` when one could not start, else 1.
        """
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stopping.set())
        for role in self._environments:
            self._children[role] = _Child(self._start(role), time.monotonic())
        while self._children and not self._stopping.wait(0.2):
            for role, child in list(self._children.items()):
                self._look_at(role, child)
        return self._stop_all()

    def _look_at(self, role: str, child: _Child) -> None:
        now = time.monotonic()
        if child.due is not None:
            if now >= child.due:
                child.process, child.started, child.due = self._start(role), now, None
            return
        code = child.process.poll()
        if code is None:
            return
        if code == CANNOT_START:
            log.error("this role cannot start; the others go on", role=role)
            self._failed.add(role)
            del self._children[role]
            return
        child.restarts = 0 if now - child.started >= self.STEADY_S else child.restarts
        pause = min(self.RESTART_S * 2**child.restarts, self.LONGEST_RESTART_S)
        child.restarts, child.due = min(child.restarts + 1, 30), now + pause
        log.error("role ended, starting it again", role=role, exit_code=code, in_s=pause)

    def _serve(self, role: str) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(self._config_path)]

    def _start(self, role: str) -> subprocess.Popen:
        environment = {**self._environments[role], PARENT: str(os.getpid())}
        # A session of its own: Ctrl-C reaches the supervisor only, which stops the roles in order.
        return subprocess.Popen(self._command(role), env=environment, start_new_session=True)

    def _stop_all(self) -> int:
        running = [child.process for child in self._children.values() if child.due is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + 40
        clean = len(running) == len(self._children)  # none was dead and waiting
        for process in running:
            try:
                clean &= process.wait(max(0.1, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                clean = False
        if self._failed:
            return CANNOT_START
        return 0 if clean else 1
