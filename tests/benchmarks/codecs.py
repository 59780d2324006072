"""What each lossless transfer syntax costs and saves: milliseconds and size of one 512x512x16-bit frame, side by side.

    python -m tests.benchmarks.codecs [--data ../shared/data] [--slices 10] [--rounds 3] [--json FILE]

Real CT and MR slices of 512x512x16 bit in the corpus. Every slice goes through every syntax before the next one, so
that whatever else the machine does falls on all of them; each time is the least of the rounds, then the median of the
slices.
"encode" and "decode" are one frame; "at egress" is all that sending a copy takes: cutting it, encoding, decoding,
comparing (`gateway.dicom.pixels.compress.recode`). The ratio is that of the encoded frame to its 512 KiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, LOSSLESS_NAMES, syntax_of
from gateway.dicom.pixels.codecs import decode_frame, encode_frame
from gateway.dicom.pixels.compress import recode
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import GatewayError
from tests.conftest import data_folder
from tests.support.dicom.samples import corpus, facts

SIDE = 512
Figures = dict[str, dict[str, list[float]]]  # syntax name -> column -> one value a slice
T = TypeVar("T")


def slices(data: Path, at_most: int) -> list[bytes]:
    """Derived data sets (unmarked, Explicit VR Little Endian) of real slices, spread over the files that fit."""
    rows = [
        one
        for one in corpus(data)
        if one.row["rows"] == one.row["cols"] == str(SIDE)
        and (one.row["bits_allocated"], one.row["frames"], one.row["modality"] in ("CT", "MR")) == ("16", "1", True)
    ]
    found = []
    for one in rows[:: max(1, len(rows) // max(at_most, 1))]:
        try:
            content, syntax = one.read()
            pixels = decode_pixels(content, syntax)
            found.append(derive(content, syntax, pixels.frames, facts(), pixels))
        except GatewayError:
            continue  # the codec or the header of this file is not read here
    return found[:at_most]


def measure(copies: list[bytes], rounds: int) -> Figures:
    """Every syntax on every slice, one after the other."""
    figures: Figures = {name: {"encode": [], "decode": [], "egress": [], "ratio": []} for name in LOSSLESS_NAMES}
    for copy in copies:
        parts = split(copy, EXPLICIT_LITTLE)
        frame = np.frombuffer(parts.value, "<u2").reshape(SIDE, SIDE)
        for name, uid in LOSSLESS_NAMES.items():
            columns = figures[name]
            seconds, _ = _least(rounds, partial(recode, copy, uid))
            columns["egress"].append(seconds)
            if not syntax_of(uid).encapsulated:
                columns["ratio"].append(1.0)
                continue
            seconds, encoded = _least(rounds, partial(encode_frame, frame, parts.header, uid))
            columns["encode"].append(seconds)
            columns["ratio"].append(len(encoded) / frame.nbytes)
            seconds, _ = _least(rounds, partial(decode_frame, encoded, parts.header, syntax_of(uid)))
            columns["decode"].append(seconds)
    return figures


def _least(rounds: int, work: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return best * 1000, result


def main(arguments: list[str] | None = None) -> int:
    """Print one line a syntax; exit code 1 when there are no slices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    copies = slices(options.data, options.slices) if options.data else []
    if not copies:
        print("no 512x512x16-bit slices found: give --data", file=sys.stderr)
        return 1
    figures = measure(copies, options.rounds)
    print(f"{len(copies)} slices, medians; ms a frame of {SIDE}x{SIDE}x16 bit")
    print(f"{'syntax':<10} {'encode':>8} {'decode':>8} {'at egress':>10} {'size ratio':>11}")
    for name, columns in figures.items():
        encode, decode = (f"{median(columns[c]):.1f}" if columns[c] else "-" for c in ("encode", "decode"))
        egress, ratio = median(columns["egress"]), median(columns["ratio"])
        print(f"{name:<10} {encode:>8} {decode:>8} {egress:>10.1f} {ratio:>11.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
