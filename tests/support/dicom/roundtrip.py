"""One original through decoding, a stand-in for the mark, and deriving; judged by everyone who reads DICOM here."""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.encoding.transcode import to_implicit
from gateway.dicom.pixels.stored_values import Pixels, decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.readers import dciodvfy_errors, dcmtk_reads, gdcm_pixels
from tests.support.dicom.samples import Sample, corpus, facts, slightly_changed

# Bytes of an odd length where a private creator should stand: the padding that makes them even is complained of.
UNAVOIDABLE = {"ctbrain1.dcm": "Error - Value invalid for this VR - (0x0011,0x0011) LO PrivateCreator  LO - Trailing"}


def complaints(one: Sample, folder: Path) -> list[str]:
    """What is wrong with the derived instance of one file; [] when nothing is. Raises DicomError if not markable."""
    data, syntax = one.read()
    pixels = decode_pixels(data, syntax)
    header = read_header(io.BytesIO(data), syntax)
    marked = slightly_changed(pixels.frames, pixels.limits)
    derived = derive(data, syntax, marked, facts(), pixels)
    path, implicit = folder / "derived.dcm", folder / "implicit.dcm"
    for file, kind, content in ((path, EXPLICIT_LITTLE, derived), (implicit, IMPLICIT_LITTLE, to_implicit(derived))):
        with file.open("wb") as out:
            write_part10(out, header.sop_class_uid, facts().derived_sop_uid, kind, [content])
    ds = pydicom.dcmread(path)
    before = pydicom.dcmread(one.path, force=True)
    checks: dict[str, Callable[[], bool]] = {
        "not deterministic": lambda: derive(data, syntax, marked, facts()) == derived,
        "own decoder": lambda: _same(decode_pixels(derived, EXPLICIT_LITTLE), marked, pixels),
        "pydicom pixels": lambda: (
            pixels.raw is not None or np.array_equal(ds.pixel_array.reshape(marked.shape), marked)
        ),
        "implicit pixels": lambda: pydicom.dcmread(implicit).PixelData == ds.PixelData,
        "GDCM pixels": lambda: gdcm_pixels(path) == pixels.containers(marked).tobytes(),
        "DCMTK": lambda: dcmtk_reads(path) and dcmtk_reads(implicit),
        "image type": lambda: ds.ImageType[0] == "DERIVED",
        "UIDs": lambda: (
            (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID)
            == ("2.25.1001", "2.25.1002", before.StudyInstanceUID)
        ),
        "private block": lambda: read_block(ds).token == facts().token,
        "patient": lambda: ds.get("PatientID") == before.get("PatientID"),
        "private elements": lambda: _small_private(pydicom.dcmread(one.path, force=True)) <= {int(e.tag) for e in ds},
    }
    wrong = [name for name, check in checks.items() if not check()]
    baseline = one.path
    if syntax == DEFLATED_LITTLE:  # dciodvfy does not inflate
        baseline = folder / "inflated.dcm"
        with baseline.open("wb") as out:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
            write_part10(out, header.sop_class_uid, header.sop_instance_uid, EXPLICIT_LITTLE, [inflated])
    found = dciodvfy_errors(path) - dciodvfy_errors(baseline)
    spared = UNAVOIDABLE.get(one.path.name, "(none)")
    return wrong + [f"dciodvfy: {line}" for line in found if not line.startswith(spared)]


def _small_private(ds: pydicom.Dataset) -> set[int]:
    """What of the private elements rides along; group lengths (element 0) are not written."""
    found = {int(tag): ds.get_item(tag) for tag in ds.keys() if tag.is_private and tag.element}  # noqa: SIM118
    return {tag for tag, e in found.items() if tag >> 24 != 0x7F and len(getattr(e, "value", None) or b"") <= 1024}


def _same(again: Pixels, marked: np.ndarray, before: Pixels) -> bool:
    return np.array_equal(again.frames, marked) and again.frames.dtype == marked.dtype and again.lossy == before.lossy


def main(data: Path) -> int:
    """Take the whole corpus (`python -m tests.support.dicom.roundtrip FOLDER`): a line for each fault, then counts."""
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for one in corpus(data):
            try:
                wrong = complaints(one, Path(folder))
            except DicomError as error:
                outcomes[error.code] += 1
                print(f"{one.row['file']}: {error.code}: {error.message}")
                continue
            outcomes["wrong" if wrong else "derived"] += 1
            for line in wrong:
                print(f"{one.row['file']}: WRONG: {line}")
    print(dict(outcomes))
    return 1 if outcomes["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
