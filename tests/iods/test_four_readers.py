"""pydicom, DCMTK, GDCM and Orthanc read the marked copies of every transfer syntax and photometric, to equal pixels.

Copies of real files, in all syntaxes that the corpus has, are derived with a stand-in for the mark; of the made objects
they come out of the gateway with the real one.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.iods.expected import named
from tests.support.copies import Gateway
from tests.support.dicom.readers import gdcm_pixels
from tests.support.dicom.samples import corpus, is_standin, slightly_changed
from tests.support.network.peers import Orthanc, orthanc, program

# No file of these pairs in the corpus can be marked; the last three have made objects (`tests.iods.compressed`).
HELD = {
    ("1.2.840.10008.1.2.4.53", "MONOCHROME2"),  # JPEG Spectral Selection, retired
    ("1.2.840.10008.1.2.4.55", "MONOCHROME2"),  # JPEG Full Progression, retired
    ("1.2.840.10008.1.2.8.1", "MONOCHROME2"),  # Deflated Image Frame: its one file has pixels of one bit
    ("1.2.840.10008.1.2.4.201", "RGB"),  # HTJ2K Lossless
    ("1.2.840.10008.1.2.4.80", "RGB"),  # JPEG-LS
    ("1.2.840.10008.1.2.4.81", "RGB"),
}
UNKNOWN_TO_GDCM = ["dermoscopic", "enhanced-rf"]  # GDCM 3.0 does not count these classes among the images


@dataclass(frozen=True)
class Copy:
    """A marked copy: its file, its stored values and the bytes that its pixel data has to hold."""

    name: str
    path: Path
    frames: np.ndarray
    expected: bytes


@pytest.fixture(scope="module")
def archive() -> Iterator[Orthanc]:
    """An Orthanc that takes whatever it is given."""
    with orthanc() as one:
        yield one


@pytest.mark.peers
def test_copies_of_every_transfer_syntax_and_photometric(miad_data, tmp_path, archive):
    copies, without = smallest_of_each_pair(miad_data, tmp_path)
    syntaxes, pairs = (10, 16) if is_standin(miad_data) else (13, 27)
    if is_standin(miad_data):  # whose one near-lossless gray file cannot be marked
        without -= {("1.2.840.10008.1.2.4.81", "MONOCHROME2")}
    assert {pair for pair in without if pair[1] not in ("PALETTE COLOR", "")} <= HELD
    assert len({syntax for syntax, _ in copies}) >= syntaxes and len(copies) >= pairs
    assert disagreements(copies.values(), tmp_path, archive) == []


@pytest.mark.full
@pytest.mark.peers
def test_copies_out_of_the_gateway(made, passage, tmp_path, archive):
    copies = []
    for name in named("mark"):
        passed = passage.through(made[name])
        before = decode_pixels(made[name].data, made[name].transfer_syntax_uid)
        marked = before.frames + passed.stacked("residual", before.frames.shape).astype(before.frames.dtype)
        copies.append(written(name, passed.copy, before.containers(marked), marked, tmp_path))
    wrong = disagreements(copies, tmp_path, archive)
    assert wrong == [f"{name}: GDCM" for name in UNKNOWN_TO_GDCM]
    for name in UNKNOWN_TO_GDCM:  # neither can it read the original
        one = made[name]
        original = written(f"original-{name}", one.data, np.empty(0), np.empty(0), tmp_path)
        assert gdcm_pixels(original.path) is None


def disagreements(copies: Iterable[Copy], folder: Path, archive: Orthanc) -> list[str]:
    """Who reads something else, of which copy."""
    return [
        f"{one.name}: {reader}"
        for one in copies
        for reader, found in _readings(one, folder, archive).items()
        if found != one.expected
    ]


def _readings(one: Copy, folder: Path, archive: Orthanc) -> dict[str, bytes | None]:
    """Reader -> pixel data as it gives them; None when its decoder gives other values than those that were marked."""
    size = len(one.expected)
    ds = pydicom.dcmread(one.path)
    return {
        "pydicom": ds.PixelData[:size] if _same(ds.pixel_array, one.frames) else None,
        "DCMTK": _dcmtk(one.path, folder)[:size],
        "GDCM": gdcm_pixels(one.path),
        "Orthanc": _orthanc(one, archive),
    }


def _same(found: np.ndarray, frames: np.ndarray) -> bool:
    return np.array_equal(found.reshape(frames.shape), frames)


def _dcmtk(path: Path, folder: Path) -> bytes:
    """Dcmdump reads every element and writes the pixel data; dcm2pnm renders the first frame."""
    raw = folder / f"raw-{path.stem}"
    raw.mkdir()
    for command in (["dcmdump", "-q", "+W", raw, path], ["dcm2pnm", "-q", path, raw / "shown.pnm"]):
        subprocess.run([program(command[0]), *command[1:]], check=True, capture_output=True, timeout=60)
    assert (raw / "shown.pnm").stat().st_size > 0
    [values] = raw.glob("*.raw")
    return values.read_bytes()


def _orthanc(one: Copy, archive: Orthanc) -> bytes | None:
    """The frames one by one as they lie, if Orthanc's own decoder gives the same values."""
    name = archive.upload(one.path.read_bytes())
    numbers = range(len(one.frames))
    decoded = np.stack([archive.values(name, number) for number in numbers])
    return b"".join(archive.frame(name, number) for number in numbers) if _same(decoded, one.frames) else None


def smallest_of_each_pair(data: Path, folder: Path) -> tuple[dict[tuple[str, str], Copy], set[tuple[str, str]]]:
    """Copies of the smallest file of each (transfer syntax, photometric) that can be marked; and the pairs without."""
    gateway, copies, seen = Gateway(), {}, set()
    for sample in sorted(corpus(data), key=lambda one: int(one.row["bytes"])):
        pair = (sample.row["transfer_syntax_uid"], sample.row["photometric"])
        seen.add(pair)
        if pair in copies:
            continue
        try:
            original, syntax = sample.read()
            pixels = decode_pixels(original, syntax)
            marked = slightly_changed(pixels.frames, pixels.limits)
            copy = gateway.copy(original, syntax, f"2.25.{1000 + len(copies)}")
        except DicomError:
            continue
        copies[pair] = written(sample.row["file"], copy, pixels.containers(marked), marked, folder)
    return copies, seen - set(copies)


def written(name: str, data: bytes, expected: np.ndarray, frames: np.ndarray, folder: Path) -> Copy:
    """A copy as a file (PS3.10)."""
    header = read_header(io.BytesIO(data), EXPLICIT_LITTLE)
    path = folder / f"{name.replace('/', '_')}.dcm"
    with path.open("wb") as file:
        write_part10(file, header.sop_class_uid, header.sop_instance_uid, EXPLICIT_LITTLE, [data])
    return Copy(name, path, frames, expected.tobytes())
