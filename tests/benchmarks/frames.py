"""Peak memory of a large multi-frame object on its way through the gateway and back, and whether it came back exactly.

    python -m tests.benchmarks.frames [--gib 2] [--side 1024] [--stand-in] [--folder DIR]

An enhanced CT of noise in 16 bits is written to disk, frame by frame, with functional groups for each frame; then
`protect` (receive, seal, mark with 0 steps, derive, write) and `restore` (open, verify, write) run on it in this
process, as on the command line. What comes back is compared with the file, byte for byte.

Peaks are of this process: of each stage by the kernel's high-water mark, which is reset before it (Linux), and of all
of it by getrusage before the first reset and the largest since. The gateway as such, without any object, is the
baseline: one small frame is marked first, so that networks and libraries are loaded.

The real mark takes seconds a megapixel on a CPU. `--stand-in` changes every tenth row by a little instead of marking;
everything else is the same. Its figure then says nothing of the mark's own memory, which depends on the frame.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from pydicom import Dataset

from gateway.config import Config
from gateway.dicom.encoding.explicit import encode
from gateway.dicom.encoding.part10 import split_part10, write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.files.inputs import Inputs
from gateway.files.protect import protect_files
from gateway.files.restore import restore_files
from gateway.files.results import FileResult
from gateway.keys import make_keys
from gateway.mark import MarkedImage, MarkRequest, MarkSettings
from gateway.protect import Protector
from tests.support.dicom.enhanced import ENHANCED_CT, grouped, item
from tests.support.dicom.samples import image
from tests.support.flow import configuration

MIB = 1 << 20


class StandIn:
    """Changes every tenth row; in the place of `gateway.mark.Marker`."""

    settings = MarkSettings(mode="generator")  # whose frames do not begin from each other

    def mark(self, requests: Sequence[MarkRequest], profile: object) -> list[MarkedImage]:
        """One result for each request."""
        return [self._one(request) for request in requests]

    def _one(self, request: MarkRequest) -> MarkedImage:
        marked = request.image.copy()
        marked[::10] = np.where(marked[::10] < request.valid_range[1], marked[::10] + 1, marked[::10] - 1)
        residual = marked.astype(np.int32) - request.image
        nowhere = np.zeros(marked.shape[:2], bool)
        quality = SimpleNamespace(psnr=60.0, psnr_windows={}, stroke_share=0.0)
        return SimpleNamespace(
            image=marked,
            residual=residual,
            quality=quality,
            region=~nowhere,
            roi=nowhere,
            note="",
            tier="notice",
            misled_share=None,
        )


def write_object(path: Path, size: int, side: int) -> int:
    """Write an enhanced CT whose pixels have about `size` bytes; returns its frames. Memory: one frame."""
    frames = max(size // (side * side * 2), 1)
    head = _header(frames, side)
    length = frames * side * side * 2
    element = b"\xe0\x7f\x10\x00OW\0\0" + length.to_bytes(4, "little")
    rng = np.random.default_rng(6)

    def pieces():
        yield encode(head) + element
        for _ in range(frames):
            yield rng.integers(800, 1300, (side, side), np.uint16).astype("<u2").tobytes()

    with path.open("wb") as file:
        write_part10(file, ENHANCED_CT, str(head.SOPInstanceUID), EXPLICIT_LITTLE, pieces())
    return frames


def _header(frames: int, side: int) -> Dataset:
    per_frame = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, number])],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU")],
            FrameVOILUTSequence=[item(WindowCenter=40, WindowWidth=400 + number)],
        )
        for number in range(frames)
    ]
    shared = item(PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    small = image(np.zeros((1, 2, 2), np.uint16), SOPClassUID=ENHANCED_CT, SOPInstanceUID=f"1.2.826.0.1.97.{frames}")
    ds = grouped(small, per_frame, shared)
    ds.Rows = ds.Columns = side
    ds.NumberOfFrames = frames
    del ds.PixelData
    return ds


def run(folder: Path, size: int, side: int, stand_in: bool) -> dict[str, object]:
    """Make the object, send it through and back; SystemExit when it is not marked or does not come back exactly."""
    keys = folder / "keys"
    make_keys(keys)
    config = configuration(folder / "state", keys)
    marker = patch.object(Protector, "_marker", lambda *_: StandIn()) if stand_in else nullcontext()
    with marker:
        warm, source = folder / "warm.dcm", folder / "source.dcm"
        write_object(warm, 1, min(side, 256))
        _one(protect(config, warm, folder / "warm"), "marked")
        first = getrusage_mib()
        baseline = high_water()
        frames = write_object(source, size, side)
        stages: dict[str, object] = {}
        marked = _timed("protect", stages, lambda: _one(protect(config, source, folder / "out"), "marked"))
        given = _timed("restore", stages, lambda: _one(restore(config, marked, folder / "back"), "restored"))
    if digest(given) != digest(source):
        raise SystemExit("the original did not come back")
    return {
        "object_mib": source.stat().st_size / MIB,
        "frames": frames,
        "side": side,
        "mark": "stand-in" if stand_in else "lettered, 0 steps",
        "baseline_mib": baseline / MIB,
        "stages": stages,
        "peak_mib": max(first, getrusage_mib(), *(stage["peak_mib"] for stage in stages.values())),
        "exact": True,
    }


def protect(config: Config, path: Path, out: Path) -> list[FileResult]:
    with Inputs([path], 1 << 33) as inputs:
        return list(protect_files(config, inputs, out))


def restore(config: Config, path: Path, out: Path) -> list[FileResult]:
    with Inputs([path], 1 << 33) as inputs:
        return list(restore_files(config, inputs, out))


def high_water() -> int:
    """Highest resident set since the last call, in bytes."""
    text = Path("/proc/self/status").read_text()
    found = next(line for line in text.splitlines() if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(found.split()[1]) << 10


def getrusage_mib() -> float:
    """Highest resident set of the process, in MiB; the kernel forgets what was before a reset of its mark."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digest(path: Path) -> str:
    """SHA-256 of the data set in a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        split_part10(file)
        while data := file.read(MIB):
            found.update(data)
    return found.hexdigest()


def _timed(name: str, stages: dict[str, object], work):
    high_water()
    start = time.perf_counter()
    result = work()
    stages[name] = {"peak_mib": high_water() / MIB, "seconds": time.perf_counter() - start}
    return result


def _one(results: list[FileResult], outcome: str) -> Path:
    [result] = results
    if result.outcome != outcome:
        raise SystemExit(f"{result.outcome} instead of {outcome}: {result.reason_code} {result.reason}")
    return result.output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--folder", type=Path, help="where four times the object find room (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(run(Path(folder), int(given.gib * (1 << 30)), given.side, given.stand_in), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
