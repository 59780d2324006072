"""Averaging (A4 of mark, evaluation rules): what many marked images of one site have in common is taken off the next.

Four adversaries; the report takes the best. ``pairs``: knows the originals of its N images and averages the true
differences (Yang et al. 2024, grey box). ``blind``: has marked images only and averages what a Gaussian takes away.
``subspace``: knows the pairs and takes off what the first principal components of the differences explain. ``line``:
knows the pairs and fits marked = offset + slope * original at every pixel, which undoes a fixed blended logo.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

GAINS = (0.5, 1.0, 2.0, 4.0)
"""How much of the estimate is taken off: an average over marks that differ is too small."""
COMPONENTS = (4, 16, 64)
LEAST_SLOPE = 0.25
"""A slope of the fitted line below it says nothing about the original."""
SIGMA = 3.0  # pixels; what is smoother counts as anatomy


def settings(count: int) -> list[str]:
    """Return the settings that ``removed`` yields for ``count`` marked images."""
    names = [f"{name}-{gain:g}" for name in ("pairs", "blind") for gain in GAINS]
    return names + [f"subspace-{components}" for components in COMPONENTS if components < count] + ["line"]


def estimates(marked: np.ndarray, clean: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (setting, (H, W[, 3]) float32 common mark) as both averaging adversaries see it.

    Parameters
    ----------
    marked
        display images float32 (N, H, W[, 3]).
    clean
        their originals.
    """
    for name, mean in (("pairs", (marked - clean).mean(axis=0)), ("blind", _fine(marked).mean(axis=0))):
        for gain in GAINS:
            yield f"{name}-{gain:g}", np.float32(gain) * mean


def removed(images: np.ndarray, marked: np.ndarray, clean: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (setting, images float32 (K, H, W[, 3]) in 0..1 after removal) for every setting.

    Parameters
    ----------
    images
        display images float32 (K, H, W[, 3]) to be freed of a mark.
    marked
        the adversary's marked display images (N, H, W[, 3]).
    clean
        the originals of ``marked``.
    """
    for setting, common in estimates(marked, clean):
        yield setting, np.clip(images - common, 0.0, 1.0)
    flat = (marked - clean).reshape(len(marked), -1)
    mean = flat.mean(axis=0)
    centred = flat - mean
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    order = np.argsort(values)[::-1]
    for count in COMPONENTS:
        if count >= len(marked):
            continue
        chosen = order[:count]
        scale = np.sqrt(np.maximum(values[chosen], 1e-12))
        basis = (centred.T @ vectors[:, chosen].astype(np.float32)) / scale.astype(np.float32)
        seen = _fine(images).reshape(len(images), -1) - mean
        off = mean + (seen @ basis) @ basis.T
        yield f"subspace-{count}", np.clip(images - off.reshape(images.shape), 0.0, 1.0).astype(np.float32)
    yield "line", _off_the_line(images, marked, clean)


def _off_the_line(images: np.ndarray, marked: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return images with each pixel's fitted line taken back; a slope of 1 where the originals do not differ."""
    spread = clean - clean.mean(axis=0)
    variance = (spread**2).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (spread * marked).mean(axis=0) / variance
    slope = np.where(variance > 1e-6, np.clip(slope, LEAST_SLOPE, 1.0), 1.0)
    offset = marked.mean(axis=0) - slope * clean.mean(axis=0)
    return np.clip((images - offset) / slope, 0.0, 1.0).astype(np.float32)


def _fine(images: np.ndarray) -> np.ndarray:
    """Return what a Gaussian of ``SIGMA`` takes away from images (N, H, W[, 3])."""
    return images - ndimage.gaussian_filter(images, SIGMA, axes=(1, 2))
