"""How fast instances are taken in: the ingress beside DCMTK `storescp` and Orthanc, in one run.

    python -m tests.benchmarks.receive [--images 300] [--rounds 5] [--json FILE] [--picture FILE]

Senders are DCMTK `storescu` with TCP_NODELAY=1, one, or eight at once with the images shared out; images are CT of
512x512x16 bit made here from noise. A time runs from the start of the first sender to the end of the last, and holds
the sender's own work and its start. Medians over the rounds; in each round all take turns.

Rows: `storescp` and Orthanc as they come; the ingress alone as `serve --role ingress` starts it; and the same with its
flushes replaced by nothing, for the network path alone (`tests.benchmarks.no_flush`). A flush is measured in the same
run, in the same folder: 512 KiB appended and `fdatasync`ed. The ceiling of one durable association, whose sender waits
for each answer, is storescp's time and one flush an image; of eight, flushes shared by all that wait, or the disk.
Two more rows have a sender of our own on one association (`tests.support.network.windowed`), with an asynchronous
operations window of eight and without one, since no other sender here asks for one.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pynetdicom.dsutils import split_dataset

from tests.benchmarks.facts import facts
from tests.benchmarks.pictures import add_outputs, bars
from tests.benchmarks.programs import free_port, listening, program, running
from tests.benchmarks.relay import make_images, sink
from tests.benchmarks.site import write_site
from tests.support.network.windowed import association, send_all

SENDERS = 8
WINDOW = 8
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@contextmanager
def ingress(folder: Path, module: str) -> Iterator[int]:
    """The ingress role alone; `module` runs the command line."""
    site = write_site(folder, free_port(), 'action = "hold"')
    command = [sys.executable, "-m", module, "serve", "--role", "ingress", "--config", site.config]
    with running(command, ENVIRONMENT, ready=listening(site.port), log=folder / "log"):
        yield site.port


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's receiver, which flushes nothing."""
    with sink(folder, ENVIRONMENT) as (port, _):
        yield port


@contextmanager
def orthanc(folder: Path) -> Iterator[int]:
    """An Orthanc that keeps what it gets, in its default settings but for ports and folders."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomPort": port,
        "HttpPort": free_port(),
        "DicomAet": "RELAY",
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [program("Orthanc"), folder / "orthanc.json"]
    with running(command, ENVIRONMENT, ready=listening(port), log=folder / "log"):
        yield port


def send(files: Sequence[Path], port: int, senders: int) -> float:
    """Seconds until `senders` processes have sent their shares of the files."""
    command = [program("storescu"), "--max-pdu", "131072", "-aet", "STORESCU", "-aec", "RELAY", "127.0.0.1", str(port)]
    begin = time.monotonic()
    shares = [[*command, *map(str, files[start::senders])] for start in range(senders)]
    processes = [
        subprocess.Popen(share, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for share in shares
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a sender failed: not all was acknowledged")
    return time.monotonic() - begin


def send_windowed(files: Sequence[Path], port: int, window: int) -> float:
    """Seconds until a sender of our own has sent the files on one association, `window` of them unanswered."""
    begin = time.monotonic()
    with association(port, window, called=b"RELAY", calling=b"STORESCU") as (wire, granted):
        if (granted or (1, 1))[0] < window:
            raise SystemExit("the window was not granted")
        statuses = send_all(wire, (_image(file) for file in files), window)
    if any(statuses):
        raise SystemExit("not all was acknowledged")
    return time.monotonic() - begin


def _image(file: Path) -> tuple[str, bytes]:
    meta, at = split_dataset(file)
    return str(meta.MediaStorageSOPInstanceUID), file.read_bytes()[at:]


def disk_bytes_per_s(folder: Path, size: int = 256 << 20) -> float:
    """Bytes a second that 8 MiB writes with a flush each reach."""
    data, begin = os.urandom(8 << 20), time.monotonic()
    with open(folder / "flush", "wb", buffering=0) as file:
        for _ in range(size // len(data)):
            file.write(data)
            os.fdatasync(file.fileno())
    (folder / "flush").unlink()
    return size / (time.monotonic() - begin)


CHAINS = (
    ("storescp", storescp, ()),
    ("Orthanc", orthanc, ()),
    ("ingress, flushes off", ingress, ("tests.benchmarks.no_flush",)),
    ("ingress", ingress, ("gateway.cli",)),
)


def measure(folder: Path, files: list[Path], rounds: int) -> list[dict]:
    """Medians of every chain with one and with eight senders."""
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for name, chain, more in CHAINS:
            for senders in (1, SENDERS):
                with chain(folder / f"{number}-{senders}-{name.replace(' ', '').replace(',', '')}", *more) as port:
                    send(files[:4], port, 1)  # the first association loads what is loaded once
                    taken.setdefault((name, senders), []).append(send(files, port, senders))
        with ingress(folder / f"{number}-window", "gateway.cli") as port:
            send(files[:4], port, 1)
            for window in (1, WINDOW):
                taken.setdefault((f"ingress, window of {window}", 1), []).append(send_windowed(files, port, window))
    return [
        {
            "chain": name,
            "senders": senders,
            "seconds": round(statistics.median(times), 3),
            "images_per_s": round(len(files) / statistics.median(times), 1),
        }
        for (name, senders), times in taken.items()
    ]


def ratios(rows: list[dict], images: int, size: int, flush_s: float, disk: float) -> dict[str, float]:
    """Ours over what is to be reached; more is better."""
    seconds = {(row["chain"], row["senders"]): row["seconds"] for row in rows}
    alone = seconds["storescp", 1] + images * flush_s
    shared = max(seconds["storescp", SENDERS], images * flush_s / SENDERS, images * size / disk)
    return {
        "network path alone, over storescp": seconds["storescp", 1] / seconds["ingress, flushes off", 1],
        "durable, one association, over storescp and one flush an image": alone / seconds["ingress", 1],
        "durable, 8 associations, over shared flushes or the disk": shared / seconds["ingress", SENDERS],
        f"durable, one association, window of {WINDOW} over none": (
            seconds["ingress, window of 1", 1] / seconds[f"ingress, window of {WINDOW}", 1]
        ),
        "durable, one association, over Orthanc": seconds["Orthanc", 1] / seconds["ingress", 1],
        "durable, 8 associations, over Orthanc": seconds["Orthanc", SENDERS] / seconds["ingress", SENDERS],
    }


def main() -> None:
    """Run every chain in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    add_outputs(parser, "receive")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_images(folder, arguments.images)
        size = files[0].stat().st_size
        told, disk = facts(folder, "DCMTK", "Orthanc", flush_bytes=size), disk_bytes_per_s(folder)
        rows = measure(folder, files, arguments.rounds)
    found = {name: round(value, 2) for name, value in ratios(rows, len(files), size, told.flush_s, disk).items()}
    for row in rows:
        print(f"{row['chain']:24} {row['senders']} association(s)  {row['images_per_s']:8.1f} images/s")
    for name, value in found.items():
        print(f"{value:6.2f}  {name}")
    print(f"medians of {arguments.rounds}; disk {disk / 2**20:.0f} MiB/s; {told}")
    if arguments.json:
        result = {"rows": rows, "ratios": found, "disk_mib_s": disk / 2**20, "facts": asdict(told)}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    series: dict[str, dict[str, float]] = {}
    for row in rows:
        of_senders = series.setdefault(f"{row['senders']} association{'s' if row['senders'] > 1 else ''}", {})
        of_senders[row["chain"]] = row["images_per_s"]
    bars(arguments.picture, series, "images/s taken in (CT of 512 KiB)", told)


if __name__ == "__main__":
    main()
