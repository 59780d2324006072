"""Openly licensed sets: what shipped networks are trained on and measured with, in halves and validation parts.

Half A trains surrogates and generators, half B everything that is held out (the judge, the victims of the benchmarks).
A group (patient, lesion, picture) lies in one part only; which one is told by the SHA-256 of its name, so that every
command cuts alike. Choices (families, settings, when to stop) are made on the validation parts; the test images are for
figures alone. Formats, sources and caveats: ``README.md`` in the folder of the sets.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from gateway.errors import ConfigError
from gateway.training.labelled_sets import half_of, scaled

_WHOLE = "is the set whole? README.md in the folder of the sets says what belongs to it"
Part = Literal["train", "validation", "all"]
VALIDATION = 44 / 256
"""Share of the groups of a half that its validation part has."""


@dataclass(frozen=True)
class OpenSet:
    """One set.

    Attributes
    ----------
    folder
        below the folder of all data.
    channels
        1 or 3.
    shows
        what it shows, for cards.
    licence
        of the images, as stated.
    grade
        ``A``: the owner's own text was read; ``B``: only others' statements were: to be confirmed.
    seen
        where the licence was seen.
    original
        the attribution to keep.
    kept
        class names that are used, in the order of their labels; empty: all.
    """

    folder: str
    channels: int
    shows: str
    licence: str
    grade: str
    seen: str
    original: str
    kept: tuple[str, ...] = ()


OPEN_SETS: dict[str, OpenSet] = {
    "brain_tumor": OpenSet(
        "open/brain_tumor",
        1,
        "MR slices, T1 with contrast",
        "CC BY 4.0",
        "B",
        "GitHub HossamBalaha/Medical-Datasets-for-Artificial-Intelligence, page Brain Tumor Dataset",
        "Cheng, Jun: brain tumor dataset, figshare, doi 10.6084/m9.figshare.1512427",
    ),
    "breast_us": OpenSet(
        "open/breast_us",
        1,
        "breast ultrasound",
        "CC BY 4.0",
        "B",
        "GitHub StefanoWoerner/medimeta-dataset-scripts, dataset_info/BUSI.yaml (a mirror says other)",
        "Al-Dhabyani W. et al.: Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863",
    ),
    "chest_xray": OpenSet(
        "data/chest_xray",
        1,
        "frontal chest radiographs (NIH)",
        "unrestricted use",
        "B",
        "GitHub StefanoWoerner/medimeta-dataset-scripts, dataset_info/CXR14.yaml",
        "NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC; Wang X. et al., CVPR 2017",
        ("no_findings", "pneumonia"),
    ),
    "dermoscopy": OpenSet(
        "open/dermoscopy",
        3,
        "dermatoscopic photographs",
        "CC-0",
        "A",
        "GitHub ImageMarkup/stade, stade/core/templates/data/2018.html and 2017.html",
        "ISIC 2018 task 1 (arXiv:1902.03368), ISIC 2017 (arXiv:1710.05006)",
    ),
    "fundus_dr": OpenSet(
        "open/fundus_dr",
        3,
        "colour fundus photographs",
        "CC BY 4.0",
        "A",
        "LICENSE.txt of IDRiD, carried by the mirror",
        "Porwal P. et al.: Indian Diabetic Retinopathy Image Dataset (IDRiD), Data 2018, 3(3), 25",
    ),
}
"""Task name -> set."""


@dataclass(frozen=True)
class OpenImages:
    """Some images of a set.

    Attributes
    ----------
    images
        uint8 (N, side, side) or (N, side, side, 3).
    labels
        int64 (N,).
    classes
        names by label.
    groups
        N names; images of one group are never in two parts.
    files
        N names of the source's files.
    masks
        bool (N, side, side), the lesion; None where the set has none.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    masks: np.ndarray | None = None


def shared_folder(named: Path | None = None) -> Path:
    """Return the folder that holds ``open`` and ``data``: as named, else ``MIAD_DATA``, else ``../shared``.

    ``MIAD_DATA`` may also name the folder ``data`` in it.

    Raises
    ------
    ConfigError
        ``no-images`` when there are no open sets.
    """
    told = os.environ.get("MIAD_DATA")
    first = named or (Path(told) if told else Path(__file__).resolve().parents[3] / "shared")
    for folder in (first, first.parent):
        if (folder / "open").is_dir():
            return folder
    raise ConfigError("no-images", f"no open sets in {first}", "set MIAD_DATA to the folder that holds open and data")


def in_validation(group: str) -> bool:
    """Return whether a group is in the validation part of its half."""
    return hashlib.sha256(group.encode("utf-8")).digest()[1] < VALIDATION * 256


def train_rows(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    """Return what ``labels.csv`` says of each training image of a set, in its order."""
    return list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode("utf-8"))))


def is_in(row: Mapping[str, str], half: str, part: Part) -> bool:
    """Return whether one of ``train_rows`` is in a part of a half."""
    group = row["group"]
    return half_of(group) == half and (part == "all" or in_validation(group) == (part == "validation"))


def load_train(root: Path, name: str, half: str, part: Part, side: int) -> OpenImages:
    """Return training images of a set, scaled to ``side`` pixels.

    Parameters
    ----------
    root
        from ``shared_folder``.
    name
        a key of ``OPEN_SETS``.
    half
        ``A`` or ``B``.
    part
        of that half.
    side
        pixels.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    ConfigError
        ``no-images`` when none is in that part.
    """
    folder = root / OPEN_SETS[name].folder
    with zipfile.ZipFile(folder / "train.zip") as archive:
        rows = train_rows(archive)
        names = tuple(one for _, one in sorted({(int(row["label"]), row["class"]) for row in rows}))
        classes = OPEN_SETS[name].kept or names
        wanted = [index for index, row in enumerate(rows) if row["class"] in classes and is_in(row, half, part)]
        if not wanted:
            raise ConfigError("no-images", f"{name} has no image in half {half}, part {part}", _WHOLE)
        images = [scaled(Image.open(io.BytesIO(archive.read(rows[index]["file"]))), side) for index in wanted]
    chosen = [rows[index] for index in wanted]
    labels = np.array([classes.index(row["class"]) for row in chosen], np.int64)
    groups, files = (tuple(row[key] for row in chosen) for key in ("group", "source_path"))
    return OpenImages(np.stack(images), labels, classes, groups, files, _train_masks(folder, wanted, side))


def load_test(root: Path, name: str, side: int) -> OpenImages:
    """Return a set's test images, scaled to ``side`` pixels; for figures alone.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    ConfigError
        ``no-images`` when there is none of a class: a figure would be of the others.
    """
    with np.load(root / OPEN_SETS[name].folder / "test.npz") as archive:
        names = tuple(str(one) for one in archive["classes"])
        classes = OPEN_SETS[name].kept or names
        known = {names[label] for label in archive["labels"]}
        if without := [one for one in classes if one not in known]:
            raise ConfigError("no-images", f"{name} has no test image of {', '.join(without)}", _WHOLE)
        wanted = np.flatnonzero(np.isin(archive["labels"], [names.index(one) for one in classes]))
        labels = np.array([classes.index(names[label]) for label in archive["labels"][wanted]], np.int64)
        files = tuple(str(one) for one in archive["files"][wanted])
        groups = tuple(str(one) for one in archive["groups"][wanted]) if "groups" in archive else files
        images = np.stack([scaled(Image.fromarray(one), side) for one in archive["images"][wanted]])
        masks = _scaled_masks(archive["masks"][wanted], side) if "masks" in archive else None
    return OpenImages(images, labels, classes, groups, files, masks)


def also_in_brain_mri(root: Path) -> frozenset[str]:
    """Return the files of the older set brain_mri whose slices are also in brain_tumor.

    They are left out of brain_mri wherever one of the two sets trains and the other measures.

    Raises
    ------
    FileNotFoundError
        the list is not there.
    """
    with (root / OPEN_SETS["brain_tumor"].folder / "also_in_brain_mri.csv").open(encoding="utf-8", newline="") as file:
        return frozenset(row["brain_mri_file"] for row in csv.DictReader(file))


def _train_masks(folder: Path, wanted: list[int], side: int) -> np.ndarray | None:
    path = folder / "train_masks.npz"
    if not path.is_file():
        return None
    with np.load(path) as archive:
        bits = np.unpackbits(archive["masks_packed"][wanted], axis=1)
    whole = round(bits.shape[1] ** 0.5)
    return _scaled_masks(bits[:, : whole * whole].reshape(-1, whole, whole).astype(bool), side)


def _scaled_masks(masks: np.ndarray, side: int) -> np.ndarray:
    """Return bool masks (N, H, W) at ``side`` pixels, nearest."""
    if masks.shape[1] == side:
        return masks
    nearest = Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), nearest)) for one in masks]).astype(bool)
