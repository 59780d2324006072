"""What an asynchronous operations window gains towards a destination that is far away: the egress over a slow line.

    python -m tests.benchmarks.far [--images 200] [--rounds 5] [--delay-ms 10] [--window 8]

The egress sends CT of 512x512x16 bit on one association, as the worker does, to our own ingress, which grants a window,
and to DCMTK `storescp`, which grants none; in between a proxy keeps every byte for `--delay-ms` in each direction. A
time runs from the first instance to the last answer. In each round all take turns; medians of images a second, and the
ratio of a window asked for to none.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.audit import AuditLog
from gateway.config.models import Destination
from gateway.flow.ports import Outgoing
from gateway.flow.sidebyside import side_by_side
from gateway.network.egress import Egress
from tests.benchmarks.programs import free_port, listening, running
from tests.benchmarks.receive import ENVIRONMENT, _image, ingress, storescp
from tests.benchmarks.relay import make_images
from tests.support.network.samples import CT, EXPLICIT

CHUNK = 1 << 18


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Bytes of one direction, each written `delay_s` after it came."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    task = asyncio.ensure_future(write())
    data = b"-"
    while data:
        try:
            data = await reader.read(CHUNK)
        except ConnectionError:
            data = b""
        waiting.put_nowait((time.monotonic() + delay_s, data))
    await task


async def proxy(port: int, target: int, delay_s: float) -> None:
    """Serve until killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        further, back = await asyncio.open_connection("127.0.0.1", target)
        both = (_hand_on(reader, back, delay_s), _hand_on(further, writer, delay_s))
        await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


@contextmanager
def far(target: int, delay_ms: float) -> Iterator[int]:
    """A port behind which `target` is far away."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.far", "--proxy", port, target, "--delay-ms", delay_ms]
    with running(command, ENVIRONMENT, ready=listening(port)):
        yield port


def seconds(items: list[Outgoing], port: int, window: int, audit: AuditLog) -> float:
    """How long it takes to send all on one association."""
    where = {"host": "127.0.0.1", "port": port, "ae_title": "RELAY", "calling_ae": "STORESCU"}
    sender = Egress([Destination(name="far", type="research", async_operations=window, **where)], audit)
    try:
        sender.send("far", items[0])  # the association is open
        rest = items[1:]
        begin = time.monotonic()
        for _, status in side_by_side(
            len(rest), window, lambda n: sender.send("far", rest[n]), lambda: True, lambda: sender.at_a_time("far")
        ):
            if status:
                raise SystemExit(f"status {status:04x}")
        return time.monotonic() - begin
    finally:
        sender.close()


def main() -> None:
    """Run both peers with and without a window, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=10.0)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--proxy", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.proxy:
        asyncio.run(proxy(*arguments.proxy, arguments.delay_ms / 1000))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        audit = AuditLog(folder / "audit.jsonl")
        items = []
        for file in make_images(folder / "files", arguments.images + 1):
            uid, data = _image(file)
            items.append(Outgoing(CT, uid, EXPLICIT, len(data), lambda data=data: io.BytesIO(data)))
        taken: dict[tuple[str, int], list[float]] = {}
        for number in range(arguments.rounds):
            for title, peer, more in (("our ingress", ingress, ("gateway.cli",)), ("storescp", storescp, ())):
                place = folder / f"{number}-{title.replace(' ', '')}"
                place.mkdir()
                with peer(place, *more) as target, far(target, arguments.delay_ms) as port:
                    for window in (1, arguments.window):
                        taken.setdefault((title, window), []).append(seconds(items, port, window, audit))
    print(f"{arguments.delay_ms:g} ms each way, {arguments.images} images, medians of {arguments.rounds}")
    for title in ("our ingress", "storescp"):
        without, windowed = (taken[title, window] for window in (1, arguments.window))
        ratio = statistics.median(one / other for one, other in zip(without, windowed, strict=True))
        rates = [arguments.images / statistics.median(times) for times in (without, windowed)]
        print(f"{title:12} window 1: {rates[0]:7.1f}/s  {arguments.window}: {rates[1]:7.1f}/s  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
