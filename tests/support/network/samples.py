"""Data sets to send: real files that ship with pydicom, and made ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom.dsutils import encode, split_dataset

from gateway.flow.ports import Outgoing

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG_LS = "1.2.840.10008.1.2.4.80"


def pydicom_file(name: str) -> Path:
    """A file that is inside the pydicom package."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return folder / name


def data_set_bytes(path: Path) -> bytes:
    """The bytes behind the File Meta."""
    return path.read_bytes()[split_dataset(path)[1] :]


def ct(rows: int = 64, syntax: str = EXPLICIT, sop_class: str = CT) -> tuple[str, bytes]:
    """SOP Instance UID and data set bytes of a made image of noise, `rows` x `rows` x 16 bit."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality = "DOE^JANE", "PATIENT-4711", "CT"
    ds.Rows = ds.Columns = rows
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.random.default_rng(rows).integers(0, 4096, (rows, rows), np.uint16).tobytes()
    uid = UID(syntax)
    return str(ds.SOPInstanceUID), encode(ds, uid.is_implicit_VR, uid.is_little_endian, uid.is_deflated)


def outgoing(data: bytes, uid: str, syntax: str = EXPLICIT, sop_class: str = CT, **more: object) -> Outgoing:
    """An `Outgoing` over bytes in memory."""
    return Outgoing(sop_class, uid, syntax, len(data), lambda: io.BytesIO(data), **more)
