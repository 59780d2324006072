"""What page and metrics cost: relay throughput with both on, against both off, as a ratio.

    python -m tests.benchmarks.page_cost [--images 300] [--rounds 5] [--every 5] [--json FILE]

A gateway that passes originals on (its fastest way, so that a cost shows most) between DCMTK `storescu` and `storescp`,
as `tests.benchmarks.relay` runs it; by turns without role page, and with it while `/metrics` and the first page are
asked for every so many seconds (Prometheus asks every 15). Each round sends one series to warm a fresh gateway up, and
another that counts. Printed: images a second of each round, and the ratio of the medians; 1 is no cost.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.programs import free_port
from tests.benchmarks.relay import PASS, make_images, sink, time_chain
from tests.benchmarks.site import gateway_site


@contextmanager
def asking(port: int, every_s: float) -> Iterator[list[int]]:
    """Ask for metrics and page until the end; gives the bytes of each answer."""
    done, sizes = threading.Event(), []

    def ask() -> None:
        while True:
            for place in ("metrics", ""):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{place}", timeout=60) as answer:
                    sizes.append(len(answer.read()))
            if done.wait(every_s):
                return

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    yield sizes
    done.set()
    asker.join()


def one_round(folder: Path, warm: list[Path], files: list[Path], page: int | None, every_s: float) -> float:
    """Images a second through a fresh gateway, with role page on a port or without it."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    more = f"{PASS}\n[page]\nport = {page}\n" if page else PASS
    with (
        sink(folder, environment) as (sink_port, received),
        gateway_site(folder / "gateway", sink_port, environment, more) as site,
    ):
        time_chain(warm, site.port, received, environment)
        if page is None:
            taken = time_chain(files, site.port, received, environment)
        else:
            with asking(page, every_s) as sizes:
                taken = time_chain(files, site.port, received, environment)
            assert sizes and min(sizes) > 1000, "the page did not answer"
    return len(files) / taken["delivered_s"]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    """Run the rounds by turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two questions")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as name:
        # two series: the sink names files by UID, and what it has already would not count as arrived
        warm, files = (make_images(_made(Path(name) / part), given.images) for part in ("warm", "timed"))
        for number in range(2 * given.rounds):
            is_on = number % 2 == 1
            rate = one_round(Path(name), warm, files, free_port() if is_on else None, given.every)
            rates["on" if is_on else "off"].append(round(rate, 1))
            print(f"round {number // 2 + 1}, page {'on' if is_on else 'off'}: {rate:.1f} images/s", flush=True)
    ratio = median(rates["on"]) / median(rates["off"])
    print(f"ratio: {ratio:.3f}")
    if given.json:
        given.json.write_text(json.dumps({**rates, "ratio": round(ratio, 4)}, indent=2))


if __name__ == "__main__":
    main()
