"""Accuracy with a 95 % interval: percentile bootstrap over images (Efron 1979).

Images of one set are drawn together for all its victims, since these see the same images and err on the same ones.
The sets carry no patient number, so an image is the unit; intervals by patient would be wider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """An accuracy in 0..1 with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(correct: Mapping[str, Sequence[np.ndarray]], draws: int = DRAWS, seed: int = 2026) -> Interval:
    """Return the mean over sets of the mean over victims, with its interval.

    Parameters
    ----------
    correct
        set name -> per victim an array (N,) of 0 and 1, all of one N within a set; NaN: an image that does not
        count for this victim.
    draws
        of the bootstrap.
    seed
        of the draws.

    Raises
    ------
    ValueError
        nothing to average, or victims of one set that saw different numbers of images.
    """
    if not correct or not all(correct.values()):
        raise ValueError("no answers to average")
    random = np.random.default_rng(seed)
    means, drawn = [], []
    for name, answers in correct.items():
        if len({len(one) for one in answers}) != 1:
            raise ValueError(f"{name}: victims saw different numbers of images")
        right = np.stack(answers).astype(np.float64)
        counts = ~np.isnan(right)
        index = random.integers(0, right.shape[1], (draws, right.shape[1]))
        means.append(_accuracy(np.nansum(right, axis=1), counts.sum(axis=1)))
        drawn.append(_accuracy(np.nan_to_num(right)[:, index].sum(axis=2), counts[:, index].sum(axis=2)))
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return Interval(float(np.mean(means)), float(low), float(high))


def _accuracy(right: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the mean over victims (the first axis) of right / counted; a victim without an image counts as 0."""
    return (right / np.maximum(counted, 1)).mean(axis=0)
