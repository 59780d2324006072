"""`python -m tests.support.bounded STATE KEYS FOLDER MEGABYTES`: protect and restore files with little memory to spare.

Prints one JSON object a file: outcome, code, seconds of the processor, and whether what was restored is the original
bit for bit. All is loaded and used once before the address space is limited, so that the limit is what the files
themselves may take.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from gateway.dicom.encoding.part10 import split_part10
from tests.files.conftest import protect, real, restore
from tests.support.flow import configuration


def data_set(path: Path) -> bytes:
    with path.open("rb") as stream:
        split_part10(stream)
        return stream.read()


def main(state: Path, keys: Path, folder: Path, megabytes: int) -> None:
    """Protect each file by itself, restore what was marked."""
    site = configuration(state, keys)
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        (warm,) = protect(site, real(name), out=state / "warm")
        assert warm.outcome == "marked", warm
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (megabytes << 20),) * 2)
    for path in sorted(folder.iterdir()):
        begun = time.process_time()
        (result,) = protect(site, path, out=state / "marked")
        row = {"name": path.stem, "outcome": result.outcome, "code": result.reason_code, "exact": None}
        if result.output:
            (back,) = restore(site, result.output, out=state / "restored")
            row["exact"] = back.outcome == "restored" and data_set(back.output) == data_set(path)
        row["seconds"] = round(time.process_time() - begun, 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), megabytes=int(sys.argv[4]))
