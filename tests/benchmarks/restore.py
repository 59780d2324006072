"""How fast originals come back: the restore SCP beside DCMTK `dcmqrscp` and Orthanc, in one run.

    nice -n -5 python -m tests.benchmarks.restore [--images 300] [--rounds 5] [--delay] [--json FILE] [--picture FILE]

A study of CT slices of 512x512x16 bit, made here from noise, is held by each of the three. DCMTK `getscu` (C-GET) and
`movescu` (C-MOVE to a `storescp`) fetch it whole into files, all DCMTK programs with TCP_NODELAY=1 or, with `--delay`,
as they come (DCMTK then waits for acknowledgements of TCP); a time runs from the start of the client to its end. In
each round all take turns; medians over the rounds. What came is compared by SHA-256 with what was put in; of ours one
difference ends the benchmark, of the others the count is printed.

Ours is `serve --role restore` as it comes: originals are sealed, each is opened and its digest verified before its
first byte leaves, and the audit's line of intent is flushed before the first original. The others keep plain files and
flush nothing. A flush is measured in the same run: 4 KiB appended and `fdatasync`ed. `getscu` and `movescu` know no
TLS, so the workstation's entry is a plain one.

What no server could beat is measured in the same run too: the processor time that opening and verifying an original
takes alone, in one thread that does nothing else, and `getscu`'s own for receiving it. All cores together cannot serve
more a second than that leaves.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pydicom

from gateway.config.load import load_config
from gateway.dicom.copy.uids import derived_uid
from gateway.dicom.encoding.encoded import read_header
from gateway.keys.generate import make_keys
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.restore import Original, Restorer
from gateway.service.places import database, places
from gateway.vault import PayloadStore, RecordFacts, RecordStore, seal_payload
from tests.benchmarks.facts import facts
from tests.benchmarks.pictures import add_outputs, bars
from tests.benchmarks.programs import free_port, listening, program, running
from tests.benchmarks.receive import ENVIRONMENT, send
from tests.benchmarks.relay import make_images, sink
from tests.support.retrieve.samples import data_set

CLIENT, ARCHIVE = "READING1", "RELAY"
LARGEST_PDU = "131072"
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def fill(config_file: Path, files: Sequence[Path]) -> None:
    """Seal the files into the vault of a site, as the worker does, without marking them."""
    config = load_config(config_file)
    keys = SealingKeys.load(config.keys)
    store = RecordStore(
        database(config),
        keys.signer,
        keys.verifier,
        vault_id=config.site.name,
        restore_public=keys.restore_public,
        derive_uid=partial(derived_uid, keys.uid_key),
    )
    payloads = PayloadStore(places(config).vault)
    for file in files:
        data, syntax = data_set(file), str(pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID)
        header = read_header(io.BytesIO(data), syntax)
        record = store.create(
            RecordFacts(
                original_sop_uid=header.sop_instance_uid,
                original_series_uid=header.series_uid,
                study_uid=header.study_uid,
                sop_class_uid=header.sop_class_uid,
                transfer_syntax_uid=syntax,
                original_sha256=hashlib.sha256(data).hexdigest(),
                original_size=len(data),
                policy="benchmark",
                attributes=header.attributes,
            )
        )
        payloads.put(
            record.locator,
            lambda out, data=data, record=record: seal_payload(out, io.BytesIO(data), record, keys.restore_public),
        )


@contextmanager
def gateway(home: Path, files: Sequence[Path], client_port: int, environment: dict) -> Iterator[int]:
    """The restore role alone, as `serve --role restore` starts it, with the files in its vault."""
    port, config = free_port(), home / "gateway.toml"
    settings = f"""version = 1
[ingress]
port = {free_port()}
[restore]
ae_title = "{ARCHIVE}"
tls_port = false
plain_port = {port}
[[restore.workstations]]
ae_title = "{CLIENT}"
addresses = ["127.0.0.1"]
plain = true
host = "127.0.0.1"
port = {client_port}
receive_plain = true
"""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:  # filling flushes several times an instance
        make_keys(Path(name) / "keys")
        (Path(name) / config.name).write_text(settings)
        fill(Path(name) / config.name, files)
        shutil.copytree(name, home)
    command = [sys.executable, "-m", "gateway.cli", "serve", "--role", "restore", "--config", config]
    with running(command, environment, ready=listening(port), log=home / "log"):
        yield port


@contextmanager
def dcmqrscp(home: Path, files: Sequence[Path], client_port: int, environment: dict) -> Iterator[int]:
    """DCMTK's test node, filled over C-STORE."""
    (home / "db").mkdir(parents=True)
    port = free_port()
    (home / "config").write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = {LARGEST_PDU}
MaxAssociations = 16
HostTable BEGIN
client = ({CLIENT}, 127.0.0.1, {client_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ARCHIVE} {home / "db"} RW (10, 8192mb) ANY
AETable END
"""
    )
    with running([program("dcmqrscp"), "-c", home / "config"], environment, listening(port), home / "log"):
        send(files, port, 1)
        yield port


@contextmanager
def orthanc(home: Path, files: Sequence[Path], client_port: int, environment: dict) -> Iterator[int]:
    """An Orthanc in its default settings, but for ports, folders and who may fetch; filled over C-STORE."""
    home.mkdir(parents=True)
    port = free_port()
    settings = {
        "StorageDirectory": str(home / "db"),
        "IndexDirectory": str(home / "db"),
        "DicomPort": port,
        "HttpPort": free_port(),
        "DicomAet": ARCHIVE,
        "DicomModalities": {"client": [CLIENT, "127.0.0.1", client_port]},
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "Plugins": [],
    }
    (home / "orthanc.json").write_text(json.dumps(settings))
    with running([program("Orthanc"), home / "orthanc.json"], environment, listening(port), home / "log"):
        send(files, port, 1)
        yield port


def opening_seconds(config_file: Path) -> float:
    """Processor time to open and verify one original, of all in the vault of a site, by this thread alone."""
    config = load_config(config_file)
    records = RecordStore(database(config))
    restorer = Restorer(database(config), places(config).vault, OpeningKeys.load(config.keys), config.site.name)
    originals = [one for one in restorer.by_locators(list(records.locators())).values() if isinstance(one, Original)]
    taken = []
    for _ in range(3):
        begin = time.thread_time()
        for original in originals:
            with original:
                original.verify()
        taken.append((time.thread_time() - begin) / len(originals))
    return statistics.median(taken)


def children_seconds() -> float:
    """Processor time of the programs that this process has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fetch(operation: str, port: int, study: str, folder: Path, environment: dict) -> float:
    """Seconds that a client takes to fetch a study into `folder`, which the target of a C-MOVE writes into as well."""
    for file in folder.iterdir():
        file.unlink()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    common = ["-S", "-aet", CLIENT, "-aec", ARCHIVE, *keys, "127.0.0.1", str(port)]
    if operation == "C-GET":
        command = [program("getscu"), *common, "--max-pdu", LARGEST_PDU, "+B", "-od", str(folder)]
    else:
        command = [program("movescu"), *common, "-aem", CLIENT]
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    taken = time.monotonic() - begin
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-500:]}")
    return taken


def digests(folder: Path) -> set[str]:
    """SHA-256 of the data set of every file in a folder."""
    return {hashlib.sha256(data_set(file)).hexdigest() for file in folder.iterdir()}


HOLDERS = (("dcmqrscp", dcmqrscp), ("Orthanc", orthanc), ("gateway", gateway))
OPERATIONS = ("C-GET", "C-MOVE")


def measure(folder: Path, files: Sequence[Path], rounds: int, environment: dict) -> tuple[list[dict], dict[str, float]]:
    """Median seconds of every holder and operation, and how many data sets came as they were put in.

    And in milliseconds of processor time an image: what opening one takes alone, and what `getscu` takes.
    """
    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    expected = {hashlib.sha256(data_set(file)).hexdigest() for file in files}
    taken: dict[tuple[str, str], list[float]] = {}
    exact: dict[tuple[str, str], int] = {}
    client: list[float] = []
    with ExitStack() as open_ones:
        client_port, received = open_ones.enter_context(sink(folder, environment))
        ports = {
            name: open_ones.enter_context(holder(folder / name, files, client_port, environment))
            for name, holder in HOLDERS
        }
        for number in range(rounds + 1):
            for name, port in ports.items():
                for operation in OPERATIONS:
                    before = children_seconds()
                    seconds = fetch(operation, port, study, received, environment)
                    if (name, operation) == ("gateway", "C-GET"):
                        client.append((children_seconds() - before) / len(files))
                    if number:  # in the first, what is loaded once is loaded
                        taken.setdefault((name, operation), []).append(seconds)
                    exact[name, operation] = len(expected & digests(received))
        opening = opening_seconds(folder / "gateway" / "gateway.toml")
    if any(exact["gateway", operation] != len(files) for operation in OPERATIONS):
        raise SystemExit("the gateway did not give every original back bit for bit")
    costs = {"opening_ms": 1000 * opening, "getscu_ms": 1000 * statistics.median(client)}
    rows = [
        {
            "operation": operation,
            "holder": name,
            "seconds": round(statistics.median(taken[name, operation]), 3),
            "images_per_s": round(len(files) / statistics.median(taken[name, operation]), 1),
            "bit_exact": exact[name, operation],
        }
        for operation in OPERATIONS
        for name, _ in HOLDERS
    ]
    return rows, costs


def ratios(rows: Sequence[dict]) -> dict[str, float]:
    """The gateway's rate over each other's; more is better."""
    seconds = {(row["operation"], row["holder"]): row["seconds"] for row in rows}
    return {
        f"{operation}, gateway over {name}": round(seconds[operation, name] / seconds[operation, "gateway"], 2)
        for operation in OPERATIONS
        for name, _ in HOLDERS
        if name != "gateway"
    }


def main() -> None:
    """Run all in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", action="store_true", help="DCMTK programs without TCP_NODELAY")
    add_outputs(parser, "restore")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files = make_images(folder / "images", arguments.images)
        told = facts(folder, "DCMTK", "Orthanc", flush_bytes=4096)
        plain = {name: value for name, value in ENVIRONMENT.items() if name != "TCP_NODELAY"}
        rows, costs = measure(folder, files, arguments.rounds, plain if arguments.delay else ENVIRONMENT)
    found = ratios(rows)
    for row in rows:
        exact = f"{row['bit_exact']} of {arguments.images} bit-exact"
        print(f"{row['operation']:7} {row['holder']:10} {row['images_per_s']:8.1f} images/s   {exact}")
    for name, value in found.items():
        print(f"{value:6.2f}  {name}")
    most = 1000 * told.cores / sum(costs.values())
    opening, client = costs["opening_ms"], costs["getscu_ms"]
    print(f"processor time an image: opening and verifying alone {opening:.2f} ms, getscu {client:.2f} ms")
    print(f"so on {told.cores} cores at most {most:.0f} images/s, whatever serves them")
    nodelay = "unset" if arguments.delay else "1"
    print(f"TCP_NODELAY {nodelay}; medians of {arguments.rounds}; {told}")
    if arguments.json:
        result = {"rows": rows, "ratios": found, "costs": costs, "tcp_nodelay": nodelay, "facts": asdict(told)}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    series: dict[str, dict[str, float]] = {}
    for row in rows:
        series.setdefault(row["operation"], {})[row["holder"]] = row["images_per_s"]
    bars(arguments.picture, series, f"images/s given back (CT of 512 KiB), TCP_NODELAY {nodelay}", told)


if __name__ == "__main__":
    main()
