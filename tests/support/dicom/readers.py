"""Foreign programs that judge and read what is derived: dicom3tools, DCMTK, GDCM.

dicom-validator (PyPI) is not among them: it reads the DocBook of PS3.3, 3.4 and 3.6, which neither its wheel nor its
source distribution (0.9.0) holds and which it fetches from NEMA's server; tests need no network. dciodvfy judges alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

# PS3.3 C.8.13.4 and C.8.13.5 say "May be present otherwise" of these attributes of a DERIVED enhanced MR image; this
# edition of dciodvfy says they may not.
_OUTDATED = re.compile(r"which may not be present otherwise.*Module=<(MRPulseSequence|BulkMotionSynchronization)>")
_UID = re.compile(r"\b[0-9]+(\.[0-9]+){3,}")


def missing_programs() -> list[str]:
    return [name for name in ("dciodvfy", "dcmdump", "dcmftest") if shutil.which(name) is None]


def dciodvfy_errors(path: Path) -> Counter[str]:
    """Error lines, without UID values (a repeated wrong UID is the same error)."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    return Counter(_UID.sub("UID", line) for line in lines if line.startswith("Error") and not _OUTDATED.search(line))


def dcmtk_reads(path: Path) -> bool:
    """Dcmftest takes it for DICOM and dcmdump reads every element."""
    return all(
        subprocess.run([*command, path], capture_output=True, timeout=60).returncode == 0
        for command in (["dcmftest"], ["dcmdump", "-q"])
    )


def gdcm_pixels(path: Path) -> bytes | None:
    """The pixel buffer as GDCM gives it, or None when it cannot read the image."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    return reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
