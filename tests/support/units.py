"""What the units under deploy/systemd/ say, read as systemd reads them, and laid out in a folder of a test."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
UNITS = REPOSITORY / "deploy" / "systemd"
STATE, CONFIGURATION = "/var/lib/miad-gateway", "/etc/miad-gateway"
ROLES = ("ingress", "worker", "restore", "page")


def service(role: str) -> dict[str, list[str]]:
    """Section [Service] of a role's unit: key -> words of all its lines, in order (systemd.syntax(7))."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in (UNITS / f"miad-gateway-{role}.service").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#") and section == "Service":
            key, _, value = line.partition("=")
            found[key] += value.split()
    return dict(found)


def lines(name: str) -> list[list[str]]:
    """Lines of a sysusers.d(5) or tmpfiles.d(5) file, in words."""
    text = (UNITS / f"miad-gateway.{name}.conf").read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@dataclass
class Accounts:
    """Numbers for the users and groups of sysusers.d; no account is made on the machine."""

    users: dict[str, int] = field(default_factory=lambda: {"root": 0})
    groups: dict[str, int] = field(default_factory=lambda: {"root": 0})
    members: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        for number, (kind, name, *rest) in enumerate(lines("sysusers"), 61_000):
            if kind == "g":
                self.groups[name] = number
            elif kind == "u":
                self.users[name] = self.groups[name] = number
            elif kind == "m":
                self.members[name].add(rest[0])

    def of(self, role: str) -> dict[str, object]:
        """Arguments of `subprocess` that run a program as the unit of `role` does."""
        unit = service(role)
        (user,), (group,) = unit["User"], unit["Group"]
        return {
            "user": self.users[user],
            "group": self.groups[group],
            "extra_groups": sorted(self.groups[name] for name in unit["SupplementaryGroups"]),
        }


def lay_out(root: Path, accounts: Accounts) -> None:
    """Make, below `root`, the folders that tmpfiles.d and the units' StateDirectory= make (systemd.exec(5))."""
    for kind, path, mode, user, group in lines("tmpfiles"):
        assert kind == "d"
        _folder(root / path[1:], int(mode, 8), accounts.users[user], accounts.groups[group])
    for role in ROLES:
        unit = service(role)
        (user,), (group,), (mode,) = unit["User"], unit["Group"], unit["StateDirectoryMode"]
        for name in unit["StateDirectory"]:
            folder = root / "var" / "lib" / name
            assert folder.parent.is_dir()
            _folder(folder, int(mode, 8), accounts.users[user], accounts.groups[group])


def hand_over(root: Path, role: str, accounts: Accounts) -> Path:
    """LoadCredential= of a unit: copies in a folder that only its user reads (CREDENTIALS_DIRECTORY)."""
    unit = service(role)
    folder = root / "run" / "credentials" / f"miad-gateway-{role}.service"
    folder.parent.mkdir(parents=True, exist_ok=True)
    user = accounts.users[unit["User"][0]]
    _folder(folder, 0o500, user, 0)
    for entry in unit.get("LoadCredential", ()):
        name, _, path = entry.partition(":")
        shutil.copyfile(root / path[1:], folder / name)
        os.chown(folder / name, user, 0)
        (folder / name).chmod(0o400)
    return folder


def _folder(path: Path, mode: int, user: int, group: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, group)
    path.chmod(mode)
