"""Machines of a network of the test's own: network namespaces behind one bridge, unplugged and plugged in at will.

The bridge lies in a namespace, too, so that no rule or route of the real machine has to do with it, and each namespace
is held by a process that dies with the tests: nothing is left, however they end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count as counting

from tests.conftest import missing

_HOLDER = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity")
_NUMBERS = "198.18"  # of networks between machines under test (RFC 2544 C.2.2)
_count = counting()


def _ip(*words: object) -> None:
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(map(str, words))}: {done.stderr}"


class _Namespace:
    """A network namespace, and the process that holds it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(_HOLDER)
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 30
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == own:
            assert self._holder.poll() is None, "this machine's kernel gives no network namespace"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.pid = self._holder.pid

    def inside(self, words: Sequence[object]) -> list[str]:
        """The command that runs one in here."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *map(str, words)]

    def run(self, *words: object) -> None:
        done = subprocess.run(self.inside(words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def kill(self) -> None:
        """End every process in here at this instant, as a power cut does, whoever began it."""
        place = os.readlink(f"/proc/{self.pid}/ns/net")
        while True:
            found = [number for number in _processes() if number != self.pid and _place(number) == place]
            for number in found:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            if not found:
                return
            time.sleep(0.005)

    def close(self) -> None:
        self.kill()
        self._holder.kill()
        self._holder.wait()


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _place(number: int) -> str:
    """The network namespace of a process; "" of one that has ended."""
    try:
        return os.readlink(f"/proc/{number}/ns/net")
    except OSError:
        return ""


class Host(_Namespace):
    """A machine's network: one interface with one address."""

    def __init__(self, bridge: _Namespace, number: int, network: str) -> None:
        super().__init__()
        self.address = f"{network}.{number}"
        self._bridge, self._port = bridge, f"port{number}"
        bridge.run("ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        bridge.run("ip", "link", "set", self._port, "up")
        self.plug()

    def plug(self) -> None:
        """Everybody is reached again; connections that were not given up go on."""
        self._bridge.run("ip", "link", "set", self._port, "master", "bridge")

    def unplug(self) -> None:
        """Nobody is reached, and nothing says so: what is sent is lost."""
        self._bridge.run("ip", "link", "set", self._port, "nomaster")


def part(some: Sequence[Host], others: Sequence[Host]) -> None:
    """What these and those send to each other is lost from now on; all else arrives."""
    _between(some, others, "replace")


def join(some: Sequence[Host], others: Sequence[Host]) -> None:
    """They reach each other again."""
    _between(some, others, "delete")


def _between(some: Sequence[Host], others: Sequence[Host], what: str) -> None:
    for one in some:
        for other in others:
            one.run("ip", "route", what, "blackhole", other.address)
            other.run("ip", "route", what, "blackhole", one.address)


class Network:
    """The bridge, and this process's own place at it, where all that is no `Host` listens and calls from."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            missing("root, who makes network namespaces,")
        for program in ("ip", "nsenter", "unshare", "setpriv"):
            if shutil.which(program) is None:
                missing(program)
        self._bridge = _Namespace()
        self._hosts: list[Host] = []
        count = next(_count)  # nothing of one before, as a connection that nobody closed, has this one's addresses
        number = (os.getpid() + 83 * count) % 250
        self._own = f"{_NUMBERS}.{number}"
        self._bridge.run("ip", "link", "add", "bridge", "type", "bridge")
        self._bridge.run("ip", "link", "set", "bridge", "up")
        self._link = name = f"miad{os.getpid()}n{count % 100}"
        _ip("link", "add", name, "type", "veth", "peer", "name", "own", "netns", self._bridge.pid)
        _ip("address", "add", f"{self.address}/24", "dev", name)
        _ip("link", "set", name, "up")
        self._bridge.run("ip", "link", "set", "own", "master", "bridge", "up")

    @property
    def address(self) -> str:
        """This process's."""
        return f"{self._own}.1"

    @property
    def range(self) -> str:
        """All addresses."""
        return f"{self._own}.0/24"

    def host(self) -> Host:
        """One more machine."""
        self._hosts.append(Host(self._bridge, len(self._hosts) + 2, self._own))
        return self._hosts[-1]

    def close(self) -> None:
        """Nothing is left of it, nor of what runs there: the link goes now, not when the kernel comes to it."""
        _ip("link", "delete", self._link)
        for one in (*self._hosts, self._bridge):
            one.close()
