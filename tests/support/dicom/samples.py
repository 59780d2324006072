"""Data sets for tests: real files of the corpus, and small ones made here where the corpus lacks a kind."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

from gateway.dicom.copy.derivation import DerivationFacts
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from tests.support.standin import STANDIN

CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Sample:
    """One file of the corpus, with its row of index.csv."""

    path: Path
    row: dict[str, str]

    def read(self) -> tuple[bytes, str]:
        """Data set bytes and transfer syntax."""
        with self.path.open("rb") as file:
            meta, _ = split_part10(file)
            return file.read(), meta.transfer_syntax_uid


def corpus(folder: Path) -> list[Sample]:
    with (folder / "dicom" / "index.csv").open(newline="") as file:
        return [Sample(folder / "dicom" / row["file"], row) for row in csv.DictReader(file)]


def is_standin(folder: Path) -> bool:
    """Whether the data folder is the small one that is made where there is no real one (`tests.support.standin`)."""
    return (folder / STANDIN).exists()


def present(folder: Path, names: Iterable[str]) -> list[Sample]:
    """The files of these names: all of them in the real data folder, those that there are in a stand-in."""
    known = {one.row["file"]: one for one in corpus(folder)}
    wanted = list(names)
    found = [known[name] for name in wanted if name in known]
    assert found, f"none of {wanted} is there"
    assert is_standin(folder) or len(found) == len(wanted), f"not there: {set(wanted) - known.keys()}"
    return found


def sample(folder: Path, name: str) -> Sample:
    return next(s for s in corpus(folder) if s.row["file"] == name)


def image(frames: np.ndarray | None = None, **changes: object) -> Dataset:
    """A small valid image; `changes` are attributes by keyword, None takes one out. `frames`: (N, H, W[, 3])."""
    if frames is None:
        frames = np.arange(48, dtype=np.uint16).reshape(1, 6, 8)
    bits = frames.dtype.itemsize * 8
    ds = Dataset()
    ds.SOPClassUID = SC if frames.ndim == 4 else CT
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID = "1.2.3.1"
    ds.SeriesInstanceUID = "1.2.3.2"
    ds.FrameOfReferenceUID = "1.2.3.3"
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P1"
    ds.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    ds.PhotometricInterpretation = "RGB" if frames.ndim == 4 else "MONOCHROME2"
    if frames.ndim == 4:
        ds.PlanarConfiguration = 0
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = frames.shape[1:3]
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(frames.dtype.kind == "i")
    value = frames.tobytes()
    ds.add_new(0x7FE00010, "OB" if bits == 8 else "OW", value + b"\0" * (len(value) % 2))
    for keyword, value in changes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    if "BitsStored" in changes and "HighBit" not in changes:
        ds.HighBit = ds.BitsStored - 1
    return ds


def encode(ds: Dataset, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> bytes:
    syntax = syntax_of(transfer_syntax_uid)
    buffer = io.BytesIO()
    fp = DicomIO(buffer)
    fp.is_implicit_VR, fp.is_little_endian = syntax.implicit, syntax.little_endian
    write_dataset(fp, ds)
    return buffer.getvalue()


def decoded(ds: Dataset) -> tuple[int, int]:
    """Elements and items that pydicom makes of a data set when everything in it is looked at."""
    elements, items = len(ds), 0
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
        except Exception:
            continue
        for item in element.value or () if element.VR == "SQ" else ():
            inner = decoded(item)
            elements, items = elements + inner[0], items + 1 + inner[1]
    return elements, items


def facts(**changes: object) -> DerivationFacts:
    given: dict = {
        "derived_sop_uid": "2.25.1001",
        "derived_series_uid": "2.25.1002",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "manufacturer": "Test Site",
        "software_version": "0.1.0",
        "description": "An adversarial protection mark was added to the pixels.",
        "source_reference": True,
        "token": b"TOKEN." * 30,
        "hint": "MIAD_RESTORE",
        "device_serial": "42",
    }
    return DerivationFacts(**(given | changes))


def slightly_changed(frames: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Every 35th value one off, within the limits: stands for a mark."""
    marked = frames.copy()
    part = marked[:, ::7, ::5]
    part[...] = np.where(part >= limits[1], part - 1, part + 1)
    return marked


class OneWay(io.RawIOBase):
    """A stream that can only be read forward, as a decrypting spool reader."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(size)
