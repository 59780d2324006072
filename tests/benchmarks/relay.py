"""How fast instances go through: the gateway beside Orthanc (Lua auto-forward) and beside no relay at all, in one run.

    python -m tests.benchmarks.relay [--images 300] [--mark-images 40] [--rounds 5] [--json FILE] [--picture FILE]
    python -m tests.benchmarks.relay --kind dx --images 20
    python -m tests.benchmarks.relay --generator 32 [--rounds 3] [--processes 1,2]

Sender is DCMTK `storescu`, sink DCMTK `storescp`; images are CT of 512x512x16 bit made here from noise, or with `--kind
dx` radiographs of 10 MiB (2560x2048x16 bit), which are not marked. Each chain takes `--rounds` lots of new images, one
after the other, and the median counts, with TCP_NODELAY=1 set and unset for the DCMTK programs (DCMTK reads that
variable). A time runs from the start of the sender until the sink holds every file. Ratios are to the plain chain of
the same setting. "mark, 0 steps" is the fast setting that exercises the whole way without optimisation; "mark" is the
default mark, on fewer images. Nearly all of the time is for marks; `--mark-images 0` leaves them out.

The form with `--generator` measures how much of the marker's own pace is left in a gateway
(`tests.benchmarks.marker_alone`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from gateway.config import PASS_STATEMENT
from tests.benchmarks.facts import facts
from tests.benchmarks.pictures import add_outputs, bars
from tests.benchmarks.programs import free_port, listening, program, running
from tests.benchmarks.site import gateway_site

SHAPES = {"ct": (512, 512), "dx": (2560, 2048)}
"""Kind of image -> rows and columns; 16 bits a pixel."""
SOP_CLASSES = {"ct": CTImageStorage, "dx": DigitalXRayImageStorageForPresentation}


def make_images(folder: Path, count: int, kind: str = "ct") -> list[Path]:
    """`count` instances of one series, each with other pixels."""
    random = np.random.default_rng(2026)
    study, series = generate_uid(), generate_uid()
    height, width = SHAPES[kind]
    rows, columns = np.mgrid[0:height, 0:width]
    body = ((rows / height - 0.5) / 0.43) ** 2 + ((columns / width - 0.5) / 0.35) ** 2 < 1
    files = []
    for number in range(count):
        pixels = np.where(body, 40, -1000) + random.normal(0, 12, (height, width))
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASSES[kind], generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.Modality, ds.PatientName, ds.PatientID = kind.upper(), "Bench^Mark", "BENCH"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
        ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Rows, ds.Columns = height, width
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 1.0
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, float(number)], [1, 0, 0, 0, 1, 0]
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.PixelData = np.rint(pixels).astype("<i2").tobytes()
        path = folder / f"{number:05}.dcm"
        ds.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


@contextmanager
def sink(folder: Path, environment: dict, *more: str) -> Iterator[tuple[int, Path]]:
    """A DCMTK storescp that writes into a folder, with `more` options; gives its port and the folder."""
    port, received = free_port(), folder / "sink"
    shutil.rmtree(received, ignore_errors=True)
    received.mkdir(parents=True)
    # +xa accepts every transfer syntax that it knows, +B writes what came, bit for bit
    command = [program("storescp"), "+xa", "+B", *more, "--max-pdu", "131072", "-od", received, "-aet", "SINK", port]
    with running(command, environment, ready=listening(port)):
        yield port, received


@contextmanager
def orthanc(folder: Path, sink_port: int, environment: dict) -> Iterator[int]:
    """An Orthanc that forwards each instance to the sink by Lua and deletes nothing."""
    port, http = free_port(), free_port()
    home = folder / "orthanc"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    script = home / "forward.lua"
    script.write_text(
        "function OnStoredInstance(id, tags, metadata, origin)\n"
        "  if origin['RequestOrigin'] ~= 'Lua' then SendToModality(id, 'sink') end\nend\n"
    )
    settings = home / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "Name": "relay",
                "StorageDirectory": str(home / "db"),
                "IndexDirectory": str(home / "db"),
                "DicomPort": port,
                "HttpPort": http,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomAet": "RELAY",
                "LuaScripts": [str(script)],
                "DicomModalities": {"sink": ["SINK", "127.0.0.1", sink_port]},
                "DicomAssociationCloseDelay": 5,
                "Plugins": [],
            }
        )
    )
    with running([program("Orthanc"), settings], environment, ready=listening(port), log=home / "log"):
        yield port


@contextmanager
def gateway(folder: Path, sink_port: int, environment: dict, route: str) -> Iterator[int]:
    """The gateway as `miad-gateway serve` starts it, with one route to the sink."""
    with gateway_site(folder / "gateway", sink_port, environment, route) as site:
        yield site.port


def send(files: list[Path], port: int, environment: dict) -> None:
    """Send files by one `storescu`, which ends when all are acknowledged."""
    command = [program("storescu"), "--max-pdu", "131072", "-aet", "STORESCU", "-aec", "RELAY", "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, files)], env=environment, check=True, capture_output=True)


def arrived(received: Path, count: int, since: float) -> float:
    """Wait until `count` files lie in the sink's folder; seconds since then (``time.monotonic``)."""
    while len(list(received.iterdir())) < count:
        time.sleep(0.02)
        if time.monotonic() - since > 3600:
            raise SystemExit("not all images arrived within an hour")
    return time.monotonic() - since


def time_chain(files: list[Path], port: int, received: Path, environment: dict) -> dict[str, float]:
    """Send all files; seconds until acknowledged, and until the sink has them."""
    already = len(list(received.iterdir()))
    begin = time.monotonic()
    send(files, port, environment)
    acknowledged = time.monotonic() - begin
    return {"acknowledged_s": acknowledged, "delivered_s": arrived(received, already + len(files), begin)}


PASS = f'action = "pass"\npass_statement = "{PASS_STATEMENT}"'
FAST = "mark = { steps = 0 }"
CHAINS: list[tuple[str, Callable | None, str, bool]] = [
    ("storescp, no relay", None, "", False),
    ("Orthanc, Lua forward", orthanc, "", False),
    ("gateway, mark off (pass)", gateway, PASS, False),
    ("gateway, mark, 0 steps", gateway, FAST, False),
    ("gateway, mark", gateway, "", True),
]


def main() -> None:
    """Run every chain with both settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--kind", choices=sorted(SHAPES), default="ct")
    parser.add_argument("--mark-images", type=int, default=40, help="images with the default mark; 0: none with marks")
    parser.add_argument("--generator", type=int, default=0, help="images in mode generator beside the marker alone")
    parser.add_argument("--rounds", type=int, default=5, help="of each chain; the median counts")
    parser.add_argument("--processes", default="1", help="of the worker, with --generator; several take turns: 1,2")
    add_outputs(parser, "relay")
    arguments = parser.parse_args()
    rows = []
    series: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        told = facts(Path(name), "DCMTK", "Orthanc")
        if arguments.generator:
            from tests.benchmarks.marker_alone import compare

            processes = [int(one) for one in arguments.processes.split(",")]
            rows, series["median"] = compare(arguments.generator, arguments.rounds, processes)
        for nodelay in () if arguments.generator else (True, False):
            environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
            if nodelay:
                environment["TCP_NODELAY"] = "1"
            plain = None
            for title, relay, extra, slow in CHAINS:
                count = arguments.mark_images if slow else arguments.images
                has_mark = relay is gateway and extra != PASS
                if has_mark and (arguments.kind != "ct" or not arguments.mark_images):
                    continue
                taken = _taken(relay, extra, Path(name), environment, (arguments.kind, count, arguments.rounds))
                rate = count / taken["delivered_s"]
                plain = plain or rate
                rows.append(
                    {
                        "chain": title,
                        "tcp_nodelay": nodelay,
                        "images": count,
                        **{key: round(value, 2) for key, value in taken.items()},
                        "images_per_s": round(rate, 1),
                        "ratio_to_plain": round(rate / plain, 4),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
                series.setdefault(f"TCP_NODELAY {'1' if nodelay else 'unset'}", {})[title] = rate
    print(f"medians of {arguments.rounds}; {told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "facts": asdict(told)}, indent=2) + "\n", "utf-8")
    bars(arguments.picture, series, f"images/s until the sink has all ({arguments.kind.upper()})", told, log=True)


def _taken(
    relay: Callable | None, extra: str, folder: Path, environment: dict, lots: tuple[str, int, int]
) -> dict[str, float]:
    """Medians of `time_chain` over lots (kind, images, how many): a relay takes what it knows for a repetition."""
    kind, count, rounds = lots
    with ExitStack() as open_ones:
        sink_port, received = open_ones.enter_context(sink(folder, environment))
        port = sink_port
        if relay is not None:
            more = (extra,) if extra or relay is gateway else ()
            port = open_ones.enter_context(relay(folder, sink_port, environment, *more))
        found = []
        for number in range(rounds):
            lot = folder / f"lot{number}"
            lot.mkdir()
            found.append(time_chain(make_images(lot, count, kind), port, received, environment))
            shutil.rmtree(lot)
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


if __name__ == "__main__":
    main()
