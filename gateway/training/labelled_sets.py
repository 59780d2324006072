"""The labelled sets that the shipped networks are trained and measured on, and their split in two halves.

Half A trains the surrogate packs, half B everything that is held out (the packaged judge, the victims of the
benchmarks). A group (patient, publication, augmentation family) lies in one half only: its half is one bit of the
SHA-256 of its name. Format of the sets: ``README.md`` beside them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

GRAY_SETS = {"brain_mri": "brain_mri", "chest_xray": "chest_xray", "chest_ct": "chest_ct"}
RGB_SETS = {"fundus": "fundus", "skin": "skin"}
"""Task name -> folder of the set."""


@dataclass(frozen=True)
class LabelledSet:
    """Images uint8 (N, side, side) or (N, side, side, 3), labels int64 (N,), class names by label."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def data_folder() -> Path | None:
    """Return the folder of the sets: ``MIAD_DATA``, else ``../shared/data`` beside the repository; None if neither."""
    named = os.environ.get("MIAD_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return folder if folder.is_dir() else None


def half_of(group: str) -> str:
    """Return "A" or "B": the half of the training set that the group belongs to."""
    return "AB"[hashlib.sha256(group.encode("utf-8")).digest()[0] & 1]


def load_train(folder: Path, half: str, side: int, without: Set[str] = frozenset()) -> LabelledSet:
    """Return one half ("A" or "B") of a set's training images, scaled to ``side`` pixels.

    Parameters
    ----------
    folder
        of the set.
    half
        ``A`` or ``B``.
    side
        pixels.
    without
        source paths of images to leave out.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    """
    with zipfile.ZipFile(folder / "train.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode("utf-8"))))
        classes = tuple(name for _, name in sorted({(int(row["label"]), row["class"]) for row in rows}))
        kept = [row for row in rows if half_of(row["group"]) == half and row["source_path"] not in without]
        images = [scaled(Image.open(io.BytesIO(archive.read(row["file"]))), side) for row in kept]
    return LabelledSet(np.stack(images), np.array([int(row["label"]) for row in kept]), classes)


def load_test(folder: Path, side: int = 256) -> LabelledSet:
    """Return a set's test images, scaled to ``side`` pixels (256: as they are).

    Raises
    ------
    FileNotFoundError
        the set is not there.
    """
    with np.load(folder / "test.npz") as archive:
        images, labels = archive["images"], archive["labels"]
        classes = tuple(str(name) for name in archive["classes"])
    return LabelledSet(np.stack([scaled(Image.fromarray(image), side) for image in images]), labels, classes)


def scaled(image: Image.Image, side: int) -> np.ndarray:
    """Return an image at ``side`` x ``side`` pixels, itself where nothing changes; bilinear, without aliasing."""
    return np.asarray(image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR))
