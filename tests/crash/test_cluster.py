"""Durability `cluster` between real parts: machines are lost with their disks, and nothing that was acknowledged is.

Two ingress, two workers, one restore, each a process with a state folder of its own; SeaweedFS; PostgreSQL with a
synchronous standby; storescu, storescp and getscu.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest

from gateway.bucket import Bucket
from gateway.keys.generate import make_keys
from tests.crash.archive import received_files, store
from tests.crash.checks import Delivered, delivered, problems_of_sink, truth
from tests.crash.cluster import Machine
from tests.crash.objects import Instance, make_instances
from tests.support.network.peers import run, storescp
from tests.support.objects import SeaweedFs
from tests.support.standby import Pair
from tests.support.until import until

pytestmark = [pytest.mark.peers, pytest.mark.full, pytest.mark.timeout(1200)]
pytest.importorskip("obstore")
WAIT_S = 400.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[SeaweedFs, Pair, int]]:
    """Object store, database with its standby, and the port of the outside PACS, whose files lie in `sink`."""
    with ExitStack() as stack:
        objects = SeaweedFs(tmp_path / "objects")
        objects.start()
        stack.callback(objects.stop)
        pair = Pair()
        stack.callback(pair.close)
        pair.add_standby()
        yield objects, pair, stack.enter_context(storescp(tmp_path / "sink", "+uf"))


def test_nothing_acknowledged_is_lost_with_its_machine(parts: tuple[SeaweedFs, Pair, int], tmp_path: Path) -> None:
    objects, pair, sink_port = parts
    make_keys(tmp_path / "keys")
    shared = (tmp_path / "keys", pair.url, objects.settings(), sink_port)
    roles = {"a": "ingress", "b": "ingress", "c": "worker", "d": "worker", "e": "restore"}
    machines = {name: Machine(tmp_path / name, role, *shared) for name, role in roles.items()}
    one, two, worker, other, restore = machines.values()
    instances = make_instances(tmp_path / "instances", 16, seed=7)
    try:
        one.start()
        two.start()

        # an ingress dies right after its success, and its disk is gone; nobody has begun to work
        first = instances[:6]
        assert len(store(first, one.port)) == 6
        one.lose()

        # a worker dies in mid-step and its disk is gone: the digest is fixed, the row not yet
        worker.arm("marked: digest fixed, row not")
        worker.start(wait=False)
        until("the worker dies in its step", worker.died, WAIT_S)
        worker.lose()
        other.start(wait=False)
        restore.start()
        files = lambda: len(received_files(tmp_path / "sink"))  # noqa: E731
        until("the other worker delivers all", lambda: files() == 6, WAIT_S)

        # the store is away: no success
        objects.stop()
        assert store(instances[6:8], two.port) == set()
        objects.start()

        # ... or stands still
        objects.freeze()
        assert store(instances[8:9], two.port) == set()
        objects.thaw()

        # no standby is named any more: no success (nor where one is, and does not answer: tests/database)
        pair.standby.stop()
        pair.name("")
        assert store(instances[9:11], two.port) == set()
        pair.name()
        pair.standby.start()
        pair.wait()

        # and all of it is taken when they are back: the archive sends again
        acknowledged = {one.sop_instance_uid for one in first} | store(instances[6:15], two.port)

        # the database's server is lost with its disk, right after the success
        pair.fail_over()
        until("the ingress goes on with the other", lambda: store(instances[15:], two.port), WAIT_S)
        acknowledged.add(instances[15].sop_instance_uid)
        assert acknowledged == {one.sop_instance_uid for one in instances}
        until("all of it is outside", lambda: len({d.sop_instance_uid for d in copies(tmp_path)}) == 16, WAIT_S)
        received = objects.settings()
        until("what was received is deleted", lambda: not list(Bucket(received).list("received")), WAIT_S)

        # an authorized workstation gets the archive's bytes
        # (getscu has one context for CT: where explicit VR is in the vault too, what is in implicit VR does not fit it)
        wanted = [one for one in instances if one.option != "-xi"]
        with storescp(tmp_path / "archive", "+xa") as port:
            assert len(store(wanted, port)) == len(wanted) == 11
        assert restored(restore.restore_port, wanted, tmp_path / "restored") == truth(tmp_path / "archive")
    finally:
        for machine in machines.values():
            machine.destroy()
    sink = copies(tmp_path)
    assert problems_of_sink(sink, instances) == []
    times = Counter(copy.sop_instance_uid for copy in sink)
    # what was refused may have been queued all the same, and was sent again: of these, so many may go out twice
    refused = [*instances[6:11], instances[15]]
    assert len(times) == len(instances)
    assert sum(count > 1 for count in times.values()) <= len(refused)


def copies(folder: Path) -> list[Delivered]:
    """What lies outside."""
    return delivered(folder / "sink")


def restored(port: int, instances: Sequence[Instance], folder: Path) -> dict[str, str]:
    """SOP Instance UID -> SHA-256 of what C-GET brings, each series in its own transfer syntax."""
    folder.mkdir()
    series = {str(pydicom.dcmread(one.path).SeriesInstanceUID): one for one in instances}
    for uid, one in series.items():
        study = pydicom.dcmread(one.path).StudyInstanceUID
        keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={study}", "-k", f"SeriesInstanceUID={uid}"]
        who = ["-aet", "READER", "-aec", "MIAD_RESTORE", "127.0.0.1", port]
        syntax = "+xr" if one.option == "-xr" else "+x="
        done = run("getscu", "+B", "-S", "-od", folder, syntax, *keys, *who, timeout_s=120)
        assert done.returncode == 0, done.stderr
    return truth(folder)
