"""Seconds that a header of thousands of frames takes: read, cut into parts, decoded, derived, sent through and back.

    python -m tests.benchmarks.headers [--frames 3600] [--side 32] [--through]

An enhanced MR with functional groups for each frame, in Explicit and Implicit VR, its sequences with and without
lengths. Seconds are of this process (CPU), so that what else the machine does counts less. `--through` sends the first
of them through `protect` and `restore` as well, with the mark of 0 steps (lettering, not optimised), by the clock, and
says whether it came back exactly.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.pixels.stored_values import pixels_of
from gateway.keys import make_keys
from tests.benchmarks.frames import digest, protect, restore
from tests.support.dicom.enhanced import ENHANCED_MR
from tests.support.dicom.long_headers import Writer, enhanced_mr
from tests.support.dicom.samples import facts, slightly_changed
from tests.support.flow import configuration


def measure(writer: Writer, frames: int, side: int) -> dict[str, float]:
    """CPU seconds of each step, and the megabytes of the header."""
    data, syntax = enhanced_mr(writer, frames, side), writer.transfer_syntax_uid
    times: dict[str, float] = {}
    _timed(times, "read", lambda: read_header(io.BytesIO(data), syntax))
    parts = _timed(times, "split", lambda: split(data, syntax))
    pixels = _timed(times, "pixels", lambda: pixels_of(parts))
    marked = slightly_changed(pixels.frames, pixels.limits)
    _timed(times, "derive", lambda: derive(data, syntax, marked, facts(), pixels, parts))
    return {"header_mb": len(parts.header_bytes) / 1e6, **times}


def _timed(times: dict[str, float], name: str, work: Callable):
    begin = time.process_time()
    result = work()
    times[name] = time.process_time() - begin
    return result


def through(folder: Path, frames: int, side: int) -> dict[str, float | bool]:
    """Seconds by the clock of `protect` and `restore`; SystemExit when the object is not marked, or not given back."""
    keys = folder / "keys"
    make_keys(keys)
    config = configuration(folder / "state", keys)
    source, writer = folder / "source.dcm", Writer()
    with source.open("wb") as file:
        sop_uid = f"1.2.826.0.1.96.{frames}.1"
        write_part10(file, ENHANCED_MR, sop_uid, writer.transfer_syntax_uid, [enhanced_mr(writer, frames, side)])
    begin = time.monotonic()
    [marked] = protect(config, source, folder / "marked")
    middle = time.monotonic()
    if marked.outcome != "marked":
        raise SystemExit(f"{marked.outcome}: {marked.reason_code} {marked.reason}")
    [given] = restore(config, marked.output, folder / "back")
    end = time.monotonic()
    if given.outcome != "restored" or digest(given.output) != digest(source):
        raise SystemExit("the original did not come back")
    return {"protect": middle - begin, "restore": end - middle, "exact": True}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3600)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--through", action="store_true")
    given = parser.parse_args()
    found: dict[str, dict] = {}
    for implicit in (False, True):
        for undefined in (False, True):
            name = f"{'implicit' if implicit else 'explicit'}, {'delimiters' if undefined else 'lengths'}"
            found[name] = measure(Writer(implicit, undefined), given.frames, given.side)
            print(name, json.dumps({key: round(value, 2) for key, value in found[name].items()}), flush=True)
    if given.through:
        with tempfile.TemporaryDirectory() as folder:
            print("through", json.dumps(through(Path(folder), given.frames, given.side)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
