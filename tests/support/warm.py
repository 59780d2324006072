"""Commands in processes of their own that need not import torch and the rest each time: forks of a warm one.

`Warm` starts one process that imports what commands import, and forks it for each command: a new process with its own
arguments, environment, folder and output, ended by its own exit code. What a command imports, and how long that takes,
is the business of tests/test_house.py.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
_IMPORTED = (
    *("gateway.cli", "gateway.preflight", "gateway.service", "gateway.files.protect", "gateway.files.restore"),
    *("gateway.explain", "gateway.mark", "gateway.mark.surrogates.foreign", "gateway.network.egress"),
    *("gateway.network.ingress", "gateway.network.retrieve", "gateway.flow.steps", "gateway.flow.worker"),
    *("gateway.flow.reports", "gateway.protect", "gateway.protect.reporting", "gateway.vault.backup"),
    *("gateway.training", "plugins.modalities.ct", "plugins.surrogates.gray", "plugins.surrogates.rgb"),
    *("torch", "highdicom", "matplotlib.figure", "imagecodecs", "scipy.ndimage", "rich.table", "rich.progress"),
)


class Warm:
    """One warm process; `run` forks it. For one thread."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        )

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
        *,
        rights: bool = True,
    ) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of ``miad-gateway ARGUMENTS...``, run in `folder`.

        rights: False takes from it what root may and others may not; its own files stay its own.

        Raises
        ------
        TimeoutError
            It ran longer than `timeout` seconds and was killed.
        """
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as outputs:
            out, err = Path(outputs, "out"), Path(outputs, "err")
            asked = {"arguments": [*arguments], "folder": str(folder), "environment": {**environment}, "rights": rights}
            print(json.dumps({**asked, "out": str(out), "err": str(err), "timeout": timeout}), file=self._process.stdin)
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            if code == -signal.SIGKILL:
                raise TimeoutError(f"after {timeout} s: {' '.join(arguments)}\n{err.read_text()[-2000:]}")
            return code, out.read_text(), err.read_text()

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(120)


def main() -> None:
    """The warm process: a request a line on standard input, an exit code a line on standard output."""
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
        print(_wait(child, asked["timeout"]), flush=True)


def _become(asked: dict) -> None:
    """In the fork: be the command. Does not return."""
    import random

    from gateway.cli import main as command

    for number, path in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    if not asked["rights"]:
        _drop_capabilities()
    random.seed()
    sys.argv = ["miad-gateway", *asked["arguments"]]
    code = 1
    try:
        command()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter's own end does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _drop_capabilities() -> None:
    """Be a user like others, of the same number: all of capabilities(7) is given up."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _wait(child: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


if __name__ == "__main__":
    main()
