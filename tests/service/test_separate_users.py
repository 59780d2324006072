"""Four users, as deploy/systemd/ makes them: the whole way of an image works, and each sees its own only (promise 6).

Runs as root, with real processes under four numbers that belong to nobody; no account is made on the machine.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt, sop_class
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from gateway.keys.generate import make_keys
from tests.support.dicom.samples import encode
from tests.support.flow import ct
from tests.support.ports import free_port
from tests.support.units import CONFIGURATION, REPOSITORY, ROLES, STATE, Accounts, hand_over, lay_out

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

TOML = """version = 1
[site]
name = "four"
state = "{state}"
[keys]
restore_public_key = "credential:restore.public.pem"
restore_private_key = "credential:restore.private.pem"
signing_key = "credential:signing.private.pem"
trusted_signers = ["credential:signing.public.pem"]
spool_key = "credential:spool.key"
uid_key = "credential:uid.key"
mark_key = "credential:mark.key"
[ingress]
port = {ports[0]}
min_free_mib = 1
peers = [{{ ae_title = "ARCHIVE", addresses = ["127.0.0.1"] }}]
[[routes]]
name = "research"
called_ae = "RESEARCH"
destinations = ["sink"]
mark = {{ steps = 0 }}
[[destinations]]
name = "sink"
type = "research"
ae_title = "SINK"
host = "127.0.0.1"
port = {ports[1]}
retry_first_s = 0.3
retry_longest_s = 1
[worker]
device = "cpu"
poll_s = 3600
[restore]
tls_port = false
plain_port = {ports[2]}
[[restore.workstations]]
ae_title = "READER"
addresses = ["127.0.0.1"]
plain = true
[page]
port = {ports[3]}
"""


def closed_above(path: Path) -> Path | None:
    """The topmost folder above `path` that other users cannot pass, as a home of mode 0700."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def opened(root: Path) -> str:
    """Shell lines that, in a mount name space of their own, let any user run this Python and read this repository.

    In CI both may lie in root's home. What they hold is not secret, and nothing but them is shown.
    """
    paths = {Path(sys.base_prefix), Path(sys.prefix), Path(sys.exec_prefix), REPOSITORY}
    paths |= {Path(entry) for entry in sys.path if entry and Path(entry).is_dir()}
    paths |= {path.resolve() for path in paths}
    paths = {path for path in paths if not any(other in path.parents for other in paths)}
    closed: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        if (folder := closed_above(path)) is not None:
            closed.setdefault(folder, []).append(path)
    made = []
    for number, (folder, inner) in enumerate(closed.items()):
        holds = [(path, root / "mounts" / f"{number}-{index}") for index, path in enumerate(inner)]
        made += [f"mkdir -p {hold} && mount --bind {path} {hold}" for path, hold in holds]
        made.append(f"mount -t tmpfs -o mode=755 none {folder}")
        made += [f"mkdir -p {path} && mount --bind {hold} {path}" for path, hold in holds]
    return "".join(f"{line} || exit 97\n" for line in made)


@dataclass
class Site:
    """A site of four users, running."""

    root: Path
    accounts: Accounts
    ports: list[int]
    processes: dict[str, subprocess.Popen]
    received: list[tuple[str, bytes]]

    @property
    def state(self) -> Path:
        return self.root / STATE[1:]

    def passed(self, role: str, command: str, paths: Iterable[Path]) -> list[str]:
        """The paths for which a shell command on ``$path`` succeeds, run as the user of `role`: the kernel decides.

        One shell asks for all of them: a process of another user is a fork of all that this one holds.
        """
        script = f'for path; do {command} && printf "%s\\n" "$path"; done; echo asked'
        asked = ["/bin/sh", "-c", script, "sh", *map(str, paths)]
        done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True, **self.accounts.of(role))
        *found, end = done.stdout.splitlines()
        assert end == "asked"
        return found

    def does(self, role: str, command: str) -> int:
        """Exit code of a shell command run as the user of `role` in the state folder."""
        done = subprocess.run(["/bin/sh", "-c", command], cwd=self.state, capture_output=True, **self.accounts.of(role))
        return done.returncode

    def log(self, role: str) -> str:
        return (self.root / f"{role}.log").read_text()


@pytest.fixture(scope="module")
def four() -> Iterator[Site]:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("only root can run processes as four users")
    root = Path(tempfile.mkdtemp(prefix="miad-users-"))
    ports = [free_port() for _ in range(4)]
    received: list[tuple[str, bytes]] = []
    sink = AE("SINK")
    sink.add_supported_context(sop_class.CTImageStorage, EXPLICIT_LITTLE)

    def keep(event: evt.Event) -> int:
        received.append((event.request.AffectedSOPInstanceUID, event.encoded_dataset(include_meta=False)))
        return 0x0000

    server = sink.start_server(("127.0.0.1", ports[1]), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    processes: dict[str, subprocess.Popen] = {}
    try:
        root.chmod(0o755)
        accounts = Accounts()
        lay_out(root, accounts)
        keys = root / CONFIGURATION[1:] / "keys"
        make_keys(root / "made")
        for file in (root / "made").iterdir():
            shutil.copy(file, keys / file.name)
            (keys / file.name).chmod(0o600)
        shutil.rmtree(root / "made")
        configuration = root / CONFIGURATION[1:] / "gateway.toml"
        configuration.write_text(TOML.format(state=root / STATE[1:], ports=ports))
        os.chown(configuration, 0, accounts.groups["miad-gateway"])
        configuration.chmod(0o640)
        site = Site(root, accounts, ports, processes, received)
        for role in ROLES:
            processes[role] = start(site, role, configuration)
        for role in ROLES:
            wait_for(lambda role=role: '"event": "ready"' in site.log(role), site)
        yield site
        for process in processes.values():
            process.terminate()
        assert {role: process.wait(40) for role, process in processes.items()} == dict.fromkeys(ROLES, 0)
    finally:
        for process in processes.values():
            process.kill()
        server.shutdown()
        shutil.rmtree(root, ignore_errors=True)


def start(site: Site, role: str, configuration: Path) -> subprocess.Popen:
    """As its unit starts it: user, groups, umask, credentials; the environment holds nothing else."""
    ids = site.accounts.of(role)
    groups = ",".join(map(str, ids["extra_groups"]))
    drop = f"exec setpriv --reuid {ids['user']} --regid {ids['group']} --groups {groups} --no-new-privs --"
    script = f'{opened(site.root)}umask 027\ncd /\n{drop} "$@"\n'
    command = [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(configuration)]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CREDENTIALS_DIRECTORY": str(hand_over(site.root, role, site.accounts)),
    }
    with (site.root / f"{role}.log").open("w") as log:
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", *command], env=environment, stdout=log, stderr=log
        )


def wait_for(so, site: Site, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        for role, process in site.processes.items():
            assert process.poll() is None, site.log(role)[-3000:]
        assert time.monotonic() < deadline, "\n".join(site.log(role)[-1500:] for role in ROLES)
        time.sleep(0.1)


def retrieve(site: Site, ds) -> list[bytes]:
    """What a workstation gets by C-GET for the original's own UIDs."""
    got: list[bytes] = []

    def keep(event: evt.Event) -> int:
        got.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    ae = AE("READER")
    ae.add_requested_context(sop_class.StudyRootQueryRetrieveInformationModelGet)
    ae.add_requested_context(sop_class.CTImageStorage, EXPLICIT_LITTLE)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = sop_class.CTImageStorage, False, True
    handlers = [(evt.EVT_C_STORE, keep)]
    association = ae.associate(
        "127.0.0.1", site.ports[2], ae_title="MIAD_RESTORE", ext_neg=[role], evt_handlers=handlers
    )
    assert association.is_established
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID, asked.SeriesInstanceUID = ds.StudyInstanceUID, ds.SeriesInstanceUID
    asked.SOPInstanceUID = ds.SOPInstanceUID
    list(association.send_c_get(asked, sop_class.StudyRootQueryRetrieveInformationModelGet))
    association.release()
    return got


@pytest.mark.timeout(300)
def test_the_whole_way_of_an_image_works(four: Site) -> None:
    ds = ct(1)
    data = encode(ds)
    archive = AE("ARCHIVE")
    archive.add_requested_context(sop_class.CTImageStorage, EXPLICIT_LITTLE)
    association = archive.associate("127.0.0.1", four.ports[0], ae_title="RESEARCH")
    assert association.is_established
    sent = dcmread(io.BytesIO(data), force=True)
    sent.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    sent.file_meta.MediaStorageSOPClassUID, sent.file_meta.MediaStorageSOPInstanceUID = (
        ds.SOPClassUID,
        ds.SOPInstanceUID,
    )
    assert association.send_c_store(sent).Status == 0x0000
    association.release()
    wait_for(lambda: four.received, four)
    (derived, copy), *_ = four.received
    assert derived != ds.SOPInstanceUID and copy != data
    assert retrieve(four, ds) == [data]


def test_the_page_shows_it_and_says_which_logs_it_may_not_read(four: Site) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{four.ports[3]}/api/v1/status", timeout=30) as answer:
        status = json.load(answer)
    assert {one["role"]: one["up"] for one in status["listeners"]} == {"ingress": True, "restore": True, "page": True}
    with urllib.request.urlopen(f"http://127.0.0.1:{four.ports[3]}/api/v1/audit", timeout=30) as answer:
        audit = json.load(answer)
    assert set(audit["closed"]) == {"ingress", "worker", "restore"} and {one["log"] for one in audit["lines"]} == {
        "page"
    }


def test_no_user_reads_what_it_must_not(four: Site) -> None:
    """The keys of the others, the restore role's own folder, the audit of others, what waits and what is sealed."""
    state, keys = four.state, four.root / CONFIGURATION[1:] / "keys"
    for role in ROLES:
        others = [other for other in ROLES if other != role]
        forbidden = [keys, *keys.iterdir(), *(state / "audit" / other for other in others)]
        for other in others:
            folder = four.root / "run" / "credentials" / f"miad-gateway-{other}.service"
            forbidden += [folder, *folder.iterdir()]
        forbidden += [state / "restore"] if role != "restore" else [state / "spool", state / "derived"]
        forbidden += [state / "vault", state / "derived"] if role == "ingress" else []
        own = state / "audit" / role / f"{role}.jsonl"
        assert four.passed(role, 'test -r "$path"', [*forbidden, own]) == [str(own)], role


def test_no_user_writes_what_it_must_not(four: Site) -> None:
    state = four.state
    foreign = {
        "restore": ("spool", "derived", "vault"),
        "ingress": ("vault", "derived", "restore"),
        "worker": ("restore",),
    }
    for role, names in foreign.items():
        assert four.passed(role, 'test -w "$path"', [state / name for name in names]) == []
    for role in ROLES:  # nobody moves a folder of another aside and puts its own in its place
        assert four.does(role, "mv restore aside") != 0
        assert four.does(role, "mv audit/restore audit/aside") != 0
        assert four.does(role, "touch audit/new") != 0
    assert sorted(path.name for path in state.iterdir()) == [
        "audit", "database", "derived", "restore", "spool", "vault", "viewer",
    ]  # fmt: skip


def test_no_user_looks_into_the_process_of_another(four: Site) -> None:
    """Nor of its own: memory and environment of a role are closed to its own user too (PR_SET_DUMPABLE)."""
    for role in ROLES:
        names = ("environ", "mem", "maps")
        closed = [Path(f"/proc/{process.pid}/{name}") for process in four.processes.values() for name in names]
        assert four.passed(role, 'cat "$path" > /dev/null 2>&1', closed) == [], role
        assert four.passed(role, 'test -e "$path"', closed) == [str(path) for path in closed]  # they are there to ask


def test_the_files_are_theirs(four: Site) -> None:
    """Made by the role that should make them, with no mode for others."""
    for path in four.state.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o007 == 0, path
    (database,) = (four.state / "database").glob("gateway.sqlite")
    assert database.stat().st_mode & 0o777 == 0o660
    for role in ROLES:
        assert (four.state / "audit" / role / f"{role}.jsonl").stat().st_uid == four.accounts.of(role)["user"]


def test_the_logs_have_no_complaints(four: Site) -> None:
    for role in ROLES:
        assert '"level": "error"' not in four.log(role), four.log(role)
        assert "Traceback" not in four.log(role)
