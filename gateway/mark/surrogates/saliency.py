"""Label-free saliency: what the surrogates look at, whatever they answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.resample import resize
from gateway.mark.surrogates.objective import margins
from gateway.mark.surrogates.packs import Surrogate


def saliency(images: Tensor, surrogates: Sequence[Surrogate], tasks: Sequence[str]) -> np.ndarray:
    """Return (B, h, w) float32 saliency: mean over surrogates of the smoothed gradient of their own margin.

    Parameters
    ----------
    images
        (B, C, h, w) float32 in 0..1.
    surrogates
        at least one.
    tasks
        heads to ask; empty: all.

    Each surrogate's map has mean 1, so none outweighs the others; images in a batch do not touch each other.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    total = np.zeros((images.shape[0], *images.shape[2:]), np.float32)
    blur = min(images.shape[2:]) / 24.0
    for surrogate in surrogates:
        asked = surrogate.asked(tasks)
        if not asked:
            continue
        seen = images.detach().requires_grad_(True)
        output = surrogate.net(resize(seen, surrogate.input_size, surrogate.input_size))
        own = {task: output.logits[task].detach().softmax(1) for task in asked}
        (gradient,) = torch.autograd.grad(margins(output, own).sum(), seen)
        strength = gradient.abs().sum(1).cpu().numpy()
        if not np.isfinite(strength).all():
            raise MarkError("surrogate-nan", f"surrogate {surrogate.name} gives values that are not finite")
        for number, one in enumerate(strength):
            smooth = ndimage.gaussian_filter(one, blur)
            total[number] += smooth / max(float(smooth.mean()), 1e-12)
    return total / len(surrogates)
