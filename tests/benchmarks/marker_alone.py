"""A relay that marks beside the marker alone on its threads: what the flow around the mark takes of it.

    python -m tests.benchmarks.relay --generator 32 [--rounds 3] [--processes 1,2]

In each round the same CT of 512x512x16 bit are marked by `Marker.mark` in a process of its own, all in one call, and
go through a gateway, in mode `generator`. Both have marked a few before, so that networks are loaded. A time of the
gateway runs from the start of the sender until the sink holds every file. Ratios are within a round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.processes import cpu_of
from tests.benchmarks.programs import program
from tests.benchmarks.site import gateway_site

WARM = 4  # images before the clock starts ...
WARM_EACH = 16  # ... or for each of several worker processes, so that each has marked a batch
ROUTE = 'mark = { mode = "generator" }'


def alone(files: list[Path]) -> dict[str, float]:
    """Seconds and CPU seconds of the marker for these files, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.marker_alone", *map(str, files)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def marked(files: list[Path]) -> dict[str, float]:
    """Mark the files but the first `WARM`, which go before the clock starts."""
    import pydicom

    from gateway.mark import Marker, MarkRequest, MarkSettings
    from plugins.modalities import ct

    marker = Marker(MarkSettings(mode="generator"))
    requests = []
    for number, file in enumerate(files):
        image = pydicom.dcmread(file).pixel_array
        window = {"display": (-160.0, 240.0), "slope": 1.0, "intercept": 0.0, "other_windows": _windows()}
        requests.append(MarkRequest(image, bytes(32), position=float(number), **window))
    marker.mark(requests[:WARM], ct.PROFILE)
    began, spent = time.monotonic(), time.process_time()
    results = marker.mark(requests[WARM:], ct.PROFILE)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    if errors := [str(one) for one in results if isinstance(one, Exception)]:
        raise SystemExit(errors[0])
    return {"seconds": seconds, "cpu_s": cpu}


def _windows() -> dict[str, tuple[float, float]]:
    return {"lung": (-1350.0, 150.0), "bone": (-650.0, 1350.0)}


def relayed(
    files: list[Path], port: int, received: Path, environment: dict, config: Path, warm: int
) -> dict[str, float]:
    """Seconds and CPU seconds of ingress and worker for the files but the first `warm`."""
    command = [program("storescu"), "--max-pdu", "131072", "-aet", "STORESCU", "-aec", "RELAY", "127.0.0.1", str(port)]

    def send(some: list[Path]) -> None:
        already = len(list(received.iterdir()))
        subprocess.run([*command, *map(str, some)], env=environment, check=True, capture_output=True)
        began = time.monotonic()
        while len(list(received.iterdir())) < already + len(some):
            time.sleep(0.02)
            if time.monotonic() - began > 1200:
                raise SystemExit("not all images arrived within twenty minutes")

    send(files[:warm])
    before, began = cpu_of(config), time.monotonic()
    send(files[warm:])
    seconds = time.monotonic() - began
    spent = {role: cpu - before.get(role, 0.0) for role, cpu in cpu_of(config).items()}
    return {"seconds": seconds, "cpu_s": spent.get("worker", 0.0), "ingress_cpu_s": spent.get("ingress", 0.0)}


def compare(count: int, rounds: int, processes: Sequence[int]) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Rounds of the marker and of gateways with so many worker processes, each printed, and median images a second."""
    from tests.benchmarks.relay import make_images, sink

    environment = {**os.environ, "TCP_NODELAY": "1"}
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = max(WARM if several == 1 else WARM_EACH * several for several in processes)
        files = make_images(folder, count + most)
        for _ in range(rounds):
            by_itself = alone(files[most - WARM :])
            for several in processes:
                worker, warm = f"processes = {several}", WARM if several == 1 else WARM_EACH * several
                with (
                    sink(folder, environment) as (port, received),
                    gateway_site(folder / "gateway", port, environment, ROUTE, worker) as site,
                ):
                    through = relayed(files[most - warm :], site.port, received, environment, site.config, warm)
                found.append(
                    {
                        "processes": several,
                        "marker_per_s": count / by_itself["seconds"],
                        "relay_per_s": count / through["seconds"],
                        "ratio": by_itself["seconds"] / through["seconds"],
                        "marker_cpu_ms": 1000 * by_itself["cpu_s"] / count,
                        "worker_cpu_ms": 1000 * through["cpu_s"] / count,
                        "ingress_cpu_ms": 1000 * through["ingress_cpu_s"] / count,
                    }
                )
                print(_line(found[-1]), flush=True)
    rates = {}
    for several in processes:
        own = [one for one in found if one["processes"] == several]
        medians = {key: statistics.median(one[key] for one in own) for key in own[0]}
        print(f"median of {rounds}, {count} images: {_line(medians)}")
        rates["marker alone"] = medians["marker_per_s"]
        rates[f"relay, {several} worker process{'es' if several > 1 else ''}"] = medians["relay_per_s"]
    return found, rates


def _line(figures: dict[str, float]) -> str:
    return json.dumps({key: round(value, 3) for key, value in figures.items()})


if __name__ == "__main__":
    print(json.dumps(marked([Path(one) for one in sys.argv[1:]])))
