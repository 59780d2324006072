"""Label-free saliency: what the surrogates look at, whatever they answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.resample import resize
from gateway.mark.surrogates.consensus import Answers
from gateway.mark.surrogates.objective import margins
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.visibility.filters import gaussian


def saliency(
    images: Tensor, surrogates: Sequence[Surrogate], tasks: Sequence[str], answers: Answers | None = None
) -> np.ndarray:
    """Return (B, h, w) float32 saliency: mean over surrogates of the smoothed gradient of their own margin.

    Parameters
    ----------
    images
        (B, C, h, w) float32 in 0..1.
    surrogates
        at least one.
    tasks
        heads to ask; empty: all.
    answers
        what the surrogates said on the way is put in there; None: it is not wanted.

    Each surrogate's map has mean 1, so none outweighs the others; images in a batch do not touch each other.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    height, width = images.shape[2:]
    total = np.zeros((images.shape[0], height, width), np.float32)
    blur = min(height, width) / 24.0
    for surrogate in surrogates:
        asked = surrogate.asked(tasks)
        if not asked:
            continue
        seen = images.detach().requires_grad_(True)
        output = surrogate.net(resize(seen, surrogate.input_size, surrogate.input_size))
        logits = {task: output.logits[task].detach() for task in asked}
        if answers is not None:
            answers[surrogate.name] = logits
        own = {task: values.softmax(1) for task, values in logits.items()}
        (gradient,) = torch.autograd.grad(margins(output, own).sum(), seen)
        strength = gradient.abs().sum(1).cpu().numpy()
        if not np.isfinite(strength).all():
            raise MarkError("surrogate-nan", f"surrogate {surrogate.name} gives values that are not finite")
        for number, one in enumerate(strength):
            smooth = gaussian(one, blur)
            total[number] += smooth / max(float(smooth.mean()), 1e-12)
    return total / len(surrogates)
