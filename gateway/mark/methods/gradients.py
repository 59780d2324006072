"""What optimisers of textures share: whom a step asks, and how the answers are weighed."""

from __future__ import annotations

import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.surrogates.consensus import Probabilities
from gateway.mark.surrogates.packs import Surrogate

MOMENTUM = 0.9
CALM_MARGIN = -2.0
"""A surrogate whose margin is below this (log odds) is misled enough: its weight goes towards LEAST_WEIGHT."""
LEAST_WEIGHT = 0.15
IN_TURN = 2
"""Surrogates that a step asks, in turn: momentum remembers the others, and a step costs that much less."""
ENOUGH = -4.0
"""Margin (log odds) of every surrogate, each time that it was last asked, at which an image is done."""


def in_turn(pairs: list[tuple[Surrogate, Probabilities]]) -> list[list[tuple[Surrogate, Probabilities]]]:
    """Return the surrogates by turns of ``IN_TURN``, the last one filled up with the first of them."""
    count = -(-len(pairs) // IN_TURN)
    asked = [pairs[number % len(pairs)] for number in range(count * IN_TURN)] if count > 1 else pairs
    return [asked[first : first + IN_TURN] for first in range(0, len(asked), IN_TURN)]


def balanced_gradient(gradient: Tensor, margin: Tensor, name: str) -> Tensor:
    """Return a surrogate's gradient with mean magnitude 1 per image, times its weight: 1.15 down to 0.15.

    Parameters
    ----------
    gradient
        (B, C, h, w) of its loss at the texture.
    margin
        (B,) logits, how firmly it still believes its first answer.
    name
        for the error.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a value is not finite.
    """
    size = gradient.abs().mean((1, 2, 3))
    if not bool(torch.isfinite(size).all() and torch.isfinite(margin).all()):
        raise MarkError("surrogate-nan", f"surrogate {name} gives values that are not finite")
    weight = LEAST_WEIGHT + torch.sigmoid(margin - CALM_MARGIN)
    return gradient * (weight / size.clamp(min=1e-12))[:, None, None, None]
