"""A machine of a test's own: Debian's systemd, booted as process 1 of new name spaces on folders that nobody else sees.

It shares the kernel, the network and, read-only, /usr, this Python and this repository with the machine that the tests
run on, and nothing that it writes outlives it. What of systemd needs more than name spaces (BPF filters of devices and
addresses, limits by cgroups) is not in force here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.units import REPOSITORY

SYSTEMD = Path("/lib/systemd/systemd")
SOURCE, PYTHON, PACKAGES = "/srv/miad-gateway", "/opt/python", "/opt/packages"
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_KEPT = (
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl",
    "localtime",
    "debian_version",
    "alternatives",
)
_ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\nsystemd-journal:x:990:\nnogroup:x:65534:\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "gshadow": "root:*::\n",
    "hosts": "127.0.0.1 localhost\n",
    "machine-id": "0123456789abcdef0123456789abcdef\n",
    "fstab": "",
}
_QUIET = (
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "dev-hugepages.mount",
)
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$1"
cd "$1"
cp -a /bin /sbin /lib /lib64 . 2>/dev/null || true
mkdir -p usr etc proc sys dev run tmp root home srv opt var/lib var/log mnt old
chmod 1777 tmp
mount --rbind /usr usr && mount -o remount,bind,ro usr
cp -a "$2"/etc/. etc/
mount -t proc proc proc
mount -t sysfs sys sys
mount -t tmpfs -o mode=755 none dev
for node in $3; do cp -a /dev/$node dev/; done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 none dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs none dev/shm
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 none run
mount -t tmpfs none sys/fs/cgroup
mkdir sys/fs/cgroup/unified sys/fs/cgroup/systemd
mount -t cgroup2 none sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd 2>/dev/null || {
    umount sys/fs/cgroup/unified sys/fs/cgroup; mount -t cgroup2 none sys/fs/cgroup; }
shift 3
while [ $# -gt 0 ]; do mkdir -p ".$2"; mount --rbind "$1" ".$2"; mount -o remount,bind,ro ".$2"; shift 2; done
pivot_root . old
umount -l old
mount --make-rshared /  # as systemd does where it is no container: LoadCredential= mounts by it
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec env -i PATH=$PATH container=other /lib/systemd/systemd --system --log-target=journal
"""


def packages() -> list[Path]:
    """The folders that this interpreter imports installed packages from."""
    return [
        path for entry in dict.fromkeys(sys.path) if (path := Path(entry)).name == "site-packages" and path.is_dir()
    ]


def can_boot() -> bool:
    """Whether this is root of a Linux with systemd and name spaces."""
    return os.geteuid() == 0 and SYSTEMD.exists() and bool(shutil.which("unshare") and shutil.which("nsenter"))


class Machine:
    """Booted by `with`; `run` runs a program in it as root. Further binds: what lies here -> where it is seen there."""

    def __init__(self, binds: dict[Path, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="miad-machine-"))
        self.binds = {Path(sys.base_prefix).resolve(): PYTHON, REPOSITORY: SOURCE, **(binds or {})}
        self.binds |= {path: f"{PACKAGES}/{number}" for number, path in enumerate(packages())}
        self._first = 0

    def __enter__(self) -> Machine:
        etc, root = self._folder / "etc", self._folder / "root"
        root.mkdir()
        units = etc / "systemd" / "system"
        units.mkdir(parents=True)
        for name, text in _ACCOUNTS.items():
            (etc / name).write_text(text)
        for name in _KEPT:
            if (source := Path("/etc") / name).exists():
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, etc / name, **({"symlinks": True} if source.is_dir() else {}))
        (etc / "ld.so.conf.d" / "000-python.conf").write_text(f"{PYTHON}/lib\n")
        for name in _QUIET:
            (units / name).symlink_to("/dev/null")
        (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
        (units / "multi-user.target.d").mkdir()
        flat = [str(each) for pair in self.binds.items() for each in pair]
        unshare = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--cgroup",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
        ]
        self._process = subprocess.Popen(
            [*unshare, "sh", "-c", _BOOT, "sh", str(root), str(self._folder), " ".join(_NODES), *flat],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self._wait_for_systemd()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for_systemd(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._process.stderr.read()
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            with contextlib.suppress(OSError):
                if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                    self._first = int(children[0])
                    done = self.run("systemctl", "is-system-running", "--wait", check=False)
                    if done.stdout.strip() in ("running", "degraded"):
                        self.run("ldconfig")  # the library of this Python, where it has one, before Debian's
                        return
            time.sleep(0.05)
        raise AssertionError(f"systemd has not come up: {self.run('systemctl', '--failed', check=False).stdout}")

    def run(self, *command: object, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as root, with an environment of its own."""
        enter = ["nsenter", "-t", str(self._first), "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd"]
        clean = [
            "env",
            "-i",
            f"PATH={PYTHON}/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "HOME=/root",
        ]
        done = subprocess.run(
            [*enter, *clean, *map(str, command)], capture_output=True, text=True, timeout=900, input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
        return done

    def journal(self, unit: str) -> str:
        """What a unit wrote."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout
