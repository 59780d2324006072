"""Places, counted by one process or by several."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from gateway.network.admission import Counts, Places, SharedCounts

OTHER = """
import sys, time
from pathlib import Path
from gateway.network.admission import SharedCounts
counts = SharedCounts(Path(sys.argv[1]))
for line in sys.stdin:
    what, key, limit = line.split()
    print(counts.take(key, int(limit)) if what == "take" else counts.give(key), flush=True)
"""


class Other:
    """A second process of the role."""

    def __init__(self, folder) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def other(tmp_path):
    made = Other(tmp_path / "places")
    yield made
    made.kill()


def test_two_processes_count_together_and_a_killed_one_no_more(tmp_path, other):
    counts = SharedCounts(tmp_path / "places")
    assert other.ask("take associations 3") == "True"
    assert counts.take("associations", 3) and counts.take("associations", 3)
    assert not counts.take("associations", 3)
    assert other.ask("take associations 3") == "False"
    assert counts.taken("associations") == 3
    assert counts.take("connections of 10.0.0.1", 1)
    assert other.ask("take connections 1") == "True"
    counts.give("associations")
    assert other.ask("take associations 3") == "True"
    assert not counts.take("associations", 3)
    other.kill()
    assert counts.taken("associations") == 1
    assert counts.take("associations", 3) and counts.take("associations", 3)
    assert [path.suffix for path in (tmp_path / "places").iterdir()].count(".counts") == 1


@pytest.mark.parametrize("shared", [False, True])
def test_threads_take_no_more_than_there_are(tmp_path, shared):
    counts = SharedCounts(tmp_path) if shared else Counts()
    most, now, lock = [0], [0], threading.Lock()

    def work() -> None:
        for _ in range(50):
            if counts.take("x", 3):
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                time.sleep(0.0005)
                with lock:
                    now[0] -= 1
                counts.give("x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert most[0] == 3 and counts.taken("x") == 0


def test_places_are_given_back_together_and_once():
    counts = Counts()
    places, others = Places(counts), Places(counts)
    assert places.take([("a", 2), ("b", 1)]) == ""
    assert others.take([("a", 2), ("b", 1)]) == "b"
    assert (counts.taken("a"), counts.taken("b")) == (1, 1)
    for _ in range(2):
        places.give_back()
        assert (counts.taken("a"), counts.taken("b")) == (0, 0)
    assert places.take([("a", 2)]) == ""
    assert counts.taken("a") == 0  # what has ended holds nothing


def test_a_place_of_two_processes_costs_little(tmp_path, other):
    assert other.ask("take x 5") == "True"
    counts = SharedCounts(tmp_path / "places")
    began = time.process_time()
    for _ in range(200):
        counts.take("y", 1)
        counts.give("y")
    assert (time.process_time() - began) / 400 < 0.002


@pytest.fixture
def full_disk(tmp_path):
    """A file system of one page that is full; `make_room` empties it."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", where], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    (where / "filler").write_bytes(b"x" * 4096)
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def test_a_full_disk_takes_no_place_away(full_disk):
    """What cannot be written is no reason to send a peer away, and no place stays taken for it when there is room."""
    counts = SharedCounts(full_disk / "places")
    for _ in range(5):
        places = Places(counts)
        assert places.take([("connections", 2)]) == ""
        places.give_back()
    assert counts.taken("connections") == 0
    places = Places(counts)
    assert places.take([("connections", 1)]) == ""
    assert Places(counts).take([("connections", 1)]) == "connections"
    (full_disk / "filler").unlink()
    places.give_back()
    assert counts.take("connections", 1)
    other = SharedCounts(full_disk / "places")
    assert not other.take("connections", 1)  # told again


def test_two_processes_of_a_role_share_their_limits(tmp_path, start_ingress, audit, receiver):
    """Two ingress ports with the same folder stand for two receiver processes: what one has taken the other counts."""
    from gateway.errors import TransientError
    from gateway.network.scu import ScuAssociation
    from tests.network.test_ingress import called, until
    from tests.support.network.samples import CT, EXPLICIT

    first, second = (
        start_ingress(counts=SharedCounts(tmp_path / "places"), max_associations=2, max_associations_per_ae=2)
        for _ in range(2)
    )
    held = [ScuAssociation(called(one), [(CT, EXPLICIT)]) for one in (first, second)]
    for one in (first, second):
        with pytest.raises(TransientError) as caught:
            ScuAssociation(called(one), [(CT, EXPLICIT)])
        assert caught.value.code == "association-rejected-for-now"
    held[0].release()
    ScuAssociation(called(second), [(CT, EXPLICIT)]).release()
    held[1].release()
    assert until(lambda: first._server._counts.taken("connections") == 0)
