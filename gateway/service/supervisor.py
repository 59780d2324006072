"""Runs each role as a process of its own, or as several."""

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

from gateway.config import ConfigProblem, InvalidConfigError, Source
from gateway.config.duties import role_of
from gateway.service.link import VARIABLE, Link
from gateway.service.reload import from_answer
from gateway.service.wishes import Wish, Wishes

CANNOT_START = 2  # exit code of a role whose configuration cannot be used (`gateway.commands.exits`)
PARENT = "MIAD_SUPERVISOR_PID"
"""Environment variable that tells a role which process supervises it."""

STOP_S = 40.0  # in which a role ends in order
ANSWER_S = 300.0  # in which a role has checked a configuration and opened what it names

log = structlog.get_logger(__name__)


@dataclass
class _Child:
    """One role: its process, when it was started, and when it is to be started again."""

    process: subprocess.Popen | None = None  # None: not started yet, the system gave no process
    started: float = 0.0
    restarts: int = 0  # in a row, without `Supervisor.STEADY_S` between them
    due: float | None = None
    link: Link | None = None  # to the process

    def unlink(self) -> None:
        """Close the link, if there is one."""
        if self.link is not None:
            self.link.close()
            self.link = None


class Supervisor:
    """Runs each role as a process of its own and starts one that has died again, after a pause that doubles.

    A role that ends with `CANNOT_START` (a configuration that waiting does not heal, a port taken) is not tried again;
    the others go on. When none is left, so ends the supervisor.

    Parameters
    ----------
    config_path
        The configuration file, for the command line of each role.
    environments
        Each process by its name (`gateway.config.duties.processes_of`) with its environment: no secrets of other roles.
    command
        What runs a role; for tests. Default: ``miad-gateway serve --role ROLE``.
    source
        The configuration in force, which each role is handed: a role that is started again later gets the same one,
        whatever has become of the file. None: each role reads the file.
    """

    RESTART_S = 1.0  # the first pause ...
    LONGEST_RESTART_S = 60.0  # ... and the longest
    STEADY_S = 60.0  # a role that ran so long begins anew with the first pause

    def __init__(
        self,
        config_path: Path,
        environments: Mapping[str, Mapping[str, str]],
        command: Callable[[str], list[str]] | None = None,
        source: Source | None = None,
    ) -> None:
        self._config_path = config_path
        self._environments = environments
        self._command = command or self._serve
        self._children: dict[str, _Child] = {}
        self._failed: set[str] = set()
        self._source = source
        self._stopping = threading.Event()
        self._asked = 0  # numbers what roles are asked

    def run(self, wishes: Wishes | None = None, do: Callable[[Wish], None] = lambda _: None) -> int:
        """Supervise until a signal comes, or no role is left. `do` is what to do about a wish other than the end.

        Returns 0 when every role ended in order, `CANNOT_START` when one could not start, else 1.
        """
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stopping.set())
        wishes = wishes or Wishes()
        for role in self._environments:
            self._children[role] = _Child()
            self._begin(role, self._children[role])
        while self._children and not self._stopping.is_set():
            if wish := wishes.get(0.2):
                do(wish)
            for role, child in list(self._children.items()):
                self._look_at(role, child)
        return self._stop_all()

    def _look_at(self, role: str, child: _Child) -> None:
        now = time.monotonic()
        if child.due is not None:
            if now >= child.due:
                self._begin(role, child)
            return
        code = child.process.poll() if child.process else 1
        if code is None:
            return
        if code == CANNOT_START:
            log.error("this role cannot start; the others go on", role=role)
            self._failed.add(role)
            self._children.pop(role).unlink()
            return
        child.restarts = 0 if now - child.started >= self.STEADY_S else child.restarts
        log.error("role ended, starting it again", role=role, exit_code=code, in_s=self._pause(child))

    def _serve(self, role: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "gateway.cli",
            "serve",
            "--role",
            role_of(role),
            "--config",
            str(self._config_path),
        ]

    def _start(self, role: str, child: _Child) -> subprocess.Popen:
        environment = {**self._environments[role], PARENT: str(os.getpid())}
        # A session of its own: Ctrl-C reaches the supervisor only, which stops the roles in order.
        if self._source is None:
            return subprocess.Popen(self._command(role), env=environment, start_new_session=True)
        child.unlink()
        link, theirs = Link.pair()
        with theirs:
            environment[VARIABLE] = str(theirs.fileno())
            try:
                process = subprocess.Popen(
                    self._command(role), env=environment, start_new_session=True, pass_fds=[theirs.fileno()]
                )
            except OSError:
                link.close()
                raise
        child.link = link
        link.send({"do": "start", "texts": self._source.as_texts()}, 10.0)
        return process

    def _begin(self, role: str, child: _Child) -> None:
        """Start a role, or note when to try again: what the system has no room for must not end the others."""
        child.started, child.due = time.monotonic(), None
        try:
            child.process = self._start(role, child)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            log.error("role not started, trying again", role=role, reason=reason, in_s=self._pause(child))

    def prepare(self, source: Source, by: str) -> None:
        """Let every role that runs prepare to take over this configuration.

        Raises
        ------
        InvalidConfigError
            Of the first role that cannot, with its code and problems. What the others have prepared waits for `drop`.
        """
        answers = self._ask({"do": "prepare", "by": by, "texts": source.as_texts()})
        for role, answer in answers.items():
            if answer is None:
                hint = "the gateway ends" if self._stopping.is_set() else "see its log, and reload again"
                problem = ConfigProblem("", None, f"role {role} did not answer", hint)
                raise InvalidConfigError("role-not-ready", source.file, [problem])
            if not answer["ok"]:
                raise InvalidConfigError(answer["code"], source.file, from_answer(answer))

    def commit(self, source: Source, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Let every role take over what it has prepared; one that fails in it is started again, with this one.

        Roles that could not start with the old configuration are tried again.
        """
        self._source, self._environments = source, environments
        for role, answer in self._ask({"do": "commit"}).items():
            if self._stopping.is_set():
                return  # all of them end now
            if answer is None or not answer["ok"]:
                log.error("this role did not take the configuration over: it is started again with it", role=role)
                self._end(role)
        self._failed.clear()
        for role in environments:
            if role not in self._children:
                self._children[role] = _Child()
                self._begin(role, self._children[role])

    def drop(self) -> None:
        """Let every role forget what it has prepared."""
        for _, link in self._links():
            link.send({"do": "drop"}, 10.0)

    def _ask(self, message: Mapping[str, object]) -> dict[str, dict | None]:
        """Every role's answer, waited for together; None of one that gives none. Each is heard, whatever others say:
        an answer that nobody hears would be taken for that to the next question. A signal to end is heard meanwhile.
        """
        self._asked += 1
        deadline = time.monotonic() + ANSWER_S
        asked = [(role, link, link.send({**message, "number": self._asked}, 10.0)) for role, link in self._links()]
        return {
            role: link.answer(self._asked, deadline - time.monotonic(), self._stopping.is_set) if sent else None
            for role, link, sent in asked
        }

    def _links(self) -> list[tuple[str, Link]]:
        """The roles that run, each with the link to it."""
        return [
            (role, child.link)
            for role, child in self._children.items()
            if child.link and child.due is None and child.process and child.process.poll() is None
        ]

    def _end(self, role: str) -> None:
        """End a role's process, so that it is started again."""
        process = self._children[role].process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _pause(self, child: _Child) -> float:
        """Seconds until a role is started again, twice as many each time."""
        pause = min(self.RESTART_S * 2**child.restarts, self.LONGEST_RESTART_S)
        child.restarts, child.due = min(child.restarts + 1, 30), time.monotonic() + pause
        return pause

    def _stop_all(self) -> int:
        running = [child.process for child in self._children.values() if child.process and child.due is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_S
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
