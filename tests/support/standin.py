"""A data folder for machines that have none: the files that pydicom, pynetdicom and scikit-image carry, laid out alike.

What is here is real: DICOM files of the packages under the names that they have in the corpus (`packaged.csv` holds
their rows of index.csv), the two series out of a real CT and MR image, and the pictures out of scikit-image's
photographs. The pictures have no labels: tests of accuracy need the labelled sets (`labelled_sets` in conftest.py).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import jpeg_ls
import numpy as np
import pydicom
import pynetdicom
import skimage
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless

ROWS = Path(__file__).with_name("packaged.csv")
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
PYNETDICOM = Path(pynetdicom.__file__).parent / "tests" / "dicom_files"
PICTURES = Path(skimage.__file__).parent / "data"
STANDIN = "STANDIN"
"""A file of this name says that a data folder is one of these."""


def make_standin(folder: Path) -> Path:
    """Fill `folder` and return it."""
    dicom = folder / "dicom"
    for name in ("pydicom", "pynetdicom", "pydicom-data", "series_ct_head_ge", "series_mr_brain"):
        (dicom / name).mkdir(parents=True)
    with ROWS.open(newline="") as file:
        for row in csv.DictReader(file):
            (dicom / row["file"]).symlink_to(_packaged(row["file"]))
    _make_series(dicom / "series_ct_head_ge", "{:02d}.dcm", _ct())
    _make_series(dicom / "series_mr_brain", "brain_{:03d}.dcm", _mr())
    for name, make in _COMPRESSED.items():
        make().save_as(dicom / "pydicom-data" / name, enforce_file_format=True)
    _write_index(dicom)
    for name, pictures in _SETS.items():
        (folder / name).mkdir()
        images = np.stack([_picture(*where, gray=name not in ("fundus", "skin")) for where in pictures])
        files = [f"{file}-{top}-{left}" for file, top, left in pictures]
        labels = np.zeros(len(images), np.int64)
        np.savez(folder / name / "test.npz", images=images, labels=labels, classes=np.array(["none"]), files=files)
    (folder / STANDIN).touch()
    return folder


def _packaged(name: str) -> Path:
    """``pydicom/A_B_C.dcm`` of the corpus is ``dicomdirtests/A/B/C`` of the package, where it is not a file itself."""
    package, _, file = name.partition("/")
    path = (PYDICOM if package == "pydicom" else PYNETDICOM) / file
    return path if path.exists() else PYDICOM / "dicomdirtests" / Path(*file.removesuffix(".dcm").split("_"))


def _write_index(dicom: Path) -> None:
    """The packages' rows, and rows of what was made here."""
    with ROWS.open(newline="") as file, (dicom / "index.csv").open("w", newline="") as out:
        reader = csv.DictReader(file)
        assert reader.fieldnames
        writer = csv.DictWriter(out, reader.fieldnames)
        writer.writeheader()
        writer.writerows(reader)
        for path in sorted([*dicom.glob("series_*/*"), *dicom.glob("pydicom-data/*")]):
            writer.writerow(_row(path, dicom))


def _row(path: Path, dicom: Path) -> dict[str, object]:
    ds = pydicom.dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    kind = f"{'u' * (ds.PixelRepresentation == 0)}int{ds.BitsAllocated}"
    return {
        "file": str(path.relative_to(dicom)),
        "modality": ds.get("Modality", ""),
        "sop_class_uid": ds.SOPClassUID,
        "sop_class": UID(ds.SOPClassUID).name,
        "transfer_syntax_uid": syntax,
        "transfer_syntax": syntax.name,
        "photometric": ds.PhotometricInterpretation,
        "planar": ds.get("PlanarConfiguration", ""),
        "bits_allocated": ds.BitsAllocated,
        "bits_stored": ds.BitsStored,
        "pixel_representation": ds.PixelRepresentation,
        "frames": ds.get("NumberOfFrames", 1),
        "rows": ds.Rows,
        "cols": ds.Columns,
        "bytes": path.stat().st_size,
        "preamble": "yes",
        "decode_check": f"ok {kind} {ds.Rows}x{ds.Columns}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "made by tests/support/standin.py",
        "licence": "MIT",
    }


# --- the series: one real image, moved a little from slice to slice


def _ct() -> tuple[Dataset, np.ndarray]:
    ds = pydicom.dcmread(PYDICOM / "J2K_pixelrep_mismatch.dcm")
    pixels = ds.pixel_array.astype(np.int16)
    pixels = (pixels - pixels.min()).clip(0, 4000) - np.int16(1000)  # HU
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    pixels[x * x + y * y > 1] = -1500  # padding outside the scan circle
    shown = {"PixelPaddingValue": -1500, "WindowCenter": 35, "WindowWidth": 100}
    return _slice("CT", "1.2.840.10008.5.1.4.1.1.2", **shown), pixels


def _mr() -> tuple[Dataset, np.ndarray]:
    pixels = pydicom.dcmread(PYDICOM / "examples_overlay.dcm").pixel_array[22:278, 114:370]
    return _slice("MR", "1.2.840.10008.5.1.4.1.1.4", PixelPaddingValue=0), pixels.astype(np.int16)


def _slice(modality: str, sop_class: str, **more: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.Modality = sop_class, modality
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "", "1", ""
    ds.Manufacturer, ds.ManufacturerModelName = "GE MEDICAL SYSTEMS", "Stand-in"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.StudyDescription, ds.SeriesDescription = "HEAD", "AXIAL"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "REMOVED", "P1", "", "F"
    ds.BodyPartExamined, ds.PatientPosition, ds.SliceThickness = "HEAD", "HFS", "4.0"
    if modality == "CT":
        ds.KVP = "120"
    else:
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "SK", "SP", "2D"
        ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = "2300", "22", "8"
    root = f"1.2.826.0.1.97.{int(modality == 'MR')}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.3"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.PositionReferenceIndicator = 2, 1, ""
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 0.9483237, -0.3173047], [0.4882812, 0.4882812]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
    ds.update({element.tag: element for element in _of(**more)})
    return ds


def _make_series(folder: Path, pattern: str, made: tuple[Dataset, np.ndarray], count: int = 24) -> None:
    ds, pixels = made
    root = str(ds.SeriesInstanceUID)
    for number in range(1, count + 1):
        ds.SOPInstanceUID, ds.InstanceNumber = f"{root}.{number}", number
        ds.ImagePositionPatient = [-125.0, -123.5 + 1.27 * number, 5.8 + 3.8 * number]
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = np.roll(pixels, number, axis=1).astype("<i2").tobytes()
        _with_meta(ds, ExplicitVRLittleEndian).save_as(folder / pattern.format(number), enforce_file_format=True)


# --- compressed files that only the corpus has, encoded here


def _capture(frame: np.ndarray, codestream: bytes, syntax: UID, photometric: str = "RGB") -> Dataset:
    """A Secondary Capture without the UIDs that storing asks for, as those of the corpus are."""
    ds = _of(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        SOPInstanceUID="1.2.826.0.1.97.9",
        SamplesPerPixel=frame.shape[2],
        PhotometricInterpretation=photometric,
        PlanarConfiguration=0,
        Rows=frame.shape[0],
        Columns=frame.shape[1],
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
    )
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].VR = "OB"
    return _with_meta(ds, syntax)


def _htj2k() -> Dataset:
    import imagecodecs

    frame = pydicom.dcmread(PYDICOM / "examples_rgb_color.dcm").pixel_array
    return _capture(frame, imagecodecs.htj2k_encode(frame), HTJ2KLossless)


def _jpeg_ls(interleave: int) -> Callable[[], Dataset]:
    def make() -> Dataset:
        frame = pydicom.dcmread(PYDICOM / "SC_rgb_jpeg_dcmd.dcm").pixel_array
        source = np.ascontiguousarray(frame if interleave else frame.transpose(2, 0, 1))
        return _capture(frame, bytes(jpeg_ls.encode_array(source, interleave_mode=interleave)), JPEGLSLossless)

    return make


def _ct_jpeg_2000() -> Dataset:
    ds = pydicom.dcmread(PYDICOM / "J2K_pixelrep_mismatch.dcm")
    ds.PixelData, ds.PixelRepresentation = ds.pixel_array.astype("<i2").tobytes(), 1
    ds.BitsStored, ds.HighBit = 16, 15
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    return ds


def _segmentation_jpeg_2000() -> Dataset:
    ds = pydicom.dcmread(PYDICOM / "liver_1frame.dcm")
    frame = ds.pixel_array.astype(np.uint8)
    import imagecodecs

    codestream = imagecodecs.jpeg2k_encode(frame, codecformat="J2K", reversible=True, level=0, bitspersample=1)
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return ds


_COMPRESSED: dict[str, Callable[[], Dataset]] = {
    "HTJ2KLossless_08_RGB.dcm": _htj2k,
    "JLSL_RGB_ILV0.dcm": _jpeg_ls(0),
    "JLSL_RGB_ILV2.dcm": _jpeg_ls(2),
    "693_J2KR.dcm": _ct_jpeg_2000,
    "liver_j2k.dcm": _segmentation_jpeg_2000,
}


def _of(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _with_meta(ds: Dataset, syntax: UID) -> Dataset:
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


# --- pictures: file and the corner of the square that is taken of it

_SETS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "chest_xray": (("camera.png", 0, 0), ("moon.png", 0, 0), ("coins.png", 0, 0), ("page.png", 0, 0)),
    "brain_mri": (("moon.png", 0, 0), ("camera.png", 0, 0), ("brick.png", 0, 0)),
    "chest_ct": (("coins.png", 0, 0), ("brick.png", 0, 0), ("moon.png", 0, 0)),
    "fundus": (("retina.jpg", 0, 0), ("retina.jpg", 300, 300), ("hubble_deep_field.jpg", 0, 0)),
    "skin": (("ihc.png", 0, 0), ("chelsea.png", 0, 100), ("coffee.png", 0, 100), ("astronaut.png", 0, 0)),
}


def _picture(name: str, top: int, left: int, gray: bool) -> np.ndarray:
    with Image.open(PICTURES / name) as picture:
        side = min(picture.width - left, picture.height - top)
        part = picture.convert("L" if gray else "RGB").crop((left, top, left + side, top + side))
        return np.asarray(part.resize((256, 256), Image.Resampling.LANCZOS))
