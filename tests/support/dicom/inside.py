"""What a confined child tries: run there, and told as JSON on its standard output. Nothing of it may succeed."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.dicom.pixels.children import confine as confining

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def main() -> None:
    """Arguments: layers to leave out, bytes of memory, readable file, folder, abstract socket, address and process."""
    without, memory, secret, folder, listener, address, parent = sys.argv[1:]
    for layer in filter(None, without.split(",")):
        setattr(confining, f"_{layer}", lambda *_: False)
    before = set(os.listdir("/proc/self/fd"))
    confined = confining.confine(int(memory))
    attempts: dict[str, Callable[[], object]] = {
        "read a key": lambda: Path(secret).read_bytes(),
        "list the state folder": lambda: os.listdir(folder),
        "write there": lambda: Path(folder, "new").write_bytes(b"x"),
        "read the parent's memory": lambda: os.pread(os.open(f"/proc/{parent}/mem", os.O_RDONLY), 8, int(address)),
        "read the parent's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "trace the parent": lambda: _call(LIBC.ptrace, PTRACE_ATTACH, int(parent), None, None),
        "read the parent by a call": lambda: _peek(int(parent), int(address)),
        "signal the parent": lambda: os.kill(int(parent), 0),
        "connect": lambda: _connect(listener),
        "make a socket": lambda: socket.socket(),
        "start a process": lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        "fork": _fork,
        "take memory": lambda: mmap.mmap(-1, int(memory)),
        "become root": lambda: os.setuid(0),
        "run a program": lambda: os.execv("/bin/true", ["true"]),
    }
    done = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            done[name] = "done"
        except (OSError, MemoryError) as error:
            done[name] = type(error).__name__
    # what is left to a child that must compute
    bytearray(1 << 20)
    told = {"confined": confined, "done": done, "environment": sorted(os.environ), "descriptors": len(before)}
    told["core"] = resource.getrlimit(resource.RLIMIT_CORE)[0] if "seccomp" in without else 0
    os.write(1, json.dumps(told).encode())


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _peek(process: int, address: int) -> None:
    room = ctypes.create_string_buffer(8)
    here, there = _Vector(ctypes.addressof(room), 8), _Vector(address, 8)
    _call(LIBC.process_vm_readv, process, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


def _connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as plug:
        plug.connect("\0" + name)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
