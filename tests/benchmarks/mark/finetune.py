"""A victim that learns from labelled marked images (A6 of mark, evaluation rules): what retraining gets back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gateway.mark.surrogates.nets import fold_batch_norms
from tests.benchmarks.mark.data import Sample
from tests.benchmarks.mark.victims import Victim, answers, fit

EPOCHS = 6
RATE_SHARE = 0.25
"""Of the victim's own peak learning rate."""


def retrained(
    victim: Victim, marked: Sample, images: list[np.ndarray], device: torch.device, least_steps: int
) -> list[np.ndarray]:
    """Return the (K,) int64 answers for each stack of display images after training on labelled marked images.

    Parameters
    ----------
    victim
        where training starts; stays as it is.
    marked
        uint8 images with true labels.
    images
        display images float32 (K, H, W[, 3]) in 0..1.
    device
        where.
    least_steps
        so that few images are seen often enough.
    """
    recipe = victim.recipe
    batches = -(-len(marked) // 32)
    epochs = max(EPOCHS, -(-least_steps // batches))
    net = victim.trainable()
    shorter = replace(recipe, epochs=epochs, rate=RATE_SHARE * recipe.rate, cap=len(marked))
    fold_batch_norms(fit(net, victim.task, marked, shorter, device))
    return [answers(net, victim.task, stack, recipe.side, device) for stack in images]
