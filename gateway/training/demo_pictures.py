"""Make the dozen pictures of the demo: DICOM files out of two openly licensed sets, with their licence beside them.

    python -m gateway.training.demo_pictures [--out gateway/demo/pictures] [--data DIR]

Taken are sets whose licence was read in the owner's own words (grade A of ``gateway.training.open_sets``), and of them
pictures that no network of the packs (half A) learnt from, nor the held-out judge (training part of half B): of each
class, in the order of the set, the first that the judge answers rightly without a mark. Nothing else is looked at,
least of all what a mark makes of them. The JPEG of the set is carried as it is (JPEG Baseline, PS3.5 A.4.1), so a
restored picture is the set's own, byte for byte.
"""

from __future__ import annotations

import argparse
import io
import uuid
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEGBaseline8Bit,
    OphthalmicPhotography8BitImageStorage,
    VLPhotographicImageStorage,
)

from gateway.errors import ConfigError
from gateway.mark.evaluation.judge import Judge, load_judge
from gateway.training.open_sets import OPEN_SETS, is_in, shared_folder, train_rows

EACH = {"dermoscopy": 2, "fundus_dr": 3}
"""Set -> pictures of each of its classes: three classes and two."""
LICENCE_URL = {
    "CC-0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
}
DATE, TIME = "20260101", "120000"  # the sets tell none


@dataclass(frozen=True)
class Picture:
    """One picture of a set: its name there, its class, its JPEG file."""

    task: str
    file: str
    source_path: str
    label: str
    jpeg: bytes
    number: int = 0  # among those of its set in the demo

    @property
    def name(self) -> str:
        """Of its file in the demo."""
        return f"{self.task}-{self.number}.dcm"


def unseen(root: Path, task: str) -> list[Picture]:
    """Return the pictures of the validation part of half B, in the order of the set.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    """
    with zipfile.ZipFile(root / OPEN_SETS[task].folder / "train.zip") as archive:
        rows = [row for row in train_rows(archive) if is_in(row, "B", "validation")]
        return [Picture(task, row["file"], row["source_path"], row["class"], archive.read(row["file"])) for row in rows]


def chosen(root: Path, judge: Judge) -> list[Picture]:
    """Return, set by set and class by class, the first pictures that the judge answers rightly; numbered a set.

    Raises
    ------
    ConfigError
        ``no-images`` when it so answers too few of a class.
    """
    found: list[Picture] = []
    for task, each in EACH.items():
        pictures = unseen(root, task)
        shown = [np.asarray(Image.open(io.BytesIO(one.jpeg)).convert("RGB"), np.float32) / 255.0 for one in pictures]
        said = judge.judge(np.stack(shown), task)
        right = [one for one, verdict in zip(pictures, said, strict=True) if verdict.class_name == one.label]
        classes = sorted({one.label for one in pictures})
        kept = [one for label in classes for one in [other for other in right if other.label == label][:each]]
        if len(kept) < each * len(classes):
            told = f"of {task} the judge answers rightly {len(kept)} pictures of {each} of each class"
            raise ConfigError("no-images", f"{told}: {', '.join(classes)}", "is the set whole, and the judge's file?")
        found += [replace(one, number=number) for number, one in enumerate(kept, 1)]
    return found


def data_set(picture: Picture) -> FileDataset:
    """Return a picture as a DICOM file: skin as a VL photograph (PS3.3 A.32.4), a retina as ophthalmic (A.41)."""
    is_retina = picture.task == "fundus_dr"
    ds = Dataset()
    ds.SOPClassUID = OphthalmicPhotography8BitImageStorage if is_retina else VLPhotographicImageStorage
    ds.SOPInstanceUID = _uid(picture.task, picture.file)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(picture.task, "study"), _uid(picture.task, "series")
    ds.StudyDate = ds.ContentDate = DATE
    ds.StudyTime = ds.ContentTime = TIME
    ds.AccessionNumber = ds.ReferringPhysicianName = ds.Manufacturer = ds.StudyID = ""
    ds.PatientName, ds.PatientID = f"Demo^{'Retina' if is_retina else 'Skin'}", f"DEMO-{picture.task}"
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "OP" if is_retina else "XC", 1, picture.number
    ds.ImageType = ["ORIGINAL", "PRIMARY"]  # a derived one names its source, which has no UID
    ds.ImageComments = f"{picture.source_path.rsplit('/', 1)[-1]}, {OPEN_SETS[picture.task].licence}: see LICENCE.md"
    ds.PatientOrientation, ds.AcquisitionContextSequence = ["L", "F"], []
    ds.AnatomicRegionSequence = [_code("5665001", "Retina") if is_retina else _code("39937001", "Skin")]
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "01"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    if is_retina:
        _add_eye(ds)
    else:
        ds.Laterality = ""
    _add_jpeg(ds, picture.jpeg)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    return FileDataset("", ds, preamble=bytes(128), file_meta=meta)


def _add_eye(ds: Dataset) -> None:
    """Add what the ophthalmic modules ask for (PS3.3 C.8.17); the set tells nothing of the eye but that it is one."""
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = 1, 0x00181063, 100
    ds.ImageLaterality, ds.AcquisitionDateTime = "R", DATE + TIME
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = _uid("fundus_dr", "clock"), "NO TRIGGER"
    ds.AcquisitionTimeSynchronized = "N"
    ds.PatientEyeMovementCommanded, ds.RefractiveStateSequence = "NO", []
    ds.EmmetropicMagnification = ds.IntraOcularPressure = ds.HorizontalFieldOfView = None
    ds.PupilDilated, ds.DetectorType = None, "CCD"
    ds.IlluminationTypeCodeSequence = ds.LightPathFilterTypeStackCodeSequence = []
    ds.ImagePathFilterTypeStackCodeSequence = ds.LensesCodeSequence = []
    ds.AcquisitionDeviceTypeCodeSequence = [_code("409898007", "Fundus Camera")]


def _add_jpeg(ds: Dataset, jpeg: bytes) -> None:
    image = Image.open(io.BytesIO(jpeg))
    ds.Columns, ds.Rows = image.size
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompressionRatio = f"{ds.Rows * ds.Columns * 3 / len(jpeg):.1f}"
    ds.PixelData = encapsulate([jpeg])
    ds["PixelData"].is_undefined_length = True


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _uid(*parts: str) -> str:
    """A UID that stays the same (PS3.5 B.2): of the name of what it identifies."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join(('miad-gateway-demo', *parts))).int}"


def licence(pictures: list[Picture]) -> str:
    """Return what stands beside the files: whose pictures they are, what may be done with them, what was changed."""
    lines = [
        "# Pictures of the demo: whose they are",
        "",
        "Written by `python -m gateway.training.demo_pictures`. Real pictures of real people, published without names;",
        "patient names and numbers, dates and the eye's side in the headers are made up. Not for clinical use.",
        "",
        "| files | show | from | licence | seen in |",
        "|---|---|---|---|---|",
    ]
    for task in EACH:
        of = OPEN_SETS[task]
        link = f"[{of.licence}]({LICENCE_URL[of.licence]})"
        lines.append(f"| `{task}-*.dcm` | {of.shows} | {of.original} | {link} | {of.seen} |")
    lines += [
        "",
        "Changed by those who made the set that the gateway's networks are trained on: cut to a square, scaled to",
        "320x320, coded as JPEG. Changed here: put into a DICOM header. The demo marks copies of them.",
        "",
        "| file | picture | labelled |",
        "|---|---|---|",
    ]
    lines += [f"| `{one.name}` | {one.source_path.rsplit('/', 1)[-1]} | {one.label} |" for one in pictures]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "demo" / "pictures")
    parser.add_argument("--data", type=Path, help="folder that holds open and data; default: MIAD_DATA")
    arguments = parser.parse_args()
    pictures = chosen(shared_folder(arguments.data), load_judge(3))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for one in pictures:
        data_set(one).save_as(arguments.out / one.name, enforce_file_format=True)
    (arguments.out / "LICENCE.md").write_text(licence(pictures), "utf-8")


if __name__ == "__main__":
    main()
