"""deploy/systemd: four units, a user each; nobody holds or writes what `gateway.config.duties` does not give it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.config.duties import PRIVATE, READS, WRITES, secrets_of
from tests.support.units import ROLES, STATE, UNITS, Accounts, lines, service

TMPFILES = {path.removeprefix(f"{STATE}/"): (mode, user, group) for _, path, mode, user, group in lines("tmpfiles")}


def test_every_role_has_a_user_and_a_group_of_its_own() -> None:
    users = [service(role)["User"] for role in ROLES]
    assert users == [["miad-ingress"], ["miad-worker"], ["miad-restore"], ["miad-page"]]
    accounts = Accounts()
    for role in ROLES:
        unit = service(role)
        assert unit["Group"] == unit["User"]
        assert set(unit["SupplementaryGroups"]) == accounts.members[unit["User"][0]]
        assert unit["ExecStart"][1:4] == ["serve", "--role", role]
        assert unit["LimitCORE"] == ["0"] and unit["NoNewPrivileges"] == ["yes"]
        assert unit["RestartPreventExitStatus"] == ["2"]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_is_handed_the_keys_of_its_role_and_no_other(role: str) -> None:
    wanted = {Path(str(reference)).name for _, reference, _ in secrets_of(Config(), role)}
    handed = dict(entry.split(":", 1) for entry in service(role).get("LoadCredential", ()))
    assert set(handed) == wanted
    assert handed == {name: f"/etc/miad-gateway/keys/{name}" for name in wanted}
    assert ("restore.private.pem" in handed) == (role == "restore")


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_writes_the_folders_of_its_role_and_no_other(role: str) -> None:
    unit = service(role)
    own = {name.removeprefix("miad-gateway/") for name in unit["StateDirectory"]}
    shared = {path.removeprefix(f"{STATE}/") for path in unit["ReadWritePaths"]}
    assert own | shared == set(WRITES[role])
    assert own == set(WRITES[role]) & set(PRIVATE)
    assert unit["StateDirectoryMode"] == ["0700"]


@pytest.mark.parametrize("role", ROLES)
def test_the_shared_folders_let_their_roles_in_and_nobody_else(role: str) -> None:
    unit = service(role)
    groups = {*unit["SupplementaryGroups"], *unit["Group"]}
    for name in {"spool", "vault", "viewer", "database"}:
        mode, owner, group = TMPFILES[name]
        may_enter = owner in unit["User"] or group in groups
        may_write = owner in unit["User"] or (group in groups and int(mode, 8) & 0o020 != 0)
        assert int(mode, 8) & 0o007 == 0
        assert may_enter == (name in (*WRITES[role], *READS[role])), name
        assert may_write == (name in WRITES[role]), name


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_leaves_an_intruder_little(role: str) -> None:
    """Systemd's own figure of what a service can do, at most 3.0 of 10; and what a role needs is not taken from it."""
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager"]
        done = subprocess.run([*command, UNITS / f"miad-gateway-{role}.service"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    unit = service(role)
    calls = unit["SystemCallFilter"]
    assert calls[0] == "@system-service" and "~@privileged" in calls
    if role != "page":  # codec children confine themselves, and say how long they computed
        assert {"landlock_create_ruleset", "landlock_restrict_self", "seccomp"} <= set(calls)
    assert ("ProtectProc" in unit) == (role in ("ingress", "page"))
    if role == "worker":  # CUDA: devices, what /proc says of the driver, compiled kernels
        assert not {"PrivateDevices", "ProcSubset", "MemoryDenyWriteExecute"} & set(unit)
        assert unit["DeviceAllow"] == ["char-nvidia*", "rw"]


def test_systemd_takes_them(tmp_path: Path) -> None:
    """By systemd's own reader where it is installed; everywhere by the shape of each line."""
    for file in sorted(UNITS.glob("*.service")):
        text = file.read_text()
        for line in text.splitlines():
            assert re.fullmatch(r"(#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*|)", line), (file.name, line)
        (tmp_path / file.name).write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    assert len(list(tmp_path.iterdir())) == 4
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())], capture_output=True, text=True
        )
        ours = [line for line in done.stderr.splitlines() if "miad-gateway" in line]
        assert (done.returncode, ours) == (0, [])
