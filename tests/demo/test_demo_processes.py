"""Programs of the demo end with it, however it ends; one that does not start says so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.demo.processes import Programs, Stopped, stopping_in_order
from gateway.errors import GatewayError
from tests.conftest import missing

STUBBORN = [
    sys.executable, "-uc",
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)",
]  # fmt: skip
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_programs_end_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError), Programs() as programs:
        first = programs.start("first", SLEEPER, tmp_path / "first.log")
        second = programs.start("second", SLEEPER, tmp_path / "second.log")
        programs.check()
        raise RuntimeError
    assert not _lives(first.pid)
    assert not _lives(second.pid)


def test_a_program_that_does_not_listen_to_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.demo.processes.STOP_S", 0.5)
    with Programs() as programs:
        program = programs.start("stubborn", STUBBORN, tmp_path / "log")
        _wait(lambda: "deaf" in (tmp_path / "log").read_text())
    assert not _lives(program.pid)


def test_a_program_that_ends_by_itself_is_named(tmp_path):
    with Programs() as programs:
        program = programs.start("short", [sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log")
        with pytest.raises(GatewayError, match=r"short ended with exit code 7") as raised:
            program.wait_for("never", lambda: False, 20)
    assert raised.value.code == "demo-program-ended"


def test_a_program_that_is_late_is_named(tmp_path):
    with Programs() as programs:
        program = programs.start("slow", SLEEPER, tmp_path / "log")
        with pytest.raises(GatewayError) as raised:
            program.wait_for("it listens", lambda: False, 0.2)
    assert raised.value.code == "demo-program-late"


def test_sigterm_leaves_through_the_block(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stopping_in_order(), Programs() as programs:
        program = programs.start("sleeper", SLEEPER, tmp_path / "log")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert not _lives(program.pid)
    assert signal.getsignal(signal.SIGTERM) is before


def test_programs_end_when_the_demo_is_killed(tmp_path):
    if shutil.which("setpriv") is None:
        missing("setpriv (util-linux)")
    script = f"""
import sys, time
from pathlib import Path
from gateway.demo.processes import Programs
with Programs() as programs:
    print(programs.start("sleeper", {SLEEPER!r}, Path({str(tmp_path)!r}) / "log").pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as demo:
        pid = int(demo.stdout.readline())
        # setpriv puts itself on the leash, and then becomes the program
        _wait(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(sys.executable)))
        demo.kill()
    _wait(lambda: not _lives(pid))
