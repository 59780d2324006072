"""Starts a child's interpreter with nothing of this process, and tells what the machine cannot keep one from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gateway

START_SECONDS = 60.0
_CONFINE = "gateway.dicom.pixels.children.confine"
_PROTECTIONS = {
    "no-new-privileges": "it can gain privileges by starting a program",
    "landlock": "the kernel has no Landlock (Linux 5.13), which would keep it from files and ports",
    "seccomp": "the kernel filters no system calls for it (seccomp; x86_64 and aarch64 are known)",
}


def launch(code: str, arguments: list[str], shared: int | None = None) -> subprocess.Popen[bytes]:
    """Start an interpreter that has nothing of this process: no environment, no open files but pipes and `shared`.

    Parameters
    ----------
    code
        Runs once this package can be imported.
    """
    root = str(Path(gateway.__file__).resolve().parent.parent)
    prepare = f"import sys; sys.path.insert(0, {root!r}); {code}"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-I", "-c", prepare, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1", **threads},
        cwd="/",
        pass_fds=() if shared is None else (shared,),
        start_new_session=True,  # a terminal's Ctrl-C is for the role, which ends its children itself
    )


def unprotected() -> tuple[str, ...]:
    """What this machine cannot keep a child from, one sentence each; a process is started to see."""
    process = launch(f"import json; from {_CONFINE} import confine; print(json.dumps(confine(1 << 30)))", [])
    try:
        confined = json.loads(process.communicate(timeout=START_SECONDS)[0])
    except (ValueError, subprocess.TimeoutExpired):
        process.kill()
        process.communicate()
        confined = {}
    sentences = (why for name, why in _PROTECTIONS.items() if not confined.get(name))
    return tuple(f"compressed frames are decoded in a process of its own, but {why}" for why in sentences)
