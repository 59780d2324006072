"""The images that are measured: a class-balanced sample of a set's test images, and pools of training images.

Everything is uint8, (N, 256, 256) or (N, 256, 256, 3). Victims are trained on half B, as are the pools for removers and
fine-tuning; the shipped surrogate packs saw half A of the open sets only (``gateway.training.open_sets``). The older
sets (``gateway.training.labelled_sets``) are data that no shipped surrogate saw: of brain_mri the slices that are also
in brain_tumor are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from gateway.errors import ConfigError
from gateway.mark import MarkRequest, ModalityProfile, SurrogatePack
from gateway.mark.arrays import image_key
from gateway.training import labelled_sets, open_sets
from gateway.training.open_sets import OPEN_SETS
from plugins.modalities import brain_mr, cr_dx, ct, dermoscopy, fundus, us
from plugins.surrogates import gray, rgb

PROFILES: dict[str, ModalityProfile] = {
    "brain_tumor": brain_mr.PROFILE,
    "breast_us": us.PROFILE,
    "chest_xray": cr_dx.PROFILE,
    "dermoscopy": dermoscopy.PROFILE,
    "fundus_dr": fundus.PROFILE,
    "brain_mri": brain_mr.PROFILE,
    "fundus": fundus.PROFILE,
    "skin": dermoscopy.PROFILE,
    "chest_ct": ct.PROFILE,
}
"""The open sets, then the older ones."""
SITE_KEY = bytes(range(32))
"""Of the site whose marks are attacked."""
OTHER_KEY = bytes(reversed(range(32)))
"""Of the adversary's own gateway."""
SIDE = 256


@dataclass(frozen=True)
class Sample:
    """Images of one set.

    Attributes
    ----------
    name
        of the set.
    images
        uint8 (N, 256, 256[, 3]).
    labels
        int64 (N,).
    classes
        class names by label.
    rois
        bool (N, 256, 256), true lesion masks; None: the mark finds its region of interest itself.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    rois: np.ndarray | None = None

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.images.ndim == 3 else 3

    def __len__(self) -> int:
        return len(self.labels)


def pack_of(channels: int) -> SurrogatePack:
    """Return the shipped surrogate pack for gray (1) or RGB (3) images."""
    return gray.PACK if channels == 1 else rgb.PACK


def draw_sample(folder: Path, name: str, count: int | None) -> Sample:
    """Return ``count`` test images of a set, as many of each class as there are (fixed seed); None: all of them.

    Parameters
    ----------
    folder
        of all sets.
    name
        of the set.
    count
        images.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    """
    test = test_images(folder, name)
    index = balanced(test.labels, count, 2026)
    rois = None if test.rois is None else test.rois[index]
    return Sample(name, test.images[index], test.labels[index], test.classes, rois)


def test_images(folder: Path, name: str) -> Sample:
    """Return all test images of a set (arguments and errors as for ``draw_sample``)."""
    root = _open_root(folder, name)
    if root is not None:
        found = open_sets.load_test(root, name, SIDE)
        return Sample(name, found.images, found.labels, found.classes, found.masks)
    older = labelled_sets.load_test(folder / name)
    with np.load(folder / name / "test.npz") as archive:
        masks = archive["masks"].astype(bool) if name == "skin" and "masks" in archive else None
        kept = ~np.isin(archive["files"], sorted(_also_open(folder, name)))
    rois = None if masks is None else masks[kept]
    return Sample(name, older.images[kept], older.labels[kept], older.classes, rois)


@lru_cache(maxsize=1)  # victims of one set, and then its pools, are drawn from the same one after the other
def train_images(folder: Path, name: str, side: int) -> Sample:
    """Return the training images of half B of a set, scaled to ``side`` pixels, without lesion masks.

    Raises
    ------
    FileNotFoundError
        the set is not there.
    """
    root = _open_root(folder, name)
    if root is not None:
        found = open_sets.load_train(root, name, "B", "train", side)
        return Sample(name, found.images, found.labels, found.classes)
    older = labelled_sets.load_train(folder / name, "B", side, _also_open(folder, name))
    return Sample(name, older.images, older.labels, older.classes)


def _open_root(folder: Path, name: str) -> Path | None:
    """Return the folder that holds the open sets, for one of them; None for an older set, or without them."""
    if name not in OPEN_SETS:
        return None
    try:
        return open_sets.shared_folder(folder)
    except ConfigError:
        return None


def _also_open(folder: Path, name: str) -> frozenset[str]:
    """Return the files of an older set that are left out because an open set has them too."""
    root = _open_root(folder, "brain_tumor") if name == "brain_mri" else None
    return frozenset() if root is None else open_sets.also_in_brain_mri(root)


def draw_pool(folder: Path, name: str, count: int, seed: int) -> Sample:
    """Return ``count`` training images of half B, classes in turn; where there are fewer images, they are repeated.

    A smaller pool of one seed is the beginning of a larger one.
    """
    train = train_images(folder, name, SIDE)
    index = np.resize(interleaved(train.labels, count, seed), count)
    return Sample(name, train.images[index], train.labels[index], train.classes)


def balanced(labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Return sorted indexes of ``count`` images, as many of each class as there are; None: all."""
    return np.arange(len(labels)) if count is None else np.sort(interleaved(labels, count, seed))


def interleaved(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return at most ``count`` indexes, drawn in turn from every class that has an image left."""
    random = np.random.default_rng(seed)
    queues = [random.permutation(np.flatnonzero(labels == label)).tolist() for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return np.array(chosen[:count])


def requests_of(sample: Sample, site_key: bytes = SITE_KEY, first: int = 0) -> list[MarkRequest]:
    """Return one request per image, each under the key that a site with ``site_key`` derives for it.

    Parameters
    ----------
    sample
        the images; none of them belongs to a series of slices.
    site_key
        32 bytes.
    first
        number of the first image, so that a pool does not repeat the sample's keys.
    """
    return [
        MarkRequest(
            image,
            image_key(site_key, first + index),
            roi=None if sample.rois is None else sample.rois[index],
        )
        for index, image in enumerate(sample.images)
    ]


def first_of(sample: Sample, count: int) -> Sample:
    """Return a class-balanced part of a sample, its first images of each class."""
    index = balanced(sample.labels, count, 0)
    rois = None if sample.rois is None else sample.rois[index]
    return Sample(sample.name, sample.images[index], sample.labels[index], sample.classes, rois)


def shown(images: np.ndarray) -> np.ndarray:
    """Return uint8 images as display images float32 in 0..1 (these sets have the window 0..255)."""
    return images.astype(np.float32) / np.float32(255.0)
