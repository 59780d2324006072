"""The supervisor: one role's trouble is its own, restarts back off, and no role gets another's secrets."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from gateway.config import Config, InvalidConfigError, SecretRef, Source
from gateway.config.base import Model
from gateway.config.duties import ROLES, foreign_variables, roles_of, roles_to_start, secrets_of
from gateway.config.load import parse_config
from gateway.config.store import Store
from gateway.service.supervisor import CANNOT_START, Supervisor, _Child
from gateway.service.whole import environment as _environment
from gateway.service.wishes import Wish, Wishes

REPOSITORY = Path(__file__).parent.parent.parent


class Quick(Supervisor):
    """The same with a clock that a test can wait for."""

    RESTART_S = 0.2
    LONGEST_RESTART_S = 0.8
    STEADY_S = 60.0


Logged = list[dict]


def supervised(
    scripts: dict[str, str], tmp_path: Path, enough: Callable[[Logged], bool] = lambda _: False
) -> tuple[int, Logged, Quick]:
    """Run roles that are shell scripts until it is `enough`, then ask to stop; exit code and what was logged."""
    environment = {**os.environ, "OUT": str(tmp_path)}
    supervisor = Quick(Path("x.toml"), dict.fromkeys(scripts, environment), lambda role: ["sh", "-c", scripts[role]])
    over = threading.Event()

    def own() -> Logged:  # threads of other tests may log meanwhile
        return [line for line in list(logged) if line.get("role") in scripts]

    def watch() -> None:
        deadline = time.monotonic() + 120
        while not over.wait(0.02) and not enough(own()) and time.monotonic() < deadline:
            pass
        supervisor._stopping.set()

    watching = threading.Thread(target=watch, daemon=True)
    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs() as logged:
        patch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
        watching.start()
        code = supervisor.run()
        over.set()
        watching.join()
    return code, own(), supervisor


STEADY = "trap 'exit 0' TERM; echo run >> $OUT/steady; while :; do sleep 0.05; done"


def test_a_role_that_cannot_start_does_not_stop_the_others(tmp_path: Path) -> None:
    scripts = {"ingress": STEADY, "worker": f"echo run >> $OUT/worker; exit {CANNOT_START}"}
    begun = tmp_path / "steady"
    code, logged, _ = supervised(scripts, tmp_path, lambda told: bool(told) and begun.exists())
    assert (tmp_path / "worker").read_text() == "run\n"  # tried once, told once
    assert begun.read_text() == "run\n"
    assert [line["event"] for line in logged] == ["this role cannot start; the others go on"]
    assert logged[0]["role"] == "worker"
    assert code == CANNOT_START


def test_when_no_role_can_start_it_ends_by_itself(tmp_path: Path) -> None:
    code, logged, _ = supervised(dict.fromkeys(("ingress", "worker"), f"exit {CANNOT_START}"), tmp_path)
    assert (code, len(logged)) == (CANNOT_START, 2)


def test_a_process_that_the_system_does_not_give_ends_nobody_else(tmp_path: Path, monkeypatch) -> None:
    """fork(2) fails for want of memory or of processes: at the start, and when a role that died is started again."""
    started, popen = [], subprocess.Popen

    def short(command, **given):
        started.append(command[-1])
        if "worker" in command[-1] and started.count(command[-1]) in (1, 3):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return popen(command, **given)

    monkeypatch.setattr(subprocess, "Popen", short)
    scripts = {"worker": "echo worker >> $OUT/worker; exit 1", "ingress": STEADY}
    code, logged, _ = supervised(scripts, tmp_path, lambda told: len(told) >= 4)
    assert (tmp_path / "steady").read_text() == "run\n"
    assert [line["event"] for line in logged][:3] == [
        "role not started, trying again",
        "role ended, starting it again",
        "role not started, trying again",
    ]
    assert [line["in_s"] for line in logged][:4] == [0.2, 0.4, 0.8, 0.8]
    assert code == 1


def test_restarts_back_off(tmp_path: Path) -> None:
    """A role that dies at once is started after 0.2, 0.4, 0.8, 0.8 ... s here: 1, 2, 4 ... 60 s in earnest."""
    scripts = {"worker": "date +%s.%N >> $OUT/times; exit 1", "ingress": STEADY}
    code, logged, _ = supervised(scripts, tmp_path, lambda told: len(told) >= 4)
    pauses = [line["in_s"] for line in logged if line["event"] == "role ended, starting it again"]
    assert pauses[:4] == [0.2, 0.4, 0.8, 0.8]
    starts = [float(line) for line in (tmp_path / "times").read_text().split()]
    assert len(starts) >= 4
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(gap >= pause for gap, pause in zip(gaps, pauses, strict=False))
    assert code == 1  # it was dead when all were asked to stop, or died then
    assert (tmp_path / "steady").read_text() == "run\n"


def test_a_role_that_ran_steadily_begins_anew_with_the_first_pause(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Quick, "STEADY_S", 0.1)
    _, logged, _ = supervised({"worker": "sleep 0.2; exit 1"}, tmp_path, lambda told: len(told) >= 2)
    pauses = [line["in_s"] for line in logged]
    assert len(pauses) >= 2 and set(pauses) == {0.2}


def test_a_signal_is_heard_while_roles_prepare_a_reload(tmp_path: Path) -> None:
    """A role may take minutes to prepare, or never answer."""
    source = Source.of_texts([(str(tmp_path / "gateway.toml"), "version = 1")])
    environment = {**os.environ, "OUT": str(tmp_path)}
    supervisor = Quick(tmp_path / "gateway.toml", {"worker": environment}, lambda _: ["sh", "-c", STEADY], source)
    refused: list[str] = []

    def reload(_: Wish) -> None:
        threading.Timer(0.3, supervisor._stopping.set).start()  # what the handler of SIGTERM does
        with pytest.raises(InvalidConfigError) as caught:
            supervisor.prepare(source, "test")
        refused.append(caught.value.code)

    def when_begun(self: Wishes, timeout_s: float) -> Wish | None:
        time.sleep(0.01)
        return wish if (tmp_path / "steady").exists() and not refused else None

    wish = Wish("reload")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)
        patch.setattr(Wishes, "get", when_begun)
        assert supervisor.run(Wishes(), reload) == 0
    assert refused == ["role-not-ready"]


SECRETS = """
[database]
url = "env:T_DATABASE"
[keys]
restore_private_key = "env:T_RESTORE"
restore_public_key = "env:T_PUBLIC"
restore_proof = "env:T_PROOF"
signing_key = "env:T_SIGNING"
trusted_signers = ["env:T_SIGNER"]
spool_key = "env:T_SPOOL"
uid_key = "env:T_UID"
mark_key = "env:T_MARK"
"""
HELD = {
    "ingress": {"T_SPOOL", "T_DATABASE"},
    "worker": {"T_SPOOL", "T_UID", "T_MARK", "T_SIGNING", "T_PUBLIC", "T_PROOF", "T_SIGNER", "T_DATABASE"},
    "restore": {"T_RESTORE", "T_PROOF", "T_SIGNER", "T_DATABASE"},
    "page": {"T_DATABASE"},
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_its_own_secrets_only(role: str, monkeypatch) -> None:
    config = parse_config(SECRETS, Path("gateway.toml"))
    names = {reference.variable for reference in references(config)}
    assert names == set().union(*HELD.values())  # the text above names every reference that there is
    for name in names:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("T_ELSE", "no secret of ours")
    given = {name for name in _environment(config, role) if name.startswith("T_")}
    assert given == HELD[role] | {"T_ELSE"}


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_gets_is_what_the_kernel_shows(role: str, monkeypatch) -> None:
    """/proc/PID/environ of a process that the supervisor started."""
    config = parse_config(SECRETS, Path("gateway.toml"))
    for name in HELD["worker"] | HELD["restore"]:
        monkeypatch.setenv(name, "secret")
    supervisor = Supervisor(Path("x"), {role: _environment(config, role)}, lambda _: ["sleep", "30"])
    process = supervisor._start(role, _Child())
    try:
        deadline = time.monotonic() + 50
        while not (entries := Path(f"/proc/{process.pid}/environ").read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.01)  # of a program that the kernel is still loading it shows none
    finally:
        process.kill()
        process.wait()
    assert {entry.split(b"=")[0].decode() for entry in entries.split(b"\0") if entry.startswith(b"T_")} == HELD[role]


def test_a_secret_that_is_forgotten_stands_nowhere_in_the_process() -> None:
    """A role that was started with everybody's environment: taken over, it would read what lies in its memory."""
    script = """
import os, re
from gateway.service.hardening import forget_variables
forget_variables(["T_OTHERS", "T_MISSING"])
print("T_OTHERS" in os.environ, b"s3cret" in open("/proc/self/environ", "rb").read(), os.environ["T_OWN"])
"""
    environment = {**os.environ, "T_OTHERS": "s3cret-key", "T_OWN": "kept", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "kept"]


def references(value: object) -> list[SecretRef]:
    if isinstance(value, SecretRef):
        return [value]
    if isinstance(value, Model):
        return [one for name in type(value).model_fields for one in references(getattr(value, name))]
    return [one for entry in value for one in references(entry)] if isinstance(value, tuple) else []


def test_every_key_is_somebody_s() -> None:
    """A new key of [keys] belongs to at least one role, and the private restore key to one only."""
    config = Config()
    held = {role: {str(reference) for _, reference, _ in secrets_of(config, role)} for role in ROLES}
    named = {str(reference) for reference in references(config.keys)}
    assert set().union(*held.values()) == named | {str(config.keys.proof)}  # which is looked for beside the public key
    assert [role for role in ROLES if str(config.keys.restore_private_key) in held[role]] == ["restore"]
    assert str(config.keys.restore_private_key) not in {str(ref) for _, ref, _ in secrets_of(config, "all")}
    assert foreign_variables(config, "worker") == frozenset()


def test_the_object_stores_account_is_the_worker_s_and_the_restore_role_s() -> None:
    given = {"access_key_id": SecretRef("env:STORE_ID"), "secret_access_key": SecretRef("env:STORE_KEY")}
    config = Config(store=Store(url="s3://vault", endpoint="https://store.example", **given))
    holders = [role for role in ROLES if SecretRef("env:STORE_KEY") in [ref for _, ref, _ in secrets_of(config, role)]]
    assert holders == ["worker", "restore"]
    assert {role for role in ROLES if "STORE_KEY" in foreign_variables(config, role)} == {"ingress", "page"}
    assert roles_of(("store", "endpoint")) == ("worker", "restore")
    cluster = config.model_copy(update={"durability": "cluster"})  # the ingress keeps there what it receives
    assert SecretRef("env:STORE_KEY") in [ref for _, ref, _ in secrets_of(cluster, "ingress")]
    assert "STORE_KEY" in foreign_variables(cluster, "page") and "STORE_KEY" not in foreign_variables(
        cluster, "ingress"
    )


def test_what_is_wrong_is_told_to_the_roles_that_it_concerns() -> None:
    assert roles_of(("ingress", "port")) == ("ingress",)
    assert roles_of(("destinations", 0, "tls")) == roles_of(("routes", 0)) == ("worker",)
    assert roles_of(("keys", "spool_key")) == ("ingress", "worker")
    assert roles_of(("keys", "restore_private_key")) == ("restore",)
    assert roles_of(("database", "url")) == roles_of(("site", "state")) == roles_of(("keys",)) == ROLES


def test_a_role_without_work_is_not_started() -> None:
    assert roles_to_start(Config()) == ["worker"]  # as vault recover may leave it: no route, no workstation yet


HARDENED = """
import resource, ctypes
from gateway.service.hardening import forbid_core_dumps
forbid_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_core_dumps_are_off() -> None:
    done = subprocess.run([sys.executable, "-c", HARDENED], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "(0, 0) 0\n"
