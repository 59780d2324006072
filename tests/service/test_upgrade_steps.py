"""deploy/install.sh and upgrade.sh, cut off or failing at each of their steps: what is there can always go on."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fakehost import ROLES, Host

OLD, NEW = "1.0.0", "2.0.0"
PREFIXES = ("/", "/home/x", "/opt/../root/x", "/var/tmp/x", "/opt/a b", "/opt/a|b", "opt/x", "/opt/$(id)")


def made(folder: Path) -> Host:
    """A host with the old release installed and running."""
    folder.mkdir()
    host = Host(folder)
    host.run(OLD, "install.sh")
    assert host.state() == runs(OLD)
    return host


def runs(version: str) -> tuple[str, dict[str, str], str]:
    return version, dict.fromkeys(ROLES, version), version.partition(".")[0]


def each_step(folder: Path, begin: Callable[[Host, int], int], first: int = 1) -> Iterator[tuple[int, Host]]:
    """A host for every third step, cut off there by `begin`: it gives the exit code, 0 where there is no such step."""
    host = made(folder / "host")
    host.keep()
    for step in itertools.count(first, 3):
        host.put_back()
        if begin(host, step) == 0:
            assert step > 20
            return
        yield step, host


def killed(host: Host, step: int) -> int:
    return host.upgrade(NEW, kill_at=step, check=False).returncode


def failed(host: Host, step: int) -> int:
    done = host.upgrade(NEW, fail_at=step, check=False)
    has_step = int((host.folder / "count").read_text()) >= step
    return done.returncode or (1 if has_step else 0)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("is_rebooted", [False, True])
def test_an_upgrade_that_is_killed_anywhere_is_ended_by_running_it_again(tmp_path: Path, is_rebooted: bool) -> None:
    for step, host in each_step(tmp_path, killed, 1 + is_rebooted):
        if is_rebooted:
            host.reboot()
        rows = host.rows()
        host.upgrade(NEW)
        assert (host.state(), host.rows()) == (runs(NEW), rows), step
        host.back(NEW)
        assert (host.state(), host.rows()) == (runs(OLD), rows), step


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_an_upgrade_of_which_a_step_fails_leaves_no_service_stopped_for_nothing(tmp_path: Path) -> None:
    for step, host in each_step(tmp_path, failed, 3):
        if "is-enabled" in host.step(step):
            continue  # no failure: the answer that a role is not wanted
        version, running, _ = host.state()
        # once the new release is in force, running it again is what ends it; it says so
        assert running == dict.fromkeys(ROLES, version) or version == NEW, step
        host.upgrade(NEW)
        assert (host.state(), host.rows()) == (runs(NEW), ["one"]), step


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_way_back_that_is_killed_anywhere_is_ended_by_running_it_again(tmp_path: Path) -> None:
    def killed_back(host: Host, step: int) -> int:
        host.upgrade(NEW)
        return host.back(NEW, kill_at=step, check=False).returncode

    for step, host in each_step(tmp_path, killed_back, 2):
        if not (host.folder / "opt" / "last-upgrade").is_symlink():  # the last step of all
            continue
        host.back(NEW)
        assert (host.state(), host.rows()) == (runs(OLD), ["one"]), step


def test_a_killed_upgrade_is_gone_on_with(tmp_path: Path) -> None:
    """The new release is in force and nothing runs: once that was "in force already"."""
    host = made(tmp_path / "host")
    host.upgrade(NEW)
    log = (host.folder / "log").read_text().splitlines()
    step = next(int(line.split()[0]) for line in reversed(log) if "miad-gateway database upgrade" in line)
    host = made(tmp_path / "other")
    assert host.upgrade(NEW, kill_at=step, check=False).returncode != 0
    assert host.state() == (NEW, {}, "1")
    assert "going on with it" in host.upgrade(NEW).stderr
    assert host.state() == runs(NEW)
    assert "in force already" in host.upgrade(NEW).stderr


def test_a_backup_that_fails_starts_the_old_release_again_and_leaves_no_keys(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    host.upgrade(NEW)
    log = (host.folder / "log").read_text().splitlines()
    step = next(int(line.split()[0]) for line in reversed(log) if "miad-gateway database backup" in line)
    host = made(tmp_path / "other")
    done = host.upgrade(NEW, fail_at=step, check=False)
    assert done.returncode != 0 and "starting 1.0.0 again" in done.stderr
    assert host.state() == runs(OLD) and not list((host.folder / "backups").iterdir())


def test_what_was_received_between_a_kill_and_the_next_try_is_not_undone(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    host.upgrade(NEW)
    (host.folder / "rows").write_text("one\nsince\n")
    host.back(NEW)
    assert (host.state(), host.rows()) == (runs(OLD), ["one", "since"])


def test_a_configuration_of_the_newer_release_stays_beside_the_older_one(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    host.upgrade(NEW)
    etc = host.folder / "etc"
    (etc / "gateway.toml").write_text("since = 1\n")  # what release 1 refuses
    (etc / "conf.d").mkdir()
    (etc / "conf.d" / "more.toml").write_text("newer\n")
    host.back(NEW)
    assert host.state() == runs(OLD)
    assert (etc / "gateway.toml").read_text() == "[[routes]]\n[restore]\n" and not (etc / "conf.d").exists()
    assert (etc / "gateway.toml.newer").read_text() == "since = 1\n"
    assert (etc / "conf.d.newer" / "more.toml").read_text() == "newer\n"


def test_a_service_that_does_not_stop_is_not_upgraded_under(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    systemctl = host.folder / "bin" / "systemctl"
    systemctl.write_text(
        systemctl.read_text().replace("stop) rm -f $active", "stop) [ $unit = worker ] || rm -f $active")
    )
    done = host.upgrade(NEW, check=False)
    assert done.returncode != 0 and "miad-gateway-worker.service does not stop" in done.stderr
    assert host.state() == runs(OLD)


def test_a_folder_of_backups_that_others_use_keeps_its_mode(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    (host.folder / "backups").mkdir(mode=0o755)
    host.upgrade(NEW)
    [made_one] = (host.folder / "backups").iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (host.folder / "backups", made_one)]
    assert modes == [0o755, 0o700]


def test_what_is_installed_may_be_read_whatever_roots_umask_is(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    host = Host(tmp_path / "host")
    host.checkout(OLD)
    shell = host.folder / "source-1.0.0" / "deploy" / "install.sh"
    shell.write_text(shell.read_text().replace("set -euo pipefail", "set -euo pipefail; umask 077", 1))
    host.run(OLD, "install.sh")
    release = host.folder / "opt" / "releases" / OLD
    closed = [path for path in (release, *release.rglob("*")) if not path.is_symlink() and not path.stat().st_mode & 4]
    assert closed == []


def test_two_upgrades_at_once(tmp_path: Path) -> None:
    host = made(tmp_path / "host")
    with (host.folder / "opt" / "lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        done = host.upgrade(NEW, check=False)
    assert done.returncode != 0 and "under way" in done.stderr and host.state() == runs(OLD)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_units_cannot_have(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "host").mkdir()
    host = Host(tmp_path / "host")
    done = host.run(OLD, "install.sh", "--prefix", prefix, check=False)
    assert done.returncode != 0 and "--prefix" in done.stderr


@pytest.mark.parametrize("version", ["", "../../etc", "1.0 ;", "-rf"])
def test_a_source_without_a_version_removes_nothing(tmp_path: Path, version: str) -> None:
    host = made(tmp_path / "host")
    program = host.folder / "venvs" / OLD / "bin" / "miad-gateway"
    program.write_text(program.read_text().replace('echo "miad-gateway $version"', f"echo 'miad-gateway {version}'"))
    done = host.run(OLD, "install.sh", check=False)
    assert done.returncode != 0 and "which version it is" in done.stderr
    assert (host.folder / "opt" / "releases" / OLD / "complete").exists()
