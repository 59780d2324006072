"""What receiving, sealing, marking without optimising, delivering and opening cost for one CT image, in milliseconds.

    python -m tests.benchmarks.steps [--images 40] [--rounds 3] [--against CHECKOUT] [--json FILE]

Slices of 512x512x16 bit, made here, go through one site's flow in memory (SQLite, real spool and vault, no network):
the median of each step, and the ratio to another checkout of the gateway where one is named. Both are measured in turn,
each round in a process of its own, and the best round of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

STEPS = ("receive", "seal", "mark", "deliver", "open")


def main() -> None:
    """Measure, print a table, and write the figures if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, with its own .venv or the same packages")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.images)))
        return
    here = Path(__file__).resolve().parents[2]
    checkouts = {"here": here, **({"there": arguments.against.resolve()} if arguments.against else {})}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(_child(checkout, arguments.images))
    best = {name: {step: min(one[step] for one in found) for step in STEPS} for name, found in rounds.items()}
    for step in STEPS:
        there = best.get("there", {}).get(step)
        ratio = f"  there {there:8.2f} ms  ratio {best['here'][step] / there:.2f}" if there else ""
        print(f"{step:8} {best['here'][step]:8.2f} ms{ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(best, indent=2) + "\n", "utf-8")


def _child(checkout: Path, images: int) -> dict[str, float]:
    python = checkout / ".venv" / "bin" / "python"
    command = [python if python.exists() else sys.executable, __file__, "--child", "--images", str(images)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(images: int) -> dict[str, float]:
    """Median milliseconds of each step in this process, by the gateway that it imports."""
    import numpy as np

    from gateway.keys.generate import make_keys

    try:
        from tests.support import flow as support
    except ImportError:  # a checkout of before the tests' support had its own folder
        from tests.flow import support  # type: ignore[no-redef]

    support.SIDE = 512
    times: dict[str, list[float]] = {step: [] for step in STEPS}

    def timed(step: str, work: Callable[..., object], *given: object) -> None:
        began = time.perf_counter()
        work(*given)
        times[step].append(1000 * (time.perf_counter() - began))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_keys(folder / "keys")
        flow = support.Flow(support.configuration(folder / "state", folder / "keys"))
        random = np.random.default_rng(1)
        rows, columns = np.mgrid[0:512, 0:512]
        body = ((rows - 256) ** 2 / 220**2 + (columns - 256) ** 2 / 180**2) < 1
        for number in range(images):
            frame = np.rint(np.where(body, 40, -1000) + random.normal(0, 12, (512, 512))).astype(np.int16)[None]
            ds = support.image(
                frame,
                SOPInstanceUID=f"1.2.826.0.1.99.{number}",
                ImagePositionPatient=[0, 0, number],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                RescaleSlope=1,
                RescaleIntercept=0,
                WindowCenter=40,
                WindowWidth=400,
            )
            timed("receive", flow.receive, ds)
            timed("seal", flow.seal)
            timed("mark", flow.mark)
            timed("deliver", flow.deliver)
            timed("open", flow.restored, str(ds.SOPInstanceUID))
        if len(flow.sender.received) != images:
            raise SystemExit(f"{len(flow.sender.received)} of {images} images were delivered")
    return {step: statistics.median(found[1:] or found) for step, found in times.items()}


if __name__ == "__main__":
    main()
