"""Programs that run beside the demo and end with it, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from gateway.demo.site import LOOPBACK
from gateway.errors import GatewayError

STOP_S = 45.0  # the gateway gives its roles 40 s to end in order


class Program:
    """One child process with a log file, in a session of its own: Ctrl-C reaches the demo only, which stops it."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        # Killed with the demo even when the demo has no time to say so (Linux; util-linux).
        setpriv = shutil.which("setpriv")
        leash = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with open(log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            self._process = subprocess.Popen(
                [*leash, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise when the program has ended by itself.

        Raises
        ------
        GatewayError
            Code ``demo-program-ended``.
        """
        code = self._process.poll()
        if code is not None:
            raise GatewayError(
                "demo-program-ended", f"{self.name} ended with exit code {code}", f"its output is in {self.log}"
            )

    def wait_for(self, what: str, is_so: Callable[[], bool], seconds: float) -> None:
        """Wait until `is_so`, at most `seconds`.

        Raises
        ------
        GatewayError
            Codes ``demo-program-ended`` and ``demo-program-late``.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            self.check()
            if time.monotonic() > deadline:
                raise GatewayError(
                    "demo-program-late", f"{self.name}: {what}: not after {seconds:g} s", f"its output is in {self.log}"
                )
            time.sleep(0.1)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """End what is left of it, at once (SIGKILL)."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Programs:
    """The programs of one run. Leaving the block ends all of them, whatever the reason; a second Ctrl-C at once."""

    def __init__(self) -> None:
        self._running: list[Program] = []

    def start(self, name: str, command: Sequence[str], log: Path) -> Program:
        """Start one more (`Program`)."""
        program = Program(name, command, log)
        self._running.append(program)
        return program

    def check(self) -> None:
        """Raise when one of them has ended by itself (`Program.check`)."""
        for program in self._running:
            program.check()

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + STOP_S
        try:
            for program in self._running:
                program.terminate()
            for program in self._running:
                program.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for program in self._running:
                program.kill()


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


class Stopped(BaseException):
    """SIGTERM or SIGHUP: leave through every `finally`, like Ctrl-C does."""


@contextmanager
def stopping_in_order() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `Stopped` in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    names = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(name, stop) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
