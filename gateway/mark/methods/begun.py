"""A texture that begins from a neighbouring slice's, and takes a few steps instead of many.

What misleads on one slice misleads on its neighbours, a little less with every slice between. A few steps make up for
that: they ask for the margin alone, since the texture has left the middle layers of the clean image behind already, and
see the whole picture and the one with black background in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gateway.mark.methods.gradients import ENOUGH, MOMENTUM, balanced_gradient, in_turn
from gateway.mark.surrogates.consensus import Answers, consensus
from gateway.mark.surrogates.objective import draw_views, margins, see, view_side
from gateway.mark.surrogates.packs import Surrogate

STEPS = 8
"""Most steps of an image: each surrogate is asked twice of either ground."""
RATE = 0.5
"""Size of the first step; they become smaller."""


def continue_texture(
    clean: Tensor,
    amplitude: Tensor,
    offset: Tensor,
    surrogates: Sequence[Surrogate],
    tasks: Sequence[str],
    generators: Sequence[np.random.Generator],
    begin: Tensor,
    constrain: Callable[[Tensor], Tensor] = lambda texture: texture,
    blanked: Tensor | None = None,
    known: Answers | None = None,
    most: int = STEPS,
    original: Tensor | None = None,
) -> Tensor:
    """Return the texture (B, C, h, w) in -1..1 that misleads the surrogates when it is added to ``clean``.

    Parameters
    ----------
    clean, amplitude, offset, surrogates, tasks, generators, constrain, blanked, known
        as in ``gateway.mark.methods.strong.optimise_texture``.
    begin
        (B, C, h, w) float32 in -1..1, what neighbouring slices ended with.
    most
        no more steps than that.
    original
        (B, C, h, w) float32 in 0..1, the images whose answers a mark leads away from; None: ``clean``.

    An image of which every surrogate is misled by a margin takes no further step. What it becomes does not depend on
    what else is in the batch.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    texture = constrain(begin.clamp(-1.0, 1.0))
    probabilities = consensus(clean if original is None else original, surrogates, tasks, known=known)
    turns = in_turn(list(zip(surrogates, probabilities, strict=True)))
    views = draw_views(generators, clean.shape[2:], groups=2, count=1, device=clean.device)
    left = None if blanked is None or not bool(blanked.any()) else 1.0 - blanked
    momentum = torch.zeros_like(texture)
    believed = {surrogate.name: torch.full((len(clean),), torch.inf, device=clean.device) for surrogate in surrogates}
    for step in range(most):
        open_ = torch.stack([*believed.values()]).amax(0) > ENOUGH
        if not bool(open_.any()):
            break
        round_, turn = divmod(step, len(turns))
        # the surrogates of one turn see the whole picture, those of the next the anatomy alone; then the other way
        kept = left if (round_ + turn) % 2 else None
        group = views[round_ % len(views)]
        texture.requires_grad_(True)
        images = (clean + offset + amplitude * texture).clamp(0.0, 1.0)
        images = images if kept is None else images * kept
        total = torch.zeros_like(texture)
        for surrogate, held in turns[turn]:
            margin = margins(surrogate.net(see(images, group, view_side(surrogate, group))), held)
            (gradient,) = torch.autograd.grad(margin.sum(), texture, retain_graph=True)
            total += balanced_gradient(gradient, margin.detach(), surrogate.name)
            believed[surrogate.name] = margin.detach()
        momentum = MOMENTUM * momentum + total
        rate = RATE * (1.0 - 0.8 * step / most)
        moved = constrain((texture.detach() - rate * momentum.sign()).clamp(-1.0, 1.0))
        texture = torch.where(open_[:, None, None, None], moved, texture.detach())
    return texture.detach()
