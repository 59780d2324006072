"""Studies a day against replicas and devices, up to 10^9 instances: from what is measured here, by simulation.

    python -m tests.benchmarks.capacity [--images 24] [--strong-images 9] [--costs FILE] [--device-s SECONDS]
        [--json FILE] [--picture FILE]

First what one CT of 512x512x16 bit costs on this machine (`costs.py`), then a day of a site (`simulate.py`): studies of
300 instances, eight in ten between 7 and 18 o'clock, come to ingress processes, workers seal, mark and deliver, and one
PostgreSQL changes states. A configuration keeps up with the most studies a day of which 19 of 20 are delivered within a
quarter of an hour. What grows without end is told by years. Costs may come from `--costs` FILE (an earlier `--json`).

Not measured: a GPU (`--device-s` assumes what one would take an instance; without it only cores are drawn), more than
one machine, networks between them, and disks beyond this one's. Machines of a simulation add up without loss.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

import structlog

from tests.benchmarks.capacity.costs import Costs, measure
from tests.benchmarks.capacity.simulate import INSTANCES, Station, ceiling, most_studies
from tests.benchmarks.facts import Facts, facts
from tests.benchmarks.pictures import add_outputs, lines

SIZES = (1, 2, 4, 8, 16, 32, 64)  # worker cores, or devices
CORES_AN_INGRESS = 8  # worker cores for each ingress process
MOST = 10**9


def stations(costs: Costs, cores: int, mark_s: float, devices: int = 0) -> list[Station]:
    """A site with so many worker cores; with devices the marks are theirs."""
    ingresses = max(1, cores // CORES_AN_INGRESS)
    on_cores = costs.seal_s + costs.deliver_s + (0 if devices else mark_s)
    made = [
        Station("ingress", ingresses, costs.receive_s),
        Station("database", 1, costs.transitions_s),
        Station("worker", cores, on_cores),
    ]
    return [*made, Station("device", devices, mark_s)] if devices else made


def table(costs: Costs, device_s: float | None) -> list[dict]:
    """Studies a day by size and kind of mark, and what takes longest."""
    rows = []
    kinds = [("generator, cores", costs.generator_s, 0), ("strong, cores", costs.strong_s, 0)]
    kinds += [(f"devices at an assumed {device_s:g} s a mark, 4 cores each", device_s, 1)] if device_s else []
    for kind, mark_s, by_device in kinds:
        for size in SIZES:
            made = stations(costs, 4 * size if by_device else size, mark_s, size if by_device else 0)
            slowest = max(made, key=lambda one: one.seconds / one.servers)
            studies = most_studies(made)
            rows.append({"kind": kind, "size": size, "studies_a_day": studies, "slowest": slowest.name})
    return rows


def years(costs: Costs, rows: list[dict]) -> list[dict]:
    """Until 10^9 instances are held, and what they take."""
    per_day = sorted({row["studies_a_day"] for row in rows if row["studies_a_day"]})
    kept = {"vault": costs.vault_bytes, "records": costs.record_bytes, "queue": costs.queue_row_bytes}
    sizes = {f"{name}_tb": round(MOST * size / 1e12, 2) for name, size in kept.items()}
    return [{"studies_a_day": n, "years": round(MOST / (n * INSTANCES) / 365, 1), **sizes} for n in per_day]


def main() -> None:
    """Measure, simulate, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument(
        "--strong-images", type=int, default=9, help="the first warms up; of each eight one is a key slice"
    )
    parser.add_argument("--costs", type=Path)
    parser.add_argument("--device-s", type=float, help="seconds a mark on one device: assumed, not measured here")
    add_outputs(parser, "capacity")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as name:
        if arguments.costs:
            found = json.loads(arguments.costs.read_text("utf-8"))
            costs, told = Costs(**found["costs"]), Facts(**found["facts"])
        else:
            told = facts(Path(name), "DCMTK", "PostgreSQL")
            costs = measure(Path(name), arguments.images, arguments.strong_images)
    for field, value in asdict(costs).items():
        print(f"{field:16} {1000 * value:9.2f} ms" if field.endswith("_s") else f"{field:16} {value:9.0f}")
    print(told)
    rows = table(costs, arguments.device_s)
    for row in rows:
        print(f"{row['kind']:50} {row['size']:3}  {row['studies_a_day']:7} studies a day  (slowest: {row['slowest']})")
    shared = ceiling(Station("database", 1, costs.transitions_s))
    print(f"one PostgreSQL connection's changes of state alone: {shared} studies a day")
    held = years(costs, rows)
    for row in held:
        print(f"{row['studies_a_day']:7} studies a day: 10^9 instances in {row['years']:7.1f} years")
    if held:
        print(", ".join(f"{name} {held[0][name]} TB" for name in ("vault_tb", "records_tb", "queue_tb")))
    if arguments.json:
        result = {"costs": asdict(costs), "facts": asdict(told), "studies": rows, "database_alone": shared}
        arguments.json.write_text(json.dumps({**result, "years": held}, indent=2) + "\n", "utf-8")
    curves: dict[str, tuple[list[int], list[int]]] = {}
    for row in rows:
        sizes, studies = curves.setdefault(row["kind"], ([], []))
        sizes.append(row["size"])
        studies.append(row["studies_a_day"])
    lines(arguments.picture, {"studies of 300 CT a day": curves}, "worker cores, or devices", told, log=True)


if __name__ == "__main__":
    main()
