"""The surrogate pack as one model, as attack libraries want it: images in, one tensor of logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gateway.mark.resample import resize
from gateway.mark.surrogates.packs import Surrogate


class Ensemble(nn.Module):
    """Mean logits of all surrogates for one task; each sees the image at its own input size.

    Parameters
    ----------
    surrogates
        at least one that has the task.
    task
        the head.

    Raises
    ------
    ValueError
        no surrogate has the task.
    """

    def __init__(self, surrogates: Sequence[Surrogate], task: str) -> None:
        super().__init__()
        able = [one for one in surrogates if task in one.net.tasks]
        if not able:
            raise ValueError(f"no surrogate knows {task}")
        self._task, self._sizes = task, [one.input_size for one in able]
        self.nets = nn.ModuleList([one.net for one in able])
        # The libraries ask the first parameter for the device; surrogates keep theirs, without gradients.

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (N, classes) for images (N, C, h, w) float32 in 0..1."""
        outputs = [
            net(resize(images, side, side)).logits[self._task] for net, side in zip(self.nets, self._sizes, strict=True)
        ]
        return torch.stack(outputs).mean(0)
