"""A folder of images as one array: PNG, JPEG, NumPy files and DICOM, each as a person sees it.

Labels come from a CSV file (``file,label[,group]``), from the ``labels`` of NumPy files, or from one folder per class;
without any, the images are unlabelled. Groups keep together what must not be split between training and test: the
patient of a DICOM file, the folder below the class, the NumPy file, or what the CSV file says.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import ConfigError, GatewayError, MarkError
from gateway.mark import MarkRequest, ModalityProfile, load_profiles
from gateway.mark.evaluation.judge import display_image
from gateway.mark.profiles import choose_profile
from gateway.mark.resample import resize
from gateway.mark.surrogates.nets import MIN_INPUT
from gateway.mark.visibility.display import padding_of
from gateway.mark.visibility.ground import is_blank
from gateway.protect.marking import Opened, requests_of
from gateway.protect.policy import traits_of

LABELS = "labels.csv"
PICTURE_SIDE = 256
"""Side in pixels of the images in memory: a little larger than what fine-tuned networks see."""
MAX_FRAMES = 8
"""Frames taken of a multi-frame instance, evenly spaced: neighbours teach nothing new."""
_KEY = bytes(32)  # a request wants one; nothing is marked here
_PICTURES = (".png", ".jpg", ".jpeg")
_IGNORED = (".csv", ".json", ".md", ".toml", ".txt", ".xml")


@dataclass(frozen=True)
class Pictures:
    """Images of one channel count in memory.

    Attributes
    ----------
    images
        uint8 (N, side, side) or (N, side, side, 3), display space, side = ``PICTURE_SIDE``.
    labels
        int64 (N,), index into ``classes``; None when unlabelled.
    classes
        class names in order; empty when unlabelled.
    groups
        N names; only ever compared and hashed.
    skipped
        why a file was left out (code) -> how many files.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Picture:
    """One image, display values float32 in 0..1, with what is known of it."""

    display: np.ndarray
    label: str | None
    group: str


@dataclass(frozen=True)
class _Place:
    """What is known of a file from outside: label, group of the CSV file, folder below its class, name."""

    label: str | None
    group: str
    inner: str
    name: str


def read_pictures(
    folder: Path,
    channels: int,
    labels: Path | None = None,
    unlabelled: bool = False,
    limit: int = 6000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pictures:
    """Read all images below ``folder``.

    Parameters
    ----------
    folder
        where the images lie.
    channels
        1 or 3; PNG and JPEG are converted, other images of another kind are left out.
    labels
        CSV file, its ``file`` column relative to ``folder``; None: ``labels.csv`` in the folder, if any.
    unlabelled
        take no notice of labels, whatever there is.
    limit
        so many images at most: files are chosen by a hash of their names, images of many in one file evenly.
    progress
        called with (files read, files).

    Raises
    ------
    ConfigError
        ``bad-labels`` for a CSV file that cannot be used, ``no-images`` when nothing usable is left.
    """
    table = None
    if not unlabelled:
        found = labels or (folder / LABELS if (folder / LABELS).is_file() else None)
        table = _read_labels(found, folder) if found else None
    files = _chosen(_find(folder, table), folder, limit)
    by_folder = table is None and not unlabelled and _has_class_folders(files, folder)
    profiles = load_profiles()
    kept: list[np.ndarray] = []
    names: list[str | None] = []
    groups: list[str] = []
    skipped: Counter[str] = Counter()
    for number, path in enumerate(files):
        try:
            for picture in _read(path, _place_of(path, folder, table, by_folder), channels, profiles):
                kept.append(_scaled(picture.display, channels))
                names.append(None if unlabelled else picture.label)
                groups.append(picture.group)
        except GatewayError as error:
            skipped[error.code] += 1
        progress(number + 1, len(files))
    use = np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(int)
    return _assembled(folder, [kept[i] for i in use], [names[i] for i in use], [groups[i] for i in use], skipped)


def _assembled(
    folder: Path, kept: list[np.ndarray], names: list[str | None], groups: list[str], skipped: Counter[str]
) -> Pictures:
    """Put images together; where some have a label, those without one are left out."""
    if any(name is not None for name in names):
        use = [index for index, name in enumerate(names) if name is not None]
        if len(use) < len(names):
            skipped["no-label"] += len(names) - len(use)
        kept, groups = [kept[i] for i in use], [groups[i] for i in use]
        classes = tuple(sorted({name for name in names if name is not None}))
        known = np.array([classes.index(names[i] or "") for i in use])
    else:
        classes, known = (), None
    if not kept:
        reasons = ", ".join(f"{count} {code}" for code, count in skipped.most_common()) or "it holds no images"
        hint = "PNG, JPEG, .npz with key images, and DICOM files are read; --channels says which kind is wanted"
        raise ConfigError("no-images", f"no image of {folder} can be used: {reasons}", hint)
    return Pictures(np.stack(kept), known, classes, tuple(groups), dict(skipped))


def _read_labels(path: Path, folder: Path) -> dict[Path, tuple[str, str]]:
    """Return file -> (label, group or "")."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError("bad-labels", f"cannot read {path}: {type(error).__name__}") from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise ConfigError("bad-labels", f"{path} has no columns file and label", "its first line is file,label[,group]")
    table = {folder / row["file"]: (str(row["label"]), str(row.get("group") or "")) for row in rows}
    if missing := sum(not file.is_file() for file in table):
        raise ConfigError("bad-labels", f"{missing} of {len(table)} files in {path} are not below {folder}")
    return table


def _find(folder: Path, table: Mapping[Path, object] | None) -> list[Path]:
    if table is not None:
        return sorted(table)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in _IGNORED
    )


def _chosen(files: list[Path], folder: Path, limit: int) -> list[Path]:
    """At most ``limit`` files, the same on every run and spread over all folders."""
    if len(files) <= limit:
        return files
    return sorted(sorted(files, key=lambda path: _hash(path, folder))[:limit])


def _hash(path: Path, folder: Path) -> bytes:
    return hashlib.sha256(str(path.relative_to(folder)).encode()).digest()  # the same wherever the folder lies


def _has_class_folders(files: list[Path], folder: Path) -> bool:
    """Two folders or more, and no image beside them."""
    parts = [path.relative_to(folder).parts for path in files]
    return all(len(one) > 1 for one in parts) and len({one[0] for one in parts}) > 1


def _place_of(path: Path, folder: Path, table: Mapping[Path, tuple[str, str]] | None, by_folder: bool) -> _Place:
    parts = path.relative_to(folder).parts
    inner, name = "/".join(parts[1:-1] if by_folder else parts[:-1]), "/".join(parts)
    if table is not None:
        label, group = table[path]
        return _Place(label, group, inner, name)
    return _Place(parts[0] if by_folder else None, "", inner, name)


def _read(path: Path, place: _Place, channels: int, profiles: Mapping[str, ModalityProfile]) -> Iterator[_Picture]:
    """Yield the images of one file; GatewayError for what cannot be used."""
    group = place.group or place.inner or place.name
    try:
        if path.suffix.lower() in _PICTURES:
            yield _Picture(_picture(path, channels), place.label, group)
        elif path.suffix.lower() == ".npz":
            yield from _arrays(path, place.label, place.group or place.name, channels)
        else:
            yield from _instance(path, place, channels, profiles)
    except (OSError, UnidentifiedImageError, BadZipFile, ValueError, KeyError, EOFError) as error:
        raise MarkError("cannot-read", type(error).__name__) from None


def _picture(path: Path, channels: int) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode.startswith("I") and channels == 1:  # 16 bits a sample
            return _shown(np.clip(np.asarray(image), 0, 65535).astype(np.uint16), channels)
        return _shown(np.asarray(image.convert("L" if channels == 1 else "RGB")), channels)


def _arrays(path: Path, label: str | None, group: str, channels: int) -> Iterator[_Picture]:
    with np.load(path, allow_pickle=False) as archive:
        images = archive["images"]
        labels = [str(one) for one in archive["labels"]] if "labels" in archive else [label] * len(images)
        groups = [str(one) for one in archive["groups"]] if "groups" in archive else [group] * len(images)
    if ("labels" and len(labels) != len(images)) or len(groups) != len(images):
        raise MarkError("cannot-read", "labels or groups of another length than images")
    for image, own, name in zip(images, labels, groups, strict=True):
        yield _Picture(_shown(image, channels), own, name)


def _instance(path: Path, place: _Place, channels: int, profiles: Mapping[str, ModalityProfile]) -> Iterator[_Picture]:
    """Yield frames of a DICOM file in the display window that the pipeline would mark them in."""
    with path.open("rb") as file:
        meta, offset = split_part10(file)
        file.seek(offset)
        data = file.read()
    header = read_header(io.BytesIO(data), meta.transfer_syntax_uid)
    profile = choose_profile(traits_of(header), profiles)
    if profile is None:
        raise MarkError("no-profile", "no modality profile takes this image")
    opened = Opened(data, header, decode_pixels(data, meta.transfer_syntax_uid))
    requests = requests_of(opened, profile, _KEY)
    patient = str(header.dataset.get("PatientID") or "") or header.study_uid or place.name
    for index in np.unique(np.linspace(0, len(requests) - 1, min(MAX_FRAMES, len(requests))).round().astype(int)):
        request = requests[int(index)]
        _require(request, channels)
        yield _Picture(display_image(request), place.label, place.group or patient)


def _shown(image: np.ndarray, channels: int) -> np.ndarray:
    """Return display values of an image without a window of its own, as ``miad-gateway mark`` would show it."""
    request = MarkRequest(np.ascontiguousarray(image), _KEY)
    _require(request, channels)
    return display_image(request)


def _require(request: MarkRequest, channels: int) -> None:
    image = request.image
    if (1 if image.ndim == 2 else image.shape[-1]) != channels:
        raise MarkError("wrong-channels", f"not {channels} samples per pixel")
    if min(image.shape[:2]) < MIN_INPUT:
        raise MarkError("image-too-small", f"less than {MIN_INPUT} pixels on a side")
    if is_blank(request, padding_of(request)):
        raise MarkError("image-empty", "all pixels have one value")


def _scaled(display: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 of side ``PICTURE_SIDE`` from display values of any size."""
    planes = display[None] if channels == 1 else display.transpose(2, 0, 1)
    small = resize(torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None], PICTURE_SIDE, PICTURE_SIDE)[0]
    values = (small.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
    return values[0] if channels == 1 else values.transpose(1, 2, 0)
