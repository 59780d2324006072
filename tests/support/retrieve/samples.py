"""Originals for the vault: real files that ship with pydicom, one of each transfer syntax, and a series of many."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pynetdicom.dsutils import split_dataset

FILES = {
    "ct": "CT_small.dcm",
    "ct-j2k": "693_J2KI.dcm",
    "mr": "examples_overlay.dcm",
    "mr-implicit": "MR_small_implicit.dcm",
    "mr-rle": "MR_small_RLE.dcm",
    "mr-big-endian": "MR_small_bigendian.dcm",
    "mr-jpeg-ls": "MR_small_jpeg_ls_lossless.dcm",
    "mr-j2k-lossless": "MR_small_jp2klossless.dcm",
    "sc-jpeg": "SC_rgb_jpeg_dcmtk.dcm",
    "sc-jpeg-lossless": "SC_rgb_jpeg_gdcm.dcm",
    "sc-jpeg-extended": "JPGExtended.dcm",
    "sc-deflated": "image_dfl.dcm",
    "us-jpeg-frames": "examples_ybr_color.dcm",
    "plan-implicit": "rtplan.dcm",
    "french": "../charset_files/chrFren.dcm",
    "chinese": "../charset_files/chrX1.dcm",
}
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
MANY = 60  # instances of the series "many"
MANY_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.99999"
MR_SYNTAXES = ("mr-implicit", "mr-rle", "mr-big-endian", "mr-jpeg-ls", "mr-j2k-lossless")  # one study


@dataclass(frozen=True)
class Sample:
    """One original: its data set bytes, and what its header says."""

    name: str
    data: bytes
    transfer_syntax: str
    header: Dataset

    @property
    def sop_class(self) -> str:
        return str(self.header.SOPClassUID)

    @property
    def uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    @property
    def series(self) -> str:
        return str(self.header.SeriesInstanceUID)

    @property
    def study(self) -> str:
        return str(self.header.StudyInstanceUID)


def samples() -> list[Sample]:
    """Every sample, each with a SOP Instance UID of its own."""
    seen: set[str] = set()
    made = []
    for name, file in FILES.items():
        sample = from_file(name, FOLDER / file)
        if sample.uid in seen:  # variants of one image in several encodings
            sample = renamed(sample, name, {sample.uid: sample.uid[:-2] + f"{len(made):02d}"})
        seen.add(sample.uid)
        made.append(sample)
    ct = made[0]
    for number in range(MANY):
        new = {ct.uid: ct.uid[:-3] + f"{number + 1:03d}", ct.study: MANY_STUDY, ct.series: ct.series[:-3] + "777"}
        made.append(renamed(ct, f"many-{number}", new))
    return made


def renamed(sample: Sample, name: str, uids: dict[str, str]) -> Sample:
    """The same bytes but for UIDs, exchanged for others of the same length."""
    data = sample.data
    for old, new in uids.items():
        assert len(old) == len(new) and old.encode() in data
        data = data.replace(old.encode(), new.encode())
    return _described(name, data, sample.transfer_syntax)


def data_set(path: Path) -> bytes:
    """The bytes behind the File Meta of a file that a peer has written."""
    return path.read_bytes()[split_dataset(path)[1] :]


def received(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID to data set bytes of all files in a folder."""
    found = {}
    for path in folder.iterdir():
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        found[str(header.SOPInstanceUID)] = data_set(path)
    return found


def from_file(name: str, path: Path) -> Sample:
    """A DICOM file's data set, as a network brings it."""
    syntax = str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID)
    data = data_set(path)
    # A deflated file of odd length: no network can carry it so, every sender pads it (PS3.5 A.5, PS3.8 E.1).
    return _described(name, data + b"\0" * (len(data) % 2), syntax)


def _described(name: str, data: bytes, syntax: str) -> Sample:
    file = io.BytesIO()
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    whole = io.BytesIO(b"\0" * 128 + b"DICM" + file.getvalue() + data)
    return Sample(name, data, syntax, pydicom.dcmread(whole, stop_before_pixels=True))
