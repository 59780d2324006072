"""What made objects are put together from: real pixels, and the modules that most IODs share (PS3.3 C.7, C.12)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import ImageCms
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

SIDE = 128
MADE_BY = "Tests"
MAKER = {  # as highdicom asks for it
    "manufacturer": MADE_BY,
    "manufacturer_model_name": "Builder",
    "software_versions": "1",
    "device_serial_number": "1",
}
_ROOT = "1.2.840.10008.5.1.4.1.1."


@dataclass(frozen=True)
class Real:
    """Pixels of the data folder, 128 x 128, every second or fourth one of real images."""

    folder: Path

    @cached_property
    def ct(self) -> np.ndarray:
        """(3, H, W) int16, HU; padding outside the scan circle is -1500."""
        return self._series("series_ct_head_ge", (10, 11, 12), "{:02d}.dcm", 4)

    @cached_property
    def mr(self) -> np.ndarray:
        """(3, H, W) uint16 below 4096."""
        return self._series("series_mr_brain", (10, 11, 12), "brain_{:03d}.dcm", 2).astype(np.uint16)

    @cached_property
    def xray(self) -> np.ndarray:
        """(3, H, W) uint16 of 12 bits: chest radiographs."""
        return self._labelled("chest_xray").astype(np.uint16) << 4

    @cached_property
    def gray(self) -> np.ndarray:
        """(3, H, W) uint8: the same."""
        return self._labelled("chest_xray")

    @cached_property
    def fundus(self) -> np.ndarray:
        """(3, H, W, 3) uint8."""
        return self._labelled("fundus")

    @cached_property
    def skin(self) -> np.ndarray:
        """(3, H, W, 3) uint8."""
        return self._labelled("skin")

    def _labelled(self, name: str) -> np.ndarray:
        with np.load(self.folder / name / "test.npz") as archive:
            return np.ascontiguousarray(archive["images"][:3, ::2, ::2])

    def _series(self, name: str, numbers: tuple[int, ...], pattern: str, step: int) -> np.ndarray:
        files = (self.folder / "dicom" / name / pattern.format(number) for number in numbers)
        return np.ascontiguousarray([dcmread(file).pixel_array[::step, ::step] for file in files])


def uid(*names: object) -> str:
    """Always the same UID for the same names."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return f"1.2.826.0.1.99.{int.from_bytes(digest[:8], 'big')}"


def storage(suffix: str) -> UID:
    """A storage SOP Class by what is its own in PS3.4 table B.5-1."""
    return UID(_ROOT + suffix)


def item(**elements: object) -> Dataset:
    """A sequence item, or any data set, of these elements."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 table 8.8-1)."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def reference(ds: Dataset, **more: object) -> Dataset:
    """An item that refers to an instance (PS3.3 table 10-11)."""
    return item(ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID=ds.SOPInstanceUID, **more)


def composite(suffix: str, modality: str, name: str, **more: object) -> Dataset:
    """Patient, study, series, equipment and SOP Common: what all objects of the one made study have.

    suffix: of the SOP Class, as for `storage`. Names that differ in a number at their end are one series.
    """
    ds = item(
        SpecificCharacterSet="ISO_IR 100",
        SOPClassUID=storage(suffix),
        SOPInstanceUID=uid(name, "instance"),
        InstanceCreationDate="20260101",
        InstanceCreationTime="120000",
        StudyInstanceUID=uid("study"),
        SeriesInstanceUID=uid(name.rstrip("0123456789"), "series"),
        StudyDate="20260101",
        StudyTime="120000",
        SeriesDate="20260101",
        SeriesTime="120000",
        AccessionNumber="A1",
        ReferringPhysicianName="",
        StudyID="S1",
        PatientName="Doe^Jane",
        PatientID="P1",
        PatientBirthDate="19700101",
        PatientSex="F",
        PatientAge="056Y",
        Modality=modality,
        SeriesNumber=1,
        BodyPartExamined="HEAD",  # unpaired: no laterality is asked for
        InstanceNumber=1,
        Manufacturer=MADE_BY,
        ManufacturerModelName="Builder",
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        ContentDate="20260101",
        ContentTime="120000",
    )
    ds.update(item(**more))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def add_pixels(ds: Dataset, frames: np.ndarray, bits_stored: int = 0, photometric: str = "") -> None:
    """Image Pixel module (PS3.3 C.7.6.3), native, little endian. frames: (H, W), (N, H, W) or (N, H, W, 3)."""
    colour = frames.shape[-1] == 3
    frames = frames if frames.ndim == 3 + colour else frames[None]
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    if colour:
        ds.PlanarConfiguration = 0
    if len(frames) > 1 or "NumberOfFrames" in ds:
        ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = frames.shape[1:3]
    ds.BitsAllocated = frames.dtype.itemsize * 8
    ds.BitsStored = bits_stored or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(frames.dtype.kind == "i")
    value = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OW" if ds.BitsAllocated > 8 else "OB", value + b"\0" * (len(value) % 2))


def add_plane(ds: Dataset, number: int = 0) -> None:
    """Frame of Reference and Image Plane modules (PS3.3 C.7.4.1, C.7.6.2): slices 5 mm apart."""
    ds.FrameOfReferenceUID = uid("frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.PixelSpacing, ds.SliceThickness = [2, 2], 5
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-128, -128, 5 * number]
    ds.InstanceNumber = number + 1


HEAD = code("69536005", "SCT", "Head")
CHEST = code("51185008", "SCT", "Chest")
BREAST = code("76752008", "SCT", "Breast")


def srgb() -> bytes:
    """An ICC profile of sRGB, of the input device class that PS3.3 C.11.15 asks for."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:12] + b"scnr" + profile[16:]
