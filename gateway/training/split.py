"""Which images are held out, by group; and labels for images that have none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from gateway.errors import ConfigError
from gateway.mark.resample import resize
from gateway.training.networks import INPUT_SIZE, SEED, channels_first, new_net

HELD_OUT = 0.2
"""Share of the images that is held out for the figures in the card, per class and by whole groups."""


def hold_out(groups: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return bool (N,), True where an image is held out.

    Whole groups go, in the order of the SHA-256 of their names, as long as no class gives more than ``HELD_OUT`` of its
    images (at least one; the first group may take up to a third); every class keeps at least one image to learn from.

    Parameters
    ----------
    groups
        N names.
    labels
        int (N,).
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    counts = np.bincount(labels)
    most = np.where(counts > 1, np.maximum(1, np.floor(HELD_OUT * counts)), 0)
    given = np.zeros_like(counts)
    held = np.zeros(len(labels), bool)
    for group in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
        own = np.bincount(labels[members[group]], minlength=len(counts))
        if (given + own <= (most if held.any() else np.maximum(most, counts // 3))).all():
            given += own
            held[members[group]] = True
    return held


def pseudo_labels(images: np.ndarray, clusters: int | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return int64 labels (N,) and names for images without labels: clusters of ImageNet features.

    The features are the pooled last layer of EfficientNet-Lite0 with ImageNet weights, at unit length; k-means with
    spread-out first centres (Arthur and Vassilvitskii 2007). The clusters stand for looks, not for findings: a network
    trained on them is a surrogate of how images are seen, not of what is diagnosed.

    Parameters
    ----------
    images
        uint8 (N, side, side) or (N, side, side, 3).
    clusters
        how many; None: between 2 and 8, by the number of images.

    Raises
    ------
    ConfigError
        ``too-few-images`` when there are fewer than four images a cluster; ``extra-missing``.
    """
    count = clusters or int(np.clip(round((len(images) / 20) ** 0.5), 2, 8))
    if len(images) < 4 * count:
        raise ConfigError("too-few-images", f"{len(images)} images are too few for {count} clusters")
    features = _features(channels_first(images))
    _, found = kmeans2(features, count, minit="++", seed=SEED)
    used, labels = np.unique(found, return_inverse=True)
    return labels.astype(np.int64), tuple(f"cluster {number + 1}" for number in range(len(used)))


@torch.no_grad()
def _features(images: Tensor) -> np.ndarray:
    """Return float64 (N, 1280) features of unit length."""
    net = new_net("efficientnet-lite0", images.shape[1], {"none": ("a", "b")}).eval()
    parts = []
    for part in images.split(32):
        x = resize(part.float() / 255.0, INPUT_SIZE, INPUT_SIZE) * 2.0 - 1.0
        pooled = net.upper(net.lower(x.expand(-1, 3, -1, -1))).mean((2, 3))
        parts.append(pooled / pooled.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return torch.cat(parts).double().numpy()
