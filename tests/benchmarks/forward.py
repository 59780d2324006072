"""How fast what waits in the spool goes out: the gateway beside DCMTK's own sender, in one run.

    python -m tests.benchmarks.forward [--images 300] [--rounds 5] [--connections 1] [--processes 1] [--json FILE]

The sink is DCMTK `storescp --fork`, TCP_NODELAY=1. First `storescu` sends the files to it. Then the gateway takes the
same files in for it while the destination is paused, on a `pass` route; when all are sealed and wait, the destination
is resumed. Both times end when the sink holds every file. Every round has new images; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gateway import service
from gateway.commands.destinations import with_wakes
from gateway.config import load_config
from gateway.flow.overview import Overview, look
from tests.benchmarks.facts import facts
from tests.benchmarks.relay import PASS, arrived, make_images, send, sink
from tests.benchmarks.site import Site, gateway_site

DESTINATION = "sink"  # as `tests.benchmarks.site` names it
WAIT_S = 600


class Forwarding:
    """A gateway whose only destination can be made to wait."""

    def __init__(self, site: Site, received: Path, environment: dict) -> None:
        self._site, self._received, self._environment = site, received, environment
        self._settings = load_config(site.config)
        self._engine = service.database(self._settings)

    def seconds(self, files: list[Path]) -> float:
        """Take files in while the destination waits; seconds from its resuming until the sink has them all.

        Raises
        ------
        SystemExit
            They were not sealed, or did not get there, in time.
        """
        with_wakes(self._site.config, lambda operator: operator.pause(DESTINATION))
        send(files, self._site.port, self._environment)
        self._wait(lambda now: now.routes[0].marked == len(files))
        time.sleep(1)  # what sealing leaves behind is done
        began = time.monotonic()
        with_wakes(self._site.config, lambda operator: operator.resume(DESTINATION))
        taken = arrived(self._received, len(files), began)
        self._wait(lambda now: now.routes[0].marked == 0)
        return taken

    def _wait(self, reached: Callable[[Overview], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not reached(now := look(self._engine, self._settings.routes)):
            if time.monotonic() > deadline:
                raise SystemExit(f"still {now.routes} after {WAIT_S} s")
            time.sleep(0.2)


def main() -> None:
    """Run it and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1, help="associations of the gateway at a time")
    parser.add_argument("--processes", type=int, default=1, help="of the worker")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    environment = {**os.environ, "TCP_NODELAY": "1"}
    rates: dict[str, list[float]] = {"storescu": [], "gateway": []}
    with (
        tempfile.TemporaryDirectory() as name,
        sink(Path(name), environment, "--fork") as (port, received),
        gateway_site(
            Path(name) / "gateway",
            port,
            environment,
            PASS,
            f"processes = {arguments.processes}",
            f"connections = {arguments.connections}",
        ) as site,
    ):
        told = facts(Path(name), "DCMTK")
        forwarding = Forwarding(site, received, environment)
        for number in range(arguments.rounds):
            lot = Path(name) / f"lot{number}"
            lot.mkdir()
            files = make_images(lot, arguments.images)
            began = time.monotonic()
            send(files, port, environment)
            rates["storescu"].append(len(files) / arrived(received, len(files), began))
            empty(received)
            rates["gateway"].append(len(files) / forwarding.seconds(files))
            empty(received)
            shutil.rmtree(lot)
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    figures = {"images": arguments.images, "images_per_s": medians}
    figures["ratio"] = round(statistics.median(rates["gateway"]) / statistics.median(rates["storescu"]), 2)
    print(json.dumps(figures))
    print(f"medians of {arguments.rounds}; {told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "facts": asdict(told)}, indent=2) + "\n", "utf-8")


def empty(folder: Path) -> None:
    """Delete the files of a folder: the same names come again."""
    for path in folder.iterdir():
        path.unlink()


if __name__ == "__main__":
    main()
