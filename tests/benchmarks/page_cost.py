"""What page and metrics cost: relay throughput with both on, against both off, as a ratio.

    python -m tests.benchmarks.page_cost [--images 100] [--pairs 8] [--every 5] [--json FILE]

Two gateways that pass originals on (their fastest way, so that a cost shows most) run side by side between DCMTK
`storescu` and `storescp`, as `tests.benchmarks.relay` does it: one without role page, one with it, whose `/metrics` and
first page are asked for every so many seconds (Prometheus asks every 15). They get series by turns, in pairs whose
order changes (off on, on off, ...), so that what else the machine does meets both alike; a first pair that does not
count warms both up. Printed: images a second and CPU seconds of each turn, then two ratios, each the median over the
pairs:

throughput
    images a second on / off; 1 is no cost. Work beside it spoils single pairs: look at the quartiles too.
CPU
    CPU seconds an image off / on, of the roles that an instance passes through (ingress, worker): what the page takes
    from them through database and disk. Told apart: CPU seconds a minute of role page itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from tests.benchmarks.processes import cpu_of
from tests.benchmarks.programs import free_port
from tests.benchmarks.relay import PASS, make_images, sink, time_chain
from tests.benchmarks.site import Site, gateway_site


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


@dataclass(frozen=True)
class Turn:
    """One series through one gateway."""

    images_per_s: float
    cpu_per_image_s: float
    page_cpu_per_min_s: float


def one_turn(site: Site, files: list[Path], received: Path, page: int | None, every_s: float) -> Turn:
    """Send a series; the page is asked meanwhile, where there is one."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    before, begin = cpu_of(site.config), time.monotonic()
    with asking(page, every_s) if page is not None else nullcontext([1001]) as sizes:
        taken = time_chain(files, site.port, received, environment)
    passed, after = time.monotonic() - begin, cpu_of(site.config)
    assert sizes and min(sizes) > 1000, "the page did not answer"
    spent = {role: after[role] - before.get(role, 0.0) for role in after}
    through = spent["ingress"] + spent["worker"]
    return Turn(len(files) / taken["delivered_s"], through / len(files), 60 * spent.get("page", 0.0) / passed)


def _made(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _told(values: list[float]) -> str:
    low, middle, high = quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


def main() -> None:
    """Run the pairs and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="of a series")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two questions")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    environment = {**os.environ, "TCP_NODELAY": "1"}
    port = free_port()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        sites: dict[str, tuple[Site, Path, int | None]] = {}
        for word, page in (("off", None), ("on", port)):
            sink_port, received = stack.enter_context(sink(_made(folder / f"sink-{word}"), environment))
            more = f"{PASS}\n[page]\nport = {page}\n" if page else PASS
            site = stack.enter_context(gateway_site(folder / f"gateway-{word}", sink_port, environment, more))
            sites[word] = (site, received, page)
        turns: dict[str, list[Turn]] = {"off": [], "on": []}
        for number in range(given.pairs + 1):
            for word in ("off", "on") if number % 2 else ("on", "off"):
                site, received, page = sites[word]
                files = make_images(_made(folder / "series"), given.images)  # never seen before: a resend goes nowhere
                turn = one_turn(site, files, received, page, given.every)
                print(
                    f"pair {number}, page {word}: {turn.images_per_s:.1f} images/s, "
                    f"{1000 * turn.cpu_per_image_s:.1f} ms CPU an image{'' if number else ' (does not count)'}",
                    flush=True,
                )
                if number:
                    turns[word].append(turn)
    both = list(zip(turns["off"], turns["on"], strict=True))
    ratio = [on.images_per_s / off.images_per_s for off, on in both]
    cpu = [off.cpu_per_image_s / on.cpu_per_image_s for off, on in both]
    print(f"throughput, on / off: {_told(ratio)}")
    print(f"CPU an image in ingress and worker, off / on: {_told(cpu)}")
    print(f"role page: {median(one.page_cpu_per_min_s for one in turns['on']):.1f} s CPU a minute while asked")
    if given.json:
        told = {word: [asdict(one) for one in all_of] for word, all_of in turns.items()}
        told |= {"throughput_ratio": round(median(ratio), 4), "cpu_ratio": round(median(cpu), 4)}
        given.json.write_text(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
