"""Compressed images in the syntaxes whose only real files lack the UIDs that storing asks for."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, dcmread

from tests.iods.parts import composite

_FILES = {
    "htj2k": "pydicom-data/HTJ2KLossless_08_RGB.dcm",
    "jpeg-ls-planes": "pydicom-data/JLSL_RGB_ILV0.dcm",
    "jpeg-ls-samples": "pydicom-data/JLSL_RGB_ILV2.dcm",
    "jpeg-ls-near-lossless": "pydicom/SC_rgb_jls_lossy_line.dcm",
}
_PIXELS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)


def compressed(folder: Path) -> dict[str, Dataset]:
    """Name -> data set: Secondary Captures around the codestreams of real files, which are not touched."""
    return {name: _capture(name, dcmread(folder / "dicom" / file, force=True)) for name, file in _FILES.items()}


def _capture(name: str, real: Dataset) -> Dataset:
    ds = composite("7", "OT", name, ConversionType="WSD", ImageType=["DERIVED", "PRIMARY"], PatientOrientation="")
    ds.update({real[keyword].tag: real[keyword] for keyword in _PIXELS})
    if name == "jpeg-ls-near-lossless":
        ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 2
        ds.LossyImageCompressionMethod = "ISO_14495_1"
    ds.file_meta.TransferSyntaxUID = real.file_meta.TransferSyntaxUID
    return ds
