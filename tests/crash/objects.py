"""Small CT instances made from noise: several series, each in a transfer syntax of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

SIDE = 64

# Transfer syntax of a series -> what makes storescu propose just that and send the file as it is.
SYNTAXES: dict[UID, str] = {ExplicitVRLittleEndian: "-xe", ImplicitVRLittleEndian: "-xi", RLELossless: "-xr"}


@dataclass(frozen=True)
class Instance:
    """One file: its UID, storescu's option for its transfer syntax, and SHA-256 of its native pixel values."""

    path: Path
    sop_instance_uid: str
    option: str
    pixels_sha256: str


def make_instances(folder: Path, count: int, seed: int) -> list[Instance]:
    """`count` instances of SIDE x SIDE x 16 bit in three series of one study; every UID and every image is new."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    study = generate_uid()
    kinds = [(syntax, option, generate_uid()) for syntax, option in SYNTAXES.items()]
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    body = ((rows - SIDE / 2) ** 2 / (0.43 * SIDE) ** 2 + (columns - SIDE / 2) ** 2 / (0.36 * SIDE) ** 2) < 1
    made = []
    for number in range(count):
        syntax, option, series = kinds[number % len(kinds)]
        values = np.rint(np.where(body, 40, -1000) + random.normal(0, 12, (SIDE, SIDE))).astype("<i2")
        ds = _image(study, series, number, values)
        digest = hashlib.sha256(ds.PixelData).hexdigest()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax == RLELossless:
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = syntax
        path = folder / f"{number:05}.dcm"
        ds.save_as(path, enforce_file_format=True)
        made.append(Instance(path, str(ds.SOPInstanceUID), option, digest))
    return made


def _image(study: str, series: str, number: int, values: np.ndarray) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.Modality, ds.PatientName, ds.PatientID = "CT", "Kill^Test", "KILL"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260101", "120000", "", "1"
    ds.SeriesNumber, ds.InstanceNumber = 1, number + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows = ds.Columns = SIDE
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = values.tobytes()
    return ds
