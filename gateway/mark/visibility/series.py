"""Figures over several images: what scrolling through a series shows, and how much two keys' marks agree."""

from __future__ import annotations

import numpy as np


def flicker(original: np.ndarray, marked: np.ndarray) -> float:
    """Return the flicker of a mark along the slices of a series: its own change over that of the anatomy (0 = none).

    RMS of (delta[z+1] - delta[z]) divided by the RMS of (original[z+1] - original[z]), delta = marked - original
    (mark, budgets).

    Parameters
    ----------
    original
        (Z, H, W) or (Z, H, W, 3), slices in the order of their positions, Z >= 2; stored or display values.
    marked
        the same slices, marked, in the same unit.

    Returns
    -------
    A ratio without unit; infinite where the anatomy does not change but the mark does.

    Raises
    ------
    ValueError
        stacks of different shapes or of fewer than two slices.
    """
    before, after = _stacks(original, marked)
    own = np.sqrt(np.mean(np.diff(after - before, axis=0) ** 2))
    native = np.sqrt(np.mean(np.diff(before, axis=0) ** 2))
    if native == 0.0:
        return 0.0 if own == 0.0 else float("inf")
    return float(own / native)


def cross_key_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (N,) float64 absolute correlations, 0..1, between the marks that two keys gave the same images.

    Parameters
    ----------
    first
        (N, H, W) or (N, H, W, 3) residuals (marked - original) under one key, any unit.
    second
        residuals of the same images under another key.

    Over the pixels that at least one of the two marks changes: the untouched rest, equal in both, would count as
    agreement. An image with fewer than two such values, or with a mark that is the same number in all of them, gives 0.

    Raises
    ------
    ValueError
        stacks of different shapes.
    """
    one, other = _stacks(first, second, least=1)
    return np.array([_correlation(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True)])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    touched = (a != 0) | (b != 0)
    a, b = a[touched], b[touched]
    if a.size < 2 or a.std() == 0.0 or b.std() == 0.0:
        return 0.0
    return float(abs(np.corrcoef(a, b)[0, 1]))


def _stacks(first: np.ndarray, second: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    if first.shape != second.shape or first.ndim not in (3, 4) or len(first) < least:
        raise ValueError(f"two stacks (Z,H,W[,3]) of one shape are needed, not {first.shape} and {second.shape}")
    return first.astype(np.float64), second.astype(np.float64)
