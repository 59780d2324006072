"""A worker that is started again as often as it dies, as the supervisor does: for `tests.flow.test_deaths`.

    python -m tests.flow.lives KEYS STATE STEP POISON [STATE STEP POISON ...]

STATE is a site's state folder with instances in it. The process that comes to `STEP` ("seal", "mark" or "deliver") with
the instance POISON ends there and then: killed, aborted, or by a segmentation fault. Each life is a fork, since imports
take longer than all the rest. Prints how many lives each site took until nothing was left to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from sqlalchemy import func, select

from gateway.database import InstanceRow, reading
from gateway.flow.worker import FlowWorker
from gateway.protect import Protector
from tests.support.flow import Flow, configuration

MOST_LIVES = 12
LIFE_S = 60


def die(step: str) -> None:
    """One way for each step."""
    if step == "seal":
        os.abort()
    if step == "mark":
        os.kill(os.getpid(), signal.SIGKILL)
    ctypes.string_at(0)


class Sender:
    """Writes who was sent; dies of the poison."""

    def __init__(self, path: Path, poison: str) -> None:
        self._path = path
        self._poison = poison

    def send(self, _destination: str, item) -> int:
        if item.instance_id == self._poison:
            die("deliver")
        with item.open() as file:
            file.read()
        with self._path.open("a") as out:
            out.write(f"{item.instance_id}\n")
        return 0


def live(state: Path, keys: Path, step: str, poison: str) -> None:
    """One life of the worker, until nothing is on its way."""
    flow = Flow(configuration(state, keys))
    with reading(flow.engine) as session:
        row = session.get(InstanceRow, poison)
    if step == "seal":
        read_header = Protector.read_header

        def read(self, source, syntax):
            header = read_header(self, source, syntax)
            with reading(flow.engine) as session:
                state = session.get(InstanceRow, poison).state
            if header.sop_instance_uid == row.sop_instance_uid and state == "received":
                die(step)
            return header

        Protector.read_header = read
    elif step == "mark":
        mark = Protector.mark

        def mark_all(self, jobs):
            if any(job.record.original_sop_uid == row.sop_instance_uid for job in jobs):
                die(step)
            return mark(self, jobs)

        Protector.mark = mark_all
    sender = Sender(state / "sent", poison if step == "deliver" else "")
    worker = FlowWorker(flow.config.worker, flow.config.destinations[:1], flow.store, flow.steps, sender, flow.retainer)
    worker.start()
    deadline = time.monotonic() + LIFE_S
    while time.monotonic() < deadline:
        with reading(flow.engine) as session:
            on_its_way = InstanceRow.state.in_(["received", "sealed", "marked"])
            if not session.scalar(select(func.count()).select_from(InstanceRow).where(on_its_way)):
                worker.stop()
                os._exit(0)
        time.sleep(0.05)
    os._exit(3)


def lives_of(state: Path, keys: Path, step: str, poison: str) -> int:
    """Live until done."""
    for lives in range(1, MOST_LIVES):
        pid = os.fork()
        if not pid:
            live(state, keys, step, poison)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            return lives
    sys.exit(f"{step}: not done after {MOST_LIVES} lives")


def main() -> None:
    """One site after another."""
    keys, *rest = sys.argv[1:]
    for state, step, poison in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        print(lives_of(Path(state), Path(keys), step, poison), flush=True)


if __name__ == "__main__":
    main()
