"""How long a marked slice takes from the archive's Success to the outside PACS, and how long a whole CT waits.

    python -m tests.benchmarks.latency [--single 20] [--backlog 300] [--steps N] [--json FILE]

Slices are CT of 512x512x16 bit made here. `--single` slices are sent one at a time, each after the last was delivered:
the time from the committed row (after which Success is sent) to the destination's Success, from the instance table.
Then `--backlog` slices are sent at once: the time from the first row to the last delivery. The mark is the default
(`strong`), on the device that `auto` chooses; `--steps 0` leaves its optimisation out, so that the flow itself shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

from gateway.config import load_config
from gateway.database import InstanceRow, reading
from gateway.mark.device import resolve_device
from gateway.service import database
from tests.benchmarks.relay import make_images, send, sink
from tests.benchmarks.site import gateway_site


def main() -> None:
    """Run both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--single", type=int, default=20)
    parser.add_argument("--backlog", type=int, default=300)
    parser.add_argument("--steps", type=int, help="of the mark; default: those of the configuration")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    environment = {**os.environ, "TCP_NODELAY": "1"}
    route = "" if arguments.steps is None else f"mark = {{ steps = {arguments.steps} }}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_images(folder, arguments.single + arguments.backlog)
        with (
            sink(folder, environment) as (sink_port, _),
            gateway_site(folder / "site", sink_port, environment, route) as site,
        ):
            engine = database(load_config(site.config))
            for number, file in enumerate(files[: arguments.single]):
                send([file], site.port, environment)
                _wait(engine, number + 1)
            waits = sorted(row.delivered_at - row.received_at for row in _rows(engine))
            figures = {
                "device": str(resolve_device("auto")),
                "single": len(waits),
                "median_s": round(statistics.median(waits), 2),
                "p95_s": round(waits[max(0, int(len(waits) * 0.95 + 0.5) - 1)], 2),
            }
            print(json.dumps(figures), flush=True)
            if arguments.backlog:
                before = {row.id for row in _rows(engine)}
                send(files[arguments.single :], site.port, environment)
                _wait(engine, len(files))
                new = [row for row in _rows(engine) if row.id not in before]
                figures["backlog"] = len(new)
                figures["backlog_s"] = round(
                    max(row.delivered_at for row in new) - min(row.received_at for row in new), 1
                )
            print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def _rows(engine) -> list[InstanceRow]:
    with reading(engine) as session:
        rows = list(session.scalars(select(InstanceRow)))
    held = [row.reason_code for row in rows if row.state == "held"]
    if held:
        raise SystemExit(f"held: {held}")
    return rows


def _wait(engine, count: int) -> None:
    while sum(row.state == "delivered" for row in _rows(engine)) < count:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
