"""A disk of which each flush takes long: those who wait share flushes, and everything arrives."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tests.flow.test_segments import offer
from tests.support.dicom.samples import encode
from tests.support.flow import ct

FLUSH_S = 0.05
ASSOCIATIONS, EACH = 8, 3


def test_associations_share_the_flushes_of_a_slow_disk_and_everything_arrives(flow, monkeypatch):
    flushed: list[Path] = []

    def slow(call):
        def flush(descriptor: int) -> None:
            time.sleep(FLUSH_S)
            call(descriptor)
            flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

        return flush

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, slow(getattr(os, name)))
    receiver = flow.receiver()
    ids: dict[int, str] = {}

    def association(first: int) -> None:
        for number in range(first, first + EACH):
            ids[number] = offer(receiver, number)

    threads = [threading.Thread(target=association, args=(1 + EACH * number,)) for number in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    receiver.close()
    assert len(ids) == len(set(ids.values())) == ASSOCIATIONS * EACH
    groups = [path for path in flushed if path.suffix == ".segment"]
    assert EACH <= len(groups) <= len(ids) * 3 // 4  # one flush each would be as many as there are instances
    flow.run()
    assert {flow.row(one).state for one in ids.values()} == {"delivered"}
    assert len(flow.sender.byte_strings()) == len(ids) == len(flow.sender.received)
    for number in (1, ASSOCIATIONS * EACH):
        assert flow.restored(str(ct(number).SOPInstanceUID)) == encode(ct(number))
