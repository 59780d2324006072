"""Enhanced multi-frame images for tests, out of real slices of the corpus or out of noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedMRImage
from pydicom import Dataset

from tests.support.dicom.samples import image

ENHANCED_CT, LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"
ENHANCED_MR, ENHANCED_XA = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.12.1.1"
US_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"


def item(**attributes: object) -> Dataset:
    """A sequence item of these attributes."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def grouped(ds: Dataset, per_frame: Sequence[Dataset], shared: Dataset | None = None) -> Dataset:
    """Put functional groups into a data set."""
    ds.SharedFunctionalGroupsSequence = [shared or Dataset()]
    ds.PerFrameFunctionalGroupsSequence = list(per_frame)
    return ds


def real_slices(folder: Path, count: int = 4, side: int = 96) -> list[Dataset]:
    """The middle of neighbouring slices of a real series, `side` pixels wide.

    The series keep one window and one rescale for all slices. Here both differ from slice to slice as scanners make
    them differ: a shifted intercept, under which the stored values shift the other way, and a window of its own.
    """
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))[8 : 8 + count]]
    for number, ds in enumerate(slices):
        top, left = (ds.Rows - side) // 2, (ds.Columns - side) // 2
        pixels = ds.pixel_array[top : top + side, left : left + side].astype(np.int16)
        ds.Rows = ds.Columns = side
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -100 * number, "US" if ds.Modality == "MR" else "HU"
        ds.WindowCenter, ds.WindowWidth = float(np.median(pixels)) + 10 * number, 200 + 50 * number
        if "PixelPaddingValue" in ds:
            del ds.PixelPaddingValue
        ds.PixelData = (pixels + 100 * number).astype(np.int16).tobytes()
        ds.PixelRepresentation = 1
    return slices


def legacy_converted(slices: Sequence[Dataset]) -> Dataset:
    """The slices as one legacy-converted enhanced image, as highdicom makes it, in a series of its own."""
    make: dict[str, Callable] = {"CT": LegacyConvertedEnhancedCTImage, "MR": LegacyConvertedEnhancedMRImage}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names in de-identified files
        return make[slices[0].Modality](slices, "1.2.826.0.1.98.1", 99, "1.2.826.0.1.98.2", 1)


def ultrasound_volume(frames: np.ndarray) -> Dataset:
    """An enhanced ultrasound volume (N, H, W) whose planes lie 2 mm apart, the last one first."""
    planes = [
        item(PlanePositionVolumeSequence=[item(ImagePositionVolume=[0.0, 0.0, 2.0 * number])])
        for number in reversed(range(len(frames)))
    ]
    shared = item(PlaneOrientationVolumeSequence=[item(ImageOrientationVolume=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])])
    return grouped(image(frames, SOPClassUID=US_VOLUME, Modality="US"), planes, shared)


def angiography(frames: np.ndarray) -> Dataset:
    """An enhanced XA run (N, H, W): no place in space, a window for each frame, references to another image."""
    source = item(ReferencedSOPClassUID=ENHANCED_XA, ReferencedSOPInstanceUID="1.2.3.77")
    per_frame = [
        item(
            FrameContentSequence=[item(FrameAcquisitionNumber=number + 1)],
            FrameVOILUTSequence=[item(WindowCenter=100.0 + number, WindowWidth=150.0)],
            DerivationImageSequence=[item(SourceImageSequence=[source])],
            ReferencedImageSequence=[source],
            RealWorldValueMappingSequence=[item(LUTLabel="DENSITY", RealWorldValueSlope=0.5 + number)],
            XAXRFFrameCharacteristicsSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "", "NONE"])],
        )
        for number in range(len(frames))
    ]
    return grouped(image(frames, SOPClassUID=ENHANCED_XA, Modality="XA"), per_frame)
