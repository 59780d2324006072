"""What a gateway needs of memory while large instances come at once: `python -m tests.benchmarks.peak`.

    python -m tests.benchmarks.peak [--instances 10] [--mib 500] [--json FILE]

Senders are DCMTK `storescu`, one an instance and all at once, sink DCMTK `storescp`; the route seals and relays without
a mark, so that every byte goes through ingress, worker and vault. Memory is what processes of a role hold of their own
(anonymous pages, `RssAnon` in proc(5)), looked at every 20 ms: idle, and at most until the sink has everything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread

import numpy as np
from pydicom import dcmread
from pydicom.uid import EnhancedCTImageStorage

from tests.benchmarks.facts import facts
from tests.benchmarks.processes import memory_of
from tests.benchmarks.programs import program
from tests.benchmarks.relay import PASS, make_images, sink
from tests.benchmarks.site import gateway_site

LOOKS_S = 0.02
LONGEST_S = 1800.0


def make_large(folder: Path, mib: int) -> Path:
    """Return a multi-frame CT of so many MiB of pixels."""
    ds = dcmread(*make_images(folder, 1))
    frames = mib * 2**20 // (ds.Rows * ds.Columns * 2)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = frames
    ds.PixelData = np.tile(np.frombuffer(ds.PixelData, np.uint8), frames).tobytes()
    path = folder / "large.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


class Watch:
    """The most that the roles held, in bytes, each by itself and all together."""

    def __init__(self, config: Path) -> None:
        self.most: dict[str, int] = {}
        self._config, self._over = config, Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOKS_S):
            held = memory_of(self._config)
            for role, size in {**held, "all": sum(held.values())}.items():
                self.most[role] = max(self.most.get(role, 0), size)


def measure(folder: Path, instances: int, mib: int) -> dict[str, dict[str, float]]:
    """Return role -> MiB idle and at most, and the seconds that it took."""
    large = make_large(folder, mib)
    environment = os.environ | {"TCP_NODELAY": "1"}
    command = [program("storescu"), "+II", "--max-pdu", "131072", "-aet", "STORESCU", "-aec", "RELAY", "127.0.0.1"]
    with sink(folder, environment) as (port, received), gateway_site(folder / "site", port, environment, PASS) as site:
        (small,) = make_images(folder, 1)
        subprocess.run(
            [*command, str(site.port), str(small)], check=True, capture_output=True
        )  # loads what is loaded once
        wait_for(received, 1)
        time.sleep(3.0)
        idle = memory_of(site.config)
        begin = time.monotonic()
        with Watch(site.config) as watch:
            senders = [subprocess.Popen([*command, str(site.port), str(large)]) for _ in range(instances)]
            codes = [sender.wait() for sender in senders]
            if any(codes):
                raise SystemExit("a sender failed: not all was acknowledged")
            wait_for(received, instances * large.stat().st_size)
        taken = time.monotonic() - begin
    mib_of = {role: {"idle": idle.get(role, 0) / 2**20, "most": size / 2**20} for role, size in watch.most.items()}
    mib_of["all"]["idle"] = sum(idle.values()) / 2**20
    return {**mib_of, "seconds": {"taken": taken}}


def wait_for(received: Path, size: int) -> None:
    """Wait until the sink holds so many bytes."""
    deadline = time.monotonic() + LONGEST_S
    while sum(file.stat().st_size for file in received.iterdir()) < size:
        if time.monotonic() > deadline:
            raise SystemExit("not all arrived")
        time.sleep(0.1)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--mib", type=int, default=500, help="pixels of each")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        told = facts(Path(name), "DCMTK")
        found = measure(Path(name), arguments.instances, arguments.mib)
    taken = found.pop("seconds")["taken"]
    for role, row in found.items():
        idle, most = row["idle"], row["most"]
        print(f"{role:8} idle {idle:6.0f} MiB  at most {most:6.0f} MiB  more {most - idle:6.0f}")
    print(f"{arguments.instances} x {arguments.mib} MiB relayed in {taken:.0f} s; {told}")
    if arguments.json is not None:
        result = {"roles": found, "seconds": taken, "facts": asdict(told)}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
