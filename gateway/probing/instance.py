"""The synthetic instance that a probe sends: an image of no patient, marked up as a marked copy is.

Everything in it follows from the probe's id, so that whoever has the id can compare what comes back, days later too.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from gateway.dicom.encoding.part10 import IMPLEMENTATION_CLASS_UID
from gateway.dicom.encoding.private import write_block

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage: what archives and vendors take if they take anything
SIDE = 128
TOKEN_BYTES = 192  # about what a key reference has
KEY_BYTES = 80
PAYLOAD_BYTES = 256 * 1024  # as an original that rides in its copy (restoration = "carried")
LABEL = "CONNECTIVITY PROBE - NOT A PATIENT"
UID_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Probe:
    """One probe. id: 32 hexadecimal digits."""

    id: str

    def uid(self, level: str) -> str:
        """Study, Series or SOP Instance UID, by its keyword."""
        return f"2.25.{int.from_bytes(self.bytes_of(level, 16))}"

    def bytes_of(self, what: str, count: int) -> bytes:
        """Bytes that look random and follow from the id."""
        return hashlib.shake_256(f"{self.id} {what}".encode()).digest(count)

    @property
    def patient_id(self) -> str:
        """By which it is found where its UIDs were changed."""
        return f"MIAD-PROBE-{self.id[:12].upper()}"

    def frame(self) -> np.ndarray:
        """Its pixels, int16 (`SIDE`, `SIDE`): noise in all bits that are stored, and the word PROBE."""
        noise = np.frombuffer(self.bytes_of("pixels", SIDE * SIDE * 2), "<u2").reshape(SIDE, SIDE) & 0x03FF
        picture = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(picture).text((12, SIDE // 2 - 12), "PROBE", fill=255, font_size=28)
        return np.where(np.asarray(picture) > 127, 4000, noise).astype("<u2")

    def dataset(self, hint: str, site: str) -> Dataset:
        """The whole instance, without File Meta."""
        ds = Dataset()
        now = datetime.now(UTC)
        ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        ds.SOPClassUID, ds.Modality = SOP_CLASS, "CT"
        for level in UID_LEVELS:
            setattr(ds, level, self.uid(level))
        ds.FrameOfReferenceUID = self.uid("FrameOfReferenceUID")
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = now.strftime("%Y%m%d")
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = now.strftime("%H%M%S")
        ds.PatientName, ds.PatientID = "MIAD^PROBE", self.patient_id
        ds.PatientBirthDate = ds.PatientSex = ds.ReferringPhysicianName = ds.AccessionNumber = ""
        ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "PROBE", 1, 1
        ds.StudyDescription = ds.SeriesDescription = LABEL
        ds.Manufacturer = "MIAD Gateway"
        ds.DerivationDescription = f"Synthetic instance of MIAD Gateway {self.id}"
        equipment = Dataset()
        equipment.Manufacturer, equipment.InstitutionName = "MIAD Gateway", site
        equipment.DeviceUID = IMPLEMENTATION_CLASS_UID
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109103", "DCM", "Modifying Equipment"
        equipment.PurposeOfReferenceCodeSequence = [purpose]
        ds.ContributingEquipmentSequence = [equipment]
        ds.PositionReferenceIndicator = ds.KVP = ds.AcquisitionNumber = None
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows = ds.Columns = SIDE
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.WindowCenter, ds.WindowWidth = 500, 2000
        ds.BurnedInAnnotation, ds.LossyImageCompression = "YES", "00"
        key, payload = self.bytes_of("key", KEY_BYTES), self.bytes_of("payload", PAYLOAD_BYTES)
        write_block(ds, self.bytes_of("token", TOKEN_BYTES), hint, sealed_key=key, payload=payload)
        ds.PixelData = self.frame().tobytes()
        ds["PixelData"].VR = "OW"
        return ds


def encoded(ds: Dataset) -> bytes:
    """A data set in Explicit VR Little Endian, without preamble and File Meta."""
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return out.getvalue()
