"""What becomes of every file of the real corpus: received, marked, held and why, restored byte for byte.

    python -m tests.benchmarks.corpus [--data ../shared/data] [--steps 0] [--json FILE]

Each file is sent by DCMTK `storescu`, in its own transfer syntax, to a gateway that delivers to DCMTK `storescp`. The
truth about what storescu sends is a second run straight into `storescp +B` (bit preserving). Everything that was
acknowledged has to be restorable with exactly those bytes, whether it was marked or held. `--steps 0` is the fast mark
setting (lettering without optimisation); bytes and outcomes do not depend on it.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

from gateway.config import load_config
from gateway.database import InstanceRow, reading
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.errors import DicomError
from gateway.service import build_restorer, database
from tests.benchmarks.programs import program
from tests.benchmarks.relay import sink
from tests.benchmarks.site import gateway_site
from tests.conftest import data_folder

ON_THE_WAY = ("received", "sealed", "marked")


PROFILE = """[[TransferSyntaxes]]
[Own]
TransferSyntax1 = {syntax}
[[PresentationContexts]]
[One]
PresentationContext1 = {sop_class}\\Own
[[Profiles]]
[Own]
PresentationContexts = One
"""


def send(file: Path, port: int) -> str:
    """Send one file in its own transfer syntax; returns "" when it was acknowledged, else what storescu says."""
    with open(file, "rb") as stream, tempfile.NamedTemporaryFile("w", suffix=".cfg") as profile:
        try:
            meta, offset = split_part10(stream)
            stream.seek(offset)
            sop_class = meta.sop_class_uid or read_header(stream, meta.transfer_syntax_uid).sop_class_uid
        except DicomError as error:
            return f"no DICOM instance: {error.code}"
        profile.write(PROFILE.format(syntax=meta.transfer_syntax_uid, sop_class=sop_class))
        profile.flush()
        address = ["-aet", "STORESCU", "-aec", "RELAY", "127.0.0.1", str(port), str(file)]
        command = [program("storescu"), "-v", "-xf", profile.name, "Own", *address]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    said = done.stdout + done.stderr
    if "Received Store Response (Success)" in said:
        return ""
    return next((line[2:].strip() for line in reversed(said.splitlines()) if line.startswith(("E:", "F:"))), "not sent")


def digest_of(part10: Path) -> str:
    """SHA-256 of a file's data set bytes, behind the File Meta."""
    with open(part10, "rb") as file:
        file.seek(split_part10(file)[1])
        return hashlib.sha256(file.read()).hexdigest()


def sent_digest(file: Path, port: int, received: Path) -> str:
    """What storescu really sends for a file: the digest that a bit-preserving receiver sees."""
    if send(file, port):
        return digest_of(file)  # storescp refuses some retired syntaxes; then the file's own bytes are the measure
    [new] = received.iterdir()
    digest = digest_of(new)
    new.unlink()
    return digest


def _readable(file: Path) -> bool:
    try:
        digest_of(file)
    except DicomError:
        return False
    return True


def main() -> None:
    """Send, wait, restore, print the table; exit code 1 when one acknowledged original did not come back exactly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = arguments.data / "dicom"
    index = (root / "index.csv").read_text().splitlines()
    files = [root / row["file"] for row in csv.DictReader(index)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with sink(folder / "truth", dict(os.environ)) as (port, received):
            truth = {file: sent_digest(file, port, received) for file in files if _readable(file)}
        rows = []
        with (
            sink(folder / "outside", dict(os.environ)) as (port, _),
            gateway_site(folder / "site", port, dict(os.environ), f"mark = {{ steps = {arguments.steps} }}") as site,
        ):
            config = load_config(site.config)
            engine, restorer = database(config), build_restorer(config)
            for file in files:
                refused = send(file, site.port)
                rows.append({"file": str(file.relative_to(root)), "acknowledged": not refused, "refused": refused})
            instances = _settled(engine)
            for row, file in zip(rows, files, strict=True):
                if row["acknowledged"]:
                    row |= _outcome(instances, truth[file], restorer)
    _report(rows, arguments.json)


def _settled(engine) -> dict[str, InstanceRow]:
    """All instances by the digest of what was received, once none is on its way any more."""
    while True:
        with reading(engine) as session:
            found = session.scalars(select(InstanceRow)).all()
        if not [row for row in found if row.state in ON_THE_WAY]:
            return {row.sha256: row for row in found}
        time.sleep(1)


def _outcome(instances: dict[str, InstanceRow], truth: str, restorer) -> dict:
    instance = instances.get(truth)
    if instance is None:
        return {"state": "other bytes than storescu sends", "restored": False}
    exact = False
    if instance.record:
        with restorer.by_locator(instance.record) as original:
            original.verify()
            exact = hashlib.sha256(b"".join(original.stream())).hexdigest() == truth
    return {"state": instance.state, "reason": instance.reason_code or "", "restored": exact}


def _report(rows: list[dict], path: Path | None) -> None:
    for row in rows:
        if row.get("state") != "delivered":
            print(f"{row['file']}: {row.get('state', 'refused')} {row.get('reason', '') or row['refused']}")
    acknowledged = [row for row in rows if row["acknowledged"]]
    states = collections.Counter(row["state"] for row in acknowledged)
    held = collections.Counter(row["reason"] for row in acknowledged if row["state"] == "held")
    restored = sum(row["restored"] for row in acknowledged)
    print(f"files {len(rows)}, acknowledged {len(acknowledged)}, {dict(states)}, held for {dict(held)}")
    print(f"restored byte for byte {restored} of {len(acknowledged)}")
    if path:
        path.write_text(json.dumps(rows, indent=2))
    raise SystemExit(0 if restored == len(acknowledged) else 1)


if __name__ == "__main__":
    main()
