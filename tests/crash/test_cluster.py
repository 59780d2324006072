"""Durability `cluster` between real parts: machines are lost with their disks, or cut off, and nothing acknowledged is.

Two ingress, two workers, two restore and two PostgreSQL under Patroni, each a machine with a network namespace and a
disk of its own; SeaweedFS on two disks; storescu, storescp and getscu outside.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from gateway.bucket import Bucket
from gateway.keys.generate import make_keys
from tests.conftest import needed
from tests.crash.archive import NO_RESOURCES, SUCCESS, send, store
from tests.crash.checks import delivered, problems_of_sink, truth
from tests.crash.cluster import Machine, Site
from tests.crash.objects import Instance, make_instances
from tests.support.network.namespaces import Network
from tests.support.network.peers import run, storescp
from tests.support.objects import SeaweedFs
from tests.support.patroni import Patroni
from tests.support.until import until

pytestmark = [pytest.mark.peers, pytest.mark.full, pytest.mark.timeout(1200)]
needed("obstore")
WAIT_S = 400.0
IN_STEP = "marked: digest fixed, row not"
TAKEN_OVER = "step taken over by another worker"
UNCONFIRMED = "received: success said, row not written"  # here: the object is in the store, nobody has been told


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Network, SeaweedFs, Patroni, int]]:
    """Network, object store, databases, and the port of the outside PACS, whose files lie in `sink`."""
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        databases = Patroni(network)
        stack.callback(databases.close)
        objects = SeaweedFs(tmp_path / "objects", address=network.address, volumes=2)
        stack.callback(objects.stop)
        objects.start()
        databases.wait()
        yield network, objects, databases, stack.enter_context(storescp(tmp_path / "sink", "+uf"))


class Campaign:
    """The site, what its archive was told of, and how long each event took."""

    def __init__(self, folder: Path, network: Network, objects: SeaweedFs, databases: Patroni, sink_port: int) -> None:
        make_keys(folder / "keys")
        site = Site(network, folder / "keys", databases.url, objects.settings(timeout_s=3), sink_port)
        roles = ["ingress", "ingress", "worker", "worker", "worker", "restore", "restore"]
        made = [Machine(folder / f"{number}-{role}", role, site) for number, role in enumerate(roles)]
        self.one, self.two, self.worker, self.next, self.last, self.reader, self.second = made
        self.folder, self.objects, self.databases = folder, objects, databases
        # no implicit VR: getscu has one context for CT, and what is in it does not fit where explicit VR is there too
        self.instances = [one for one in make_instances(folder / "instances", 24, seed=7) if one.option != "-xi"]
        self.taken: list[Instance] = []
        self.refused: list[Instance] = []
        self._began = time.monotonic()

    def send(self, instances: Sequence[Instance], to: Machine, patience_s: int = 30) -> set[str]:
        """Send some; returns the answers that came, and remembers what was taken, and what was not."""
        answers = send(instances, to.address, to.port, patience_s=patience_s)
        for one in instances:
            (self.taken if answers.get(one.sop_instance_uid) == SUCCESS else self.refused).append(one)
        return set(answers.values())

    def send_until_taken(self, instances: Sequence[Instance], to: Machine) -> None:
        """What an archive does: send each again until it is answered with success."""
        for one in instances:
            deadline = time.monotonic() + WAIT_S
            while self.send([one], to, patience_s=10) != {SUCCESS}:
                assert time.monotonic() < deadline, "it is never taken"
                time.sleep(0.5)

    def outside(self) -> int:
        """How many of the instances are there; none as long as one is being written, under the name that it keeps."""
        try:
            return len({copy.sop_instance_uid for copy in delivered(self.folder / "sink")})
        except (InvalidDicomError, AttributeError, EOFError, struct.error):
            return 0

    def tell(self, event: str) -> None:
        """What is over, and how long it took: pytest shows it when a test fails."""
        now = time.monotonic()
        print(f"{now - self._began:6.1f} s  {event}")
        self._began = now


def test_nothing_acknowledged_is_lost_with_its_machine(
    parts: tuple[Network, SeaweedFs, Patroni, int], tmp_path: Path
) -> None:
    site = Campaign(tmp_path, *parts)
    an_ingress_is_cut_off_and_another_lost(site)
    a_worker_is_cut_off_and_another_lost(site)
    a_restorer_is_cut_off_and_lost(site)
    disks_of_the_store_are_lost(site)
    the_primary_is_cut_off_and_lost(site)

    assert {one.sop_instance_uid for one in site.taken} == {one.sop_instance_uid for one in site.instances}
    until("all of it is outside", lambda: site.outside() == len(site.instances), WAIT_S)
    received = Bucket(site.objects.settings())
    until("what was received is deleted", lambda: not list(received.list("received")), WAIT_S)
    assert fetched(site.second, site) == expected(site, site.instances)
    site.tell("all is outside, and comes back")

    copies = delivered(tmp_path / "sink")
    assert problems_of_sink(copies, site.instances) == []
    numbers = Counter(int(pydicom.dcmread(copy.path, stop_before_pixels=True).InstanceNumber) for copy in copies)
    number_of = {one: int(one.path.stem) + 1 for one in site.instances}
    assert set(numbers) == set(number_of.values())
    # what was refused may have been queued all the same, and was sent again; and what was being delivered while nobody
    # could write that down
    may_be_twice = {number_of[one] for one in (*site.refused, *site.instances[9:])}
    assert {number for number, count in numbers.items() if count > 1} <= may_be_twice


def an_ingress_is_cut_off_and_another_lost(site: Campaign) -> None:
    """One stands still and is cut off between object and row; the archive turns to the other, which then is lost."""
    site.one.start()
    site.two.start()
    for machine in (site.one, site.two):
        machine.wait()
    site.two.arm(UNCONFIRMED, "SIGSTOP")
    cut = threading.Thread(target=site.send, args=(site.instances[:1], site.two, 3))
    cut.start()
    until("it stands still", site.two.fired)
    site.two.host.unplug()
    cut.join()
    site.send_until_taken(site.instances[:2], site.one)
    site.two.thaw()
    site.two.host.plug()
    site.send_until_taken(site.instances[2:4], site.one)
    site.one.lose()  # right after its success; nobody has begun to work
    site.send_until_taken(site.instances[4:5], site.two)
    site.tell("an ingress was cut off, and one lost")


def a_worker_is_cut_off_and_another_lost(site: Campaign) -> None:
    """One stands still in its step and is cut off, the next dies in its own; a third does the work of both, and is lost
    when all is done. The first comes back: it is late, and goes on with what is to come.
    """
    site.worker.arm(IN_STEP, "SIGSTOP")
    site.worker.start()
    until("it stands still", site.worker.fired, WAIT_S)
    site.worker.host.unplug()
    for machine in (site.reader, site.second):
        machine.start()
    site.next.arm(IN_STEP)
    site.next.start()
    until("the next one dies in its step", site.next.fired, WAIT_S)
    site.next.lose()
    site.last.start()
    until("all of it is outside", lambda: site.outside() == 5, WAIT_S)
    site.last.lose()
    site.worker.thaw()
    site.worker.host.plug()
    until("the first hears that it is late", lambda: TAKEN_OVER in site.worker.log.read_text(), WAIT_S)
    site.tell("a worker was cut off, and two were lost")


def a_restorer_is_cut_off_and_lost(site: Campaign) -> None:
    """While one is cut off or lost, the other gives the archive's bytes; the first does so again when it is back."""
    there = expected(site, site.instances[:5])
    for machine in (site.reader, site.second):
        machine.wait()
    assert fetched(site.reader, site) == there
    found: dict[str, str] = {}
    cut = threading.Thread(target=lambda: found.update(fetched(site.reader, site, patience_s=4)))
    cut.start()
    site.reader.host.unplug()
    assert fetched(site.second, site) == there
    cut.join()
    assert found.items() <= there.items()
    site.reader.host.plug()
    until("it gives them again", lambda: fetched(site.reader, site) == there, WAIT_S)
    site.reader.lose()
    site.tell("a restorer was cut off, and lost")


def disks_of_the_store_are_lost(site: Campaign) -> None:
    """Of two disks one is lost: what is there is read, nothing is taken; repaired, the other may be lost as well."""
    objects, new = site.objects, site.instances[5:9]
    for disk, part in zip(objects.volumes, (new[:2], new[2:]), strict=True):
        before = expected(site, site.taken)
        disk.lose()
        assert site.send(part[:1], site.two) == {NO_RESOURCES}
        assert fetched(site.second, site) == before
        disk.start()
        site.send_until_taken(part, site.two)
        objects.repair()
        until("all of it is outside", lambda: site.outside() == len({one.path for one in site.taken}), WAIT_S)
    objects.freeze()
    assert site.send(site.instances[9:10], site.two) == {NO_RESOURCES}
    objects.thaw()
    site.tell("disks of the store were lost")


def the_primary_is_cut_off_and_lost(site: Campaign) -> None:
    """While the archive sends, the primary is cut off from its standby, not from the gateway: nothing is confirmed any
    more, by it or by the one that takes its place and is alone. Then it is lost; with a new one all goes on.
    """
    load = threading.Thread(target=site.send_until_taken, args=(site.instances[9:], site.two))
    load.start()
    old = site.databases.primary
    until("the archive sends", lambda: site.instances[10] in site.taken, WAIT_S)
    with site.databases.parted(old) as new:
        site.tell("the primary was cut off, and replaced")
        answered = len(site.taken)
        assert new.ask("SHOW synchronous_standby_names") == [("*",)]
        assert site.send(site.instances[-1:], site.two) == {NO_RESOURCES}
        old.lose()
        assert len(site.taken) == answered, "success, and nobody but one has it"
    assert site.send(site.instances[-1:], site.two) == {NO_RESOURCES}
    assert len(site.taken) == answered
    old.host.plug()
    old.start()
    load.join()
    site.databases.wait()
    site.tell("it came back with an empty disk")


def expected(site: Campaign, instances: Sequence[Instance]) -> dict[str, str]:
    """SOP Instance UID -> SHA-256 of what the archive sends."""
    folder = site.folder / f"archive-{time.monotonic_ns()}"
    wanted = list(dict.fromkeys(instances))
    with storescp(folder, "+xa") as port:
        assert len(store(wanted, port)) == len(wanted)
    return truth(folder)


def fetched(machine: Machine, site: Campaign, patience_s: int = 60) -> dict[str, str]:
    """SOP Instance UID -> SHA-256 of what C-GET brings, each series in its own transfer syntax."""
    folder = site.folder / f"restored-{time.monotonic_ns()}"
    folder.mkdir()
    for one in site.instances[:2]:  # one of each series
        ds = pydicom.dcmread(one.path, stop_before_pixels=True)
        keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={ds.StudyInstanceUID}"]
        keys += ["-k", f"SeriesInstanceUID={ds.SeriesInstanceUID}"]
        waits = ["-to", "5", "-ta", patience_s, "-td", patience_s]
        who = ["-aet", "READER", "-aec", "MIAD_RESTORE", machine.address, machine.restore_port]
        syntax = "+xr" if one.option == "-xr" else "+x="
        run("getscu", "+B", *waits, "-od", folder, syntax, "-S", *keys, *who, timeout_s=120)
    return truth(folder)
