"""How fast instances are taken in under durability `cluster`, with one group of records on its way at once, or more.

    python -m tests.benchmarks.groups [--images 200] [--rounds 5] [--delay-ms 5] [--at-once 1,2,4] [--json FILE]

The ingress role alone; its store is a SeaweedFS behind a proxy that keeps every byte for `--delay-ms` in each
direction (`tests.benchmarks.far`; 0: no proxy), its database a PostgreSQL with a synchronous standby, all on this
machine. Senders are DCMTK `storescu` with TCP_NODELAY=1, one, or eight at once with the images shared out, and one of
our own on one association with a window of eight; images are CT of 512x512x16 bit. A time runs from the start of the
first sender to the end of the last. In each round all take turns; medians of images a second, of objects that were made
for them, of the ingress's processor time an image, and of each round's ratio to the first of `--at-once`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.bucket import Bucket
from gateway.config.store import Store
from tests.benchmarks.facts import facts
from tests.benchmarks.far import far
from tests.benchmarks.processes import cpu_of_one
from tests.benchmarks.programs import free_port, listening, running
from tests.benchmarks.receive import ENVIRONMENT, SENDERS, WINDOW, send, send_windowed
from tests.benchmarks.relay import make_images
from tests.benchmarks.site import write_site
from tests.support.objects import SeaweedFs
from tests.support.standby import Pair


@dataclass(frozen=True)
class Engines:
    """The store as the ingress reaches it, and as it is; the database's URL."""

    store: Store
    near: Store
    database_url: str


@contextmanager
def ingress(folder: Path, engines: Engines, at_once: int) -> Iterator[tuple[int, int]]:
    """The ingress role alone on these engines; its port and process."""
    site = write_site(folder, free_port(), 'action = "hold"')
    text, store = site.config.read_text(), engines.store
    head = f'version = 1\ndurability = "cluster"\n[database]\nurl = "{engines.database_url}"\n[store]\n'
    head += f'url = "{store.url}"\nendpoint = "{store.endpoint}"\n'
    for name in ("access_key_id", "secret_access_key"):
        head += f'{name} = "{getattr(store, name)}"\n'
    room = "[ingress]\nmax_waiting = 100000000\nmax_unmarked = 100000000\n"  # nobody works anything off here
    site.config.write_text(text.replace("version = 1\n", head, 1).replace("[ingress]\n", room, 1))
    command = [sys.executable, "-m", "tests.benchmarks.groups", "--ingress", str(at_once), site.config]
    with running(command, ENVIRONMENT, ready=listening(site.port), log=folder / "log") as process:
        yield site.port, process.pid


def serve(at_once: int, config: str) -> None:
    """Be the role, with so many groups at once."""
    from gateway import cli
    from gateway.flow import durability

    durability.GROUPS_AT_ONCE = at_once
    sys.argv = ["miad-gateway", "serve", "--role", "ingress", "--config", config]
    cli.main()


@dataclass(frozen=True)
class Taken:
    """What it took: seconds, objects an image, processor seconds an image."""

    seconds: float
    objects: float
    cpu: float


SENDINGS = {
    "one association": lambda files, port: send(files, port, 1),
    f"{SENDERS} associations": lambda files, port: send(files, port, SENDERS),
    f"window of {WINDOW}": lambda files, port: send_windowed(files, port, WINDOW),
}


def measure(
    folder: Path, files: list[Path], engines: Engines, rounds: int, numbers: list[int]
) -> dict[str, dict[int, list[Taken]]]:
    """By sending and number at once, each round's."""
    taken: dict[str, dict[int, list[Taken]]] = {name: {number: [] for number in numbers} for name in SENDINGS}
    bucket = Bucket(engines.near)
    for turn in range(rounds):
        for number in numbers if turn % 2 == 0 else numbers[::-1]:
            with ingress(folder / f"{turn}-{number}", engines, number) as (port, process):
                send(files[:4], port, 1)  # the first association loads what is loaded once
                for name, sending in SENDINGS.items():
                    before, cpu = sum(1 for _ in bucket.list("received")), cpu_of_one(process)
                    seconds = sending(files, port)
                    made = sum(1 for _ in bucket.list("received")) - before
                    one = Taken(seconds, made / len(files), (cpu_of_one(process) - cpu) / len(files))
                    taken[name][number].append(one)
    return taken


def rows(taken: dict[str, dict[int, list[Taken]]], images: int) -> list[dict]:
    """The table."""
    found = []
    for name, by_number in taken.items():
        first = next(iter(by_number.values()))
        for number, all_of_it in by_number.items():
            ratio = statistics.median(one.seconds / two.seconds for one, two in zip(first, all_of_it, strict=True))
            found.append(
                {
                    "senders": name,
                    "at_once": number,
                    "images_per_s": round(images / statistics.median(one.seconds for one in all_of_it), 1),
                    "objects_an_image": round(statistics.median(one.objects for one in all_of_it), 2),
                    "cpu_ms_an_image": round(1000 * statistics.median(one.cpu for one in all_of_it), 1),
                    "ratio": round(ratio, 2),
                }
            )
    return found


@contextmanager
def engines_of(folder: Path, delay_ms: float) -> Iterator[Engines]:
    """SeaweedFS so far away, and PostgreSQL with its standby."""
    objects, pair = SeaweedFs(folder / "objects", room=1000), None
    try:
        objects.start()
        pair = Pair()
        pair.add_standby()
        near = objects.settings()
        with far(objects.port, delay_ms) if delay_ms else nullcontext(objects.port) as port:
            yield Engines(near.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"}), near, pair.url)
    finally:
        objects.stop()
        if pair is not None:
            pair.close()


def main() -> None:
    """Run every number in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=5.0)
    parser.add_argument("--at-once", default="1,2,4")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ingress", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ingress:
        serve(int(arguments.ingress[0]), arguments.ingress[1])
        return
    numbers = [int(one) for one in arguments.at_once.split(",")]
    with tempfile.TemporaryDirectory() as name, engines_of(Path(name), arguments.delay_ms) as engines:
        told = facts(Path(name), "DCMTK", "PostgreSQL")
        files = make_images(Path(name), arguments.images)
        table = rows(measure(Path(name), files, engines, arguments.rounds, numbers), len(files))
    for row in table:
        print(
            f"{row['senders']:16} {row['at_once']} at once  {row['images_per_s']:7.1f} images/s"
            f"  {row['objects_an_image']:5.2f} objects  {row['cpu_ms_an_image']:5.1f} ms of processor"
            f"  {row['ratio']:5.2f}"
        )
    setting = f"{arguments.delay_ms:g} ms each way to the store, {arguments.images} images, {arguments.rounds} rounds"
    print(f"{setting}; {told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": table, "facts": asdict(told)}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
