"""A host for deploy/install.sh and upgrade.sh in a folder: systemd and the gateway are small scripts, which note what
they are asked for, and may end whoever asks: a step of an upgrade takes milliseconds, so that each can be cut off.

What the scripts do to a real systemd is seen in `tests/service/test_installed.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.units import REPOSITORY

ROLES = ("ingress", "worker", "restore")
_COUNTED = """#!/bin/sh
read n < $HOST/count; n=$((n + 1)); echo $n > $HOST/count; echo "$n ${0##*/} $*" >> $HOST/log
[ "$n" != "${KILL_AT:-0}" ] || { kill -9 $(cat $HOST/pid); exit 137; }
[ "$n" != "${FAIL_AT:-0}" ] || exit 1
"""
_REAL = _COUNTED + 'exec PROGRAM "$@"\n'
_SYSTEMCTL = """
unit=; for word; do case "$word" in miad-gateway-*) unit=${word#miad-gateway-}; unit=${unit%.service} ;; esac; done
active=$HOST/active/$unit
case "$1" in
    is-enabled) [ -e $HOST/enabled/$unit ] ;;
    enable) touch $HOST/enabled/$unit ;;
    stop) rm -f $active ;;
    start)
        in_force=$(basename $(readlink $HOST/opt/current))
        [ "$(cat $HOST/db)" -le "${in_force%%.*}" ] || exit 1  # an older release on a newer database
        echo ${in_force%%.*} > $HOST/db; echo $in_force > $active ;;
    show) case "$3" in
        ActiveState) [ -e $active ] && echo active || echo inactive ;;
        NRestarts) echo 0 ;;
        *) echo word ;; esac ;;
esac
"""
_GATEWAY = """
version=$(basename $(dirname $(dirname $(readlink -f $0))))
case "$1 $2" in
    "--version "*) echo "miad-gateway $version" ;;
    "config check") ! grep -q "^since = ${version%%.*}" $HOST/etc/gateway.toml || exit 2 ;;
    "database show") echo "{\\"revision\\": \\"$(cat $HOST/db)\\", \\"digest\\": \\"$(cksum < $HOST/rows)\\"}" ;;
    "database backup") cat $HOST/db $HOST/rows > $4 ;;
    "database upgrade") echo ${version%%.*} > $HOST/db ;;
    "database downgrade") echo $3 > $HOST/db ;;
    "database restore") head -n 1 $3 > $HOST/db; tail -n +2 $3 > $HOST/rows ;;
esac
"""


_CHANGES = ("active", "enabled", "etc", "state", "units", "opt", "db", "rows", "log", "count", "backups", "pid")
"""What scripts change; the rest of a host is programs and checkouts."""


@dataclass
class Host:
    """The host: `run` a script of a release's checkout."""

    folder: Path

    def keep(self) -> None:
        """Keep it as it is now, for `put_back`."""
        self._copy(self.folder, self.folder / "kept")

    def put_back(self) -> None:
        """Make it what it was at `keep`."""
        self._copy(self.folder / "kept", self.folder)

    @staticmethod
    def _copy(there: Path, here: Path) -> None:
        here.mkdir(exist_ok=True)
        for name in _CHANGES:
            if (here / name).is_dir():
                shutil.rmtree(here / name)
            (here / name).unlink(missing_ok=True)
            if (there / name).is_dir():
                shutil.copytree(there / name, here / name, symlinks=True)
            elif (there / name).exists():
                shutil.copy2(there / name, here / name)

    def __post_init__(self) -> None:
        for name in ("bin", "active", "enabled", "etc/keys", "state", "units", "opt", "venvs"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "etc" / "gateway.toml").write_text("[[routes]]\n[restore]\n")
        (self.folder / "db").write_text("1\n")
        (self.folder / "rows").write_text("one\n")
        for name, body in {"systemctl": _SYSTEMCTL, "systemd-sysusers": "", "systemd-tmpfiles": ""}.items():
            self.program(self.folder / "bin" / name, _COUNTED + body)
        for name in ("cp", "mv", "ln", "touch", "mkdir"):
            self.program(self.folder / "bin" / name, _REAL.replace("PROGRAM", str(shutil.which(name))))
        self.program(self.folder / "bin" / "id", "#!/bin/sh\necho 0\n")
        self.program(self.folder / "bin" / "chown", "#!/bin/sh\n")
        self.program(self.folder / "bin" / "install", '#!/bin/sh\n[ "$1" = -d ] || cp "$3" "$4"\n')
        self.program(self.folder / "bin" / "journalctl", "#!/bin/sh\necho ready\n")

    def program(self, path: Path, text: str) -> None:
        """Write a program."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def checkout(self, version: str) -> Path:
        """The source of a release; its environment comes by --venv."""
        source = self.folder / f"source-{version}"
        if not source.exists():
            shutil.copytree(REPOSITORY / "deploy", source / "deploy", ignore=shutil.ignore_patterns("docs"))
            for name in ("README.md", "LICENSE", "pyproject.toml"):
                (source / name).write_text("")
            script = source / "deploy" / "release.sh"
            text = script.read_text()
            for variable, place in (("UNITS", "units"), ("CONFIGURATION", "etc"), ("STATE", "state")):
                line = next(line for line in text.splitlines() if line.startswith(f"{variable}=/"))
                text = text.replace(line, f"{variable}={self.folder / place}")
            text = text.replace("/etc/sysusers.d", f"{self.folder}/etc/sysusers.d")
            text = text.replace("/etc/tmpfiles.d", f"{self.folder}/etc/tmpfiles.d")
            text = text.replace("/root/* | /tmp/*", "/root/*")  # this host lies there
            text = text.replace("/usr/local/bin", f"{self.folder}/nowhere")
            script.write_text(text)
            self.program(self.folder / "venvs" / version / "bin" / "miad-gateway", _COUNTED + _GATEWAY)
        return source

    def run(
        self, version: str, script: str, *words: str, kill_at: int = 0, fail_at: int = 0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run deploy/SCRIPT of a checkout; it is killed, or its program fails, at that step."""
        (self.folder / "count").write_text("0\n")
        command = [str(self.checkout(version) / "deploy" / script), "--prefix", str(self.folder / "opt"), *words]
        if "--back" not in words:
            command += ["--venv", str(self.folder / "venvs" / version)]
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOST": str(self.folder),
            "KILL_AT": str(kill_at),
            "FAIL_AT": str(fail_at),
        }
        started = ["sh", "-c", 'echo $$ > "$HOST/pid"; exec bash "$@"', "sh", *command]
        done = subprocess.run(started, env=environment, capture_output=True, text=True, timeout=1200)
        assert not check or done.returncode == 0, done.stderr
        return done

    def upgrade(self, version: str, **how: int | bool) -> subprocess.CompletedProcess[str]:
        """deploy/upgrade.sh to a version."""
        return self.run(version, "upgrade.sh", "--backups", str(self.folder / "backups"), **how)

    def back(self, version: str, **how: int | bool) -> subprocess.CompletedProcess[str]:
        """deploy/upgrade.sh --back, from the checkout of the version in force."""
        return self.run(version, "upgrade.sh", "--back", **how)

    def reboot(self) -> None:
        """What systemd does at a boot: the enabled services start, and receive something."""
        in_force = self.version()
        for role in (self.folder / "enabled").iterdir():
            (self.folder / "active" / role.name).write_text(in_force + "\n")
        newest = max(int((self.folder / "db").read_text()), int(in_force.partition(".")[0]))
        (self.folder / "db").write_text(f"{newest}\n")
        with (self.folder / "rows").open("a") as rows:
            rows.write("received\n")

    def step(self, number: int) -> str:
        """What that step of the last run was; "" where it had none."""
        lines = (self.folder / "log").read_text().splitlines()
        return next((line for line in reversed(lines) if line.startswith(f"{number} ")), "")

    def version(self) -> str:
        """The release in force."""
        return os.path.basename(os.readlink(self.folder / "opt" / "current"))

    def state(self) -> tuple[str, dict[str, str], str]:
        """The release in force, which release of each role runs, and the schema of the database."""
        running = {path.name: path.read_text().strip() for path in (self.folder / "active").iterdir()}
        return self.version(), running, (self.folder / "db").read_text().strip()

    def rows(self) -> list[str]:
        """What the database holds."""
        return (self.folder / "rows").read_text().split()
