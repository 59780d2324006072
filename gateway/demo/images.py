"""The images of the demo, all real: a dozen of two open sets, some of pydicom's, and two series of the data folder.

The dozen lies in ``pictures`` beside this file (``gateway.training.demo_pictures`` says which, ``LICENCE.md`` whose);
the series are there where there is a data folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pydicom

# Real images of at least 64x64 that the policy marks, each with a SOP Instance UID of its own. They lie in the
# installed package; nothing is ever downloaded.
BUNDLED = (
    "examples_overlay.dcm",  # MR of the abdomen, 300x484, with an overlay
    "CT_small.dcm",  # CT of the spine, 128x128, uncompressed
    "examples_rgb_color.dcm",  # colour Doppler ultrasound, 240x320, RGB
    "J2K_pixelrep_mismatch.dcm",  # CT of the skull base, 512x512, JPEG 2000 whose header disagrees on the sign
    "MR_small.dcm",  # MR, 64x64
    "693_J2KI.dcm",  # CT of the head, 512x512, JPEG 2000
    "examples_jpeg2k.dcm",  # the same ultrasound, 480x640, JPEG 2000
)
PICTURES = Path(__file__).parent / "pictures"
SERIES = ("dicom/series_ct_head_ge", "dicom/series_mr_brain")


@dataclass(frozen=True)
class DemoImage:
    """One file of the demo and what identifies it."""

    name: str
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str


def open_pictures() -> list[DemoImage]:
    """The dozen pictures of skin and retinae: of kinds that the held-out classifier learnt, though not these."""
    return [read_image(path) for path in sorted(PICTURES.glob("*.dcm"))]


def bundled_images() -> list[DemoImage]:
    """The images in the installed pydicom package.

    Raises
    ------
    FileNotFoundError
        This installation of pydicom came without its test files.
    """
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return [read_image(folder / name) for name in BUNDLED]


def series_images(data: Path | None = None) -> list[DemoImage]:
    """The two series of the data folder; none where there is no data folder.

    Parameters
    ----------
    data
        The folder; None: `data_folder`.
    """
    folder = data or data_folder()
    paths = [path for series in SERIES for path in sorted((folder / series).glob("*.dcm"))]
    return [read_image(path, f"{path.parent.name}/{path.name}") for path in paths]


def data_folder() -> Path:
    """What the environment variable MIAD_DATA names, else ``../shared/data`` beside the repository; may be missing."""
    return Path(os.environ.get("MIAD_DATA") or Path(__file__).parents[3] / "shared" / "data")


def read_image(path: Path, name: str = "") -> DemoImage:
    """What identifies the instance in a DICOM file (PS3.10); it is called `name`, else as the file."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return DemoImage(
        name=name or path.name,
        path=path,
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        study_uid=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
    )
