"""A gateway under load whose configuration changes: reloads, some of them broken, while instances come in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import func, select

from gateway.config import load_config
from gateway.database import InstanceRow, reading
from gateway.keys.generate import make_keys
from gateway.service import database
from gateway.service.operate import reload
from tests.support.flow import ct
from tests.support.network import peers
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port

PAUSE_S = 0.05  # between two objects of a sender
REPOSITORY = Path(__file__).parent.parent.parent

TOML = """version = 1
[site]
name = "reloads"
[ingress]
port = {port}
max_associations = {limit}
peers = [
  {{ ae_title = "ARCHIVE", addresses = ["127.0.0.1"] }},
  {{ ae_title = "OTHER{number}", addresses = ["10.0.0.1"] }},
]
[worker]
poll_s = 0.1
[[destinations]]
name = "sink"
type = "research"
ae_title = "OUTSIDE"
host = "127.0.0.1"
port = {sink_port}
max_pdu = {max_pdu}
retry_first_s = 0.5
[[routes]]
name = "relay"
called_ae = "RELAY"
destinations = ["sink"]
mark = {{ steps = 0 }}
[[routes]]
name = "further"
called_ae = "FURTHER{number}"
destinations = ["sink"]
mark = {{ steps = 0 }}
[restore]
tls_port = {restore_port}
[restore.tls]
certificate = "tls/restore.pem"
private_key = "tls/restore.key"
trust = "tls/trust.pem"
[reload]
watch = false
"""


class Site:
    """A gateway in one folder, with a supervisor and three roles, and an authority that renews its certificate."""

    def __init__(self, folder: Path, sink_port: int = 0, text: str = TOML) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        make_keys(folder / "keys")
        self.port = free_port()
        self.restore_port = free_port()
        self.sink_port = sink_port or free_port()
        self.file = folder / "gateway.toml"
        self.log = folder / "log"
        self.text = text
        self.authority = Authority(folder / "authority")
        self.renew()
        self.write(0)

    def write(self, number: int, **changes: object) -> None:
        """Write the configuration with this number: each differs from the one before in all that it may."""
        values: dict[str, object] = {
            "port": self.port,
            "sink_port": self.sink_port,
            "restore_port": self.restore_port,
            "limit": 40 + number % 7,
            "number": number,
            "max_pdu": 65_536 + 4096 * (number % 3),
        }
        replaced = self.folder / "new.toml"
        replaced.write_text(self.text.format(**values | changes))
        os.replace(replaced, self.file)

    def renew(self, name: str = "restore") -> bytes:
        """Put another certificate with another key in the place of the old one; its bytes."""
        tls = self.authority.issue(name)
        (self.folder / "tls").mkdir(exist_ok=True)
        for made, place in ((tls.certificate, "pem"), (tls.private_key, "key")):
            target = self.folder / "tls" / f"restore.{place}"
            target.touch(mode=0o600)
            target.write_bytes(made.read_bytes())
        (self.folder / "tls" / "trust.pem").write_bytes(self.authority.trust.read_bytes())
        return tls.certificate.read_bytes()

    @contextmanager
    def running(self, role: str = "all") -> Iterator[subprocess.Popen]:
        """`miad-gateway serve` for the length of the block; it listens."""
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", role, "--config", str(self.file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            ready = {"ingress", "worker", "restore"} if role == "all" else {role}
            self.wait(lambda: ready <= {line["role"] for line in self.logged("ready")}, process)
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 0, self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def wait(self, is_so: Callable[[], bool], process: subprocess.Popen | None = None, seconds: float = 90) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert process is None or process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def logged(self, event: str) -> list[dict]:
        """The lines of the log with this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def audited(self, role: str, event: str = "configuration-loaded") -> list[dict]:
        """The lines of a role's audit with this event."""
        lines = [json.loads(line) for line in (self.folder / "state/audit" / f"{role}.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def reload(self) -> list[dict]:
        """As `miad-gateway reload` does once the file itself could be read; the answers."""
        return reload(load_config(self.file))

    def states(self) -> Counter[str]:
        """How many instances are in each state."""
        with reading(database(load_config(self.file))) as session:
            rows = session.execute(select(InstanceRow.state, func.count()).group_by(InstanceRow.state)).all()
        return Counter({row[0]: row[1] for row in rows})


@dataclass
class Sent:
    """What senders were told."""

    statuses: Counter[str] = field(default_factory=Counter)  # by status, or what else became of it
    associations: int = 0
    _lock = threading.Lock()

    def open_one(self) -> None:
        with self._lock:
            self.associations += 1

    def count(self, what: str) -> None:
        with self._lock:
            self.statuses[what] += 1


def send(port: int, objects: list[Dataset], sent: Sent, each: int) -> None:
    """Send objects, `each` of them on one association, by pynetdicom as an archive would."""
    for first in range(0, len(objects), each):
        ae = ApplicationEntity("ARCHIVE")
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", port, ae_title="RELAY")
        sent.open_one()
        for ds in objects[first : first + each]:
            if not association.is_established:
                sent.count("no association")
                continue
            status = association.send_c_store(ds).get("Status")
            sent.count("no answer" if status is None else f"0x{status:04X}")
            time.sleep(PAUSE_S)
        association.release()


def broken(site: Site, which: int, number: int) -> str:
    """Make the configuration unusable in one of five ways; which it was."""
    site.write(number)
    text = site.file.read_text()
    if which == 0:
        site.file.write_text(text + "\n[ingress\n")
        return "syntax"
    if which == 1:
        site.file.write_text(text.replace("[[destinations]]", "[[destinations]]\nnaem = 1"))
        return "unknown key"
    if which == 2:
        site.file.write_text(text.replace("tls/trust.pem", "tls/nowhere.pem"))
        return "certificate"
    if which == 3:
        site.file.write_text(text.replace('name = "reloads"', 'name = "reloads"\nstate = "elsewhere"'))
        return "state folder"
    site.file.write_text(re.sub(r"tls_port = \d+", f"tls_port = {site.sink_port}", text))
    return "port taken"


@dataclass
class Outcome:
    """What came of it."""

    instances: int
    reloads: int
    refused_reloads: int
    sent: Sent
    states: Counter[str]
    at_sink: int  # different SOP Instance UIDs
    seconds: list[float]  # of each reload

    @property
    def problems(self) -> list[str]:
        """What should not be."""
        told = []
        if self.sent.statuses != {"0x0000": self.instances}:
            told.append(f"statuses: {dict(self.sent.statuses)}")
        if self.states != {"delivered": self.instances}:
            told.append(f"states: {dict(self.states)}")
        if self.at_sink != self.instances:
            told.append(f"at the sink: {self.at_sink}")
        return told


def campaign(folder: Path, instances: int, reloads: int, breaks: int, senders: int = 4) -> Outcome:
    """Send instances while the configuration is reloaded; the broken ones lie evenly among the others."""
    sink = folder / "sink"
    sink.mkdir(parents=True)
    sink_port = free_port()
    arguments = ("+xa", "+B", "-od", sink, "-aet", "OUTSIDE", sink_port)
    with peers.running("storescp", *arguments, port=sink_port):
        site = Site(folder / "site", sink_port)
        with site.running() as process:
            outcome = _send_and_reload(site, process, instances, reloads, breaks, senders)
            outcome.states, begun = site.states(), time.monotonic()
            while outcome.states["delivered"] < outcome.sent.statuses["0x0000"] and time.monotonic() < begun + 1800:
                time.sleep(0.5)
                outcome.states = site.states()
    outcome.at_sink = len({dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in sink.iterdir()})
    return outcome


def _send_and_reload(
    site: Site, process: subprocess.Popen, instances: int, reloads: int, breaks: int, senders: int
) -> Outcome:
    sent, seconds, refused = Sent(), list[float](), 0
    objects = [ct(number, SOPInstanceUID=f"1.2.826.0.1.98.{number}") for number in range(1, instances + 1)]
    for ds in objects:
        ds.StudyInstanceUID = "1.2.826.0.1.98"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Short associations and long ones, and one sender that keeps a single one over many reloads.
    shares = [objects[index::senders] for index in range(senders)]
    threads = [
        threading.Thread(target=send, args=(site.port, share, sent, len(share) if index == 0 else 3 + 4 * index))
        for index, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    for number in range(1, reloads + 1):
        site.wait(lambda: sent.statuses.total() >= number * instances // (reloads + 1), process, 1800)  # noqa: B023
        is_broken = breaks > 0 and number % (reloads // breaks) == 0 and refused < breaks
        begun = time.monotonic()
        if is_broken:
            _refuse(site, process, refused, number)
            refused += 1
        else:
            _reload(site, process, number)
        seconds.append(round(time.monotonic() - begun, 2))
    for thread in threads:
        thread.join()
    return Outcome(instances, reloads, refused, sent, Counter(), 0, seconds)


def _reload(site: Site, process: subprocess.Popen, number: int) -> None:
    """By the command and by SIGHUP in turn; every third time with other ports and certificates."""
    if number % 3 == 0:
        site.restore_port = free_port()
        site.renew()
    site.write(number)
    done = len(site.logged("configuration reloaded"))
    if number % 2:
        (answer,) = site.reload()
        assert answer["ok"], answer
    else:
        process.send_signal(signal.SIGHUP)
    site.wait(lambda: len(site.logged("configuration reloaded")) >= done + 4, process)  # three roles, and all of them


def _refuse(site: Site, process: subprocess.Popen, which: int, number: int) -> None:
    told = "the configuration was not taken over: the old one stays in force"
    before = len([line for line in site.logged(told) if line["role"] == "all"])
    kind = broken(site, which % 5, number)
    process.send_signal(signal.SIGHUP)
    site.wait(lambda: len([line for line in site.logged(told) if line["role"] == "all"]) > before, process)
    assert len(site.audited("supervisor")), kind
    site.write(number)
