"""Where the lettering goes in an image of no series: of several keyed places the one that misleads surrogates most.

The texture comes later; here each candidate is judged by its letters alone, forward passes only. Slices of a series are
not searched: their placement follows the slice position, so that neighbours agree without waiting for one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.resample import resize
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.objective import margins
from gateway.mark.surrogates.packs import Surrogate

MARGIN_WEIGHT = 0.02
"""A logit of margin counts this much beside a probability of 1, so that candidates differ where all are believed."""
_BATCH = 24


def remaining_probability(
    images: Tensor, clean: Tensor, surrogates: Sequence[Surrogate], tasks: Sequence[str]
) -> np.ndarray:
    """Return (K,) float64: how likely the surrogates still are to be right; lower misleads more.

    Parameters
    ----------
    images
        (K, C, h, w) float32 in 0..1, candidates.
    clean
        (1, C, h, w) float32 in 0..1, the image itself, of which they form their consensus.
    surrogates
        at least one with a head for one of ``tasks``.
    tasks
        heads to ask; empty: all.

    The mean over surrogates (and tasks) of the probability of what all together hold the image to be; no label is used.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    total = np.zeros(len(images))
    with torch.no_grad():
        for surrogate, held in zip(surrogates, consensus(clean, surrogates, tasks), strict=True):
            side = surrogate.input_size
            for start in range(0, len(images), _BATCH):
                part = images[start : start + _BATCH]
                probabilities = {task: share.expand(len(part), -1) for task, share in held.items()}
                margin = margins(surrogate.net(resize(part, side, side)), probabilities)
                if not bool(torch.isfinite(margin).all()):
                    raise MarkError("surrogate-nan", f"surrogate {surrogate.name} gives values that are not finite")
                score = torch.sigmoid(margin) + MARGIN_WEIGHT * margin
                total[start : start + len(part)] += score.double().cpu().numpy()
    return total / len(surrogates)
