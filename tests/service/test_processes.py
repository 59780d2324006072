"""Several processes of a role: receivers on one port, each with its segments, limits counted together; workers; one
reload for all.
"""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from gateway.config import InvalidConfigError
from gateway.config.duties import processes_of, role_of
from gateway.config.load import parse_config
from gateway.errors import DeliveryError
from gateway.network.scu import Peer, ScuAssociation
from tests.support.network import peers
from tests.support.network.peers import free_port
from tests.support.network.samples import CT, EXPLICIT, ct
from tests.support.reloading import TOML, Site

TWO = TOML.replace("[ingress]\n", "[ingress]\nprocesses = 2\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", text=TWO)


def associate(site: Site) -> ScuAssociation:
    return ScuAssociation(Peer("127.0.0.1", site.port, "RELAY", "ARCHIVE"), [(CT, EXPLICIT)])


def store(site: Site, count: int, side: int = 16) -> list[int]:
    """Send images, each on an association of its own; the statuses."""
    statuses = []
    for _ in range(count):
        association, (uid, data) = associate(site), ct(side)
        statuses.append(association.store(CT, uid, EXPLICIT, io.BytesIO(data)).status)
        association.release()
    return statuses


def cpu_s(pid: int) -> int:
    """Ticks of the processor that a process has had."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def children(pid: int, role: bytes = b"ingress") -> list[int]:
    """The child processes of a process that run a role."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for each in found if b"--role\0%s\0" % role in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.parametrize("role", ["ingress", pytest.param("all", marks=pytest.mark.full)])
def test_two_receive_beside_each_other_and_one_that_is_killed_comes_back(site, role):
    with site.running(role) as process:

        def ready(count: int) -> bool:
            return len([line for line in site.logged("ready") if line["role"] == "ingress"]) >= count

        site.wait(lambda: ready(2), process)
        assert store(site, 24) == [0] * 24  # the kernel spreads them over both: all on one is one in eight million
        assert len(list((site.folder / "state/spool").glob("*.seg*"))) == 2
        first = children(process.pid)[0]
        os.kill(first, signal.SIGKILL)
        site.wait(lambda: not Path(f"/proc/{first}").exists(), process)  # only then all it had open is closed
        assert store(site, 8) == [0] * 8
        site.wait(lambda: ready(3), process)
        assert len(children(process.pid)) == 2
        site.write(1, limit=3)
        assert all(answer["ok"] for answer in site.reload())
        open_ones = [associate(site) for _ in range(3)]
        for _ in range(8):  # whichever of them is asked
            with pytest.raises(DeliveryError):
                associate(site)
        for association in open_ones:
            association.release()
        assert store(site, 4) == [0] * 4
        site.wait(lambda: sum(site.states().values()) == 36, process)


@pytest.mark.full  # what needs a restart, in one process: test_reload.py
def test_their_number_does_not_change_while_they_run(site):
    with site.running("ingress") as process:
        site.wait(lambda: len(site.logged("ready")) >= 2, process)
        site.text = TOML
        site.write(1)
        (answer,) = site.reload()
        assert not answer["ok"] and answer["code"] == "needs-restart" and "ingress.processes" in str(answer)
        assert store(site, 2) == [0, 0]


@pytest.mark.full
def test_two_workers_mark_beside_each_other_and_one_that_is_killed_comes_back(tmp_path):
    """Nothing is lost, nothing is delivered with other bytes under one UID, and a reload is of both."""
    sink, port = tmp_path / "sink", free_port()
    sink.mkdir()
    text = TOML.replace("[worker]\n", "[worker]\nprocesses = 2\nbatch = 2\n")
    # --fork: else it hears one association at a time, and one worker waits until the other's is idle and goes
    with peers.running("storescp", "--fork", "+xa", "+B", "-od", sink, "-aet", "OUTSIDE", port, port=port):
        site = Site(tmp_path / "site", port, text)
        with site.running() as process:
            site.wait(lambda: len([one for one in site.logged("ready") if one["role"] == "worker"]) == 2, process)
            both = children(process.pid, b"worker")
            assert len(both) == 2
            before = [cpu_s(pid) for pid in both]
            assert store(site, 8, 64) == [0] * 8
            site.wait(lambda: site.states() == {"delivered": 8}, process)
            assert all(cpu_s(pid) > then for pid, then in zip(both, before, strict=True))
            assert store(site, 6, 64) == [0] * 6
            os.kill(both[0], signal.SIGKILL)
            site.wait(lambda: site.states() == {"delivered": 14}, process)
            site.wait(lambda: len(children(process.pid, b"worker")) == 2, process)
            site.write(1)
            assert all(answer["ok"] for answer in site.reload())
            site.text = TOML
            site.write(2)
            assert ["worker.processes" in str(answer) for answer in site.reload() if not answer["ok"]] == [True]
    assert len(list(sink.iterdir())) == 14  # files are named by their SOP Instance UID


def test_workers_share_the_memory_that_is_configured():
    told = "share memory_mib, and each wants 1024"
    with pytest.raises(InvalidConfigError, match=told):
        parse_config("version = 1\n[worker]\nprocesses = 3\nmemory_mib = 3000\n", Path("gateway.toml"))
    assert parse_config("version = 1\n[worker]\nmemory_mib = 512\n", Path("gateway.toml")).worker.processes == 1
    for wrong in ("0", "65", '"all"'):
        with pytest.raises(InvalidConfigError, match="processes"):
            parse_config(f"version = 1\n[worker]\nprocesses = {wrong}\n", Path("gateway.toml"))


def test_names_of_processes():
    config = parse_config("version = 1\n[ingress]\nprocesses = 3\n[worker]\nprocesses = 2\n", Path("gateway.toml"))
    assert processes_of(config, "ingress") == ["ingress", "ingress-2", "ingress-3"]
    assert processes_of(config, "worker") == ["worker", "worker-2"]
    assert processes_of(config, "restore") == ["restore"]
    assert [role_of(name) for name in ("ingress", "ingress-3", "page")] == ["ingress", "ingress", "page"]
