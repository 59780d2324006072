"""What the optimiser lowers, without any label: each surrogate's odds of being right, and its middle layer.

A surrogate is shown a few keyed *views* of an image (window, scale, flip; its own input size). Of the clean image its
middle feature map is kept per view; on the marked one the loss is

    margin (log odds of being right, if the image is what all surrogates together hold it to be), mean over tasks
    + FEATURE_WEIGHT * cosine similarity of the middle feature maps (left out where a network shows none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gateway.mark.resample import apply_separable, resample_matrix
from gateway.mark.surrogates.consensus import Probabilities
from gateway.mark.surrogates.nets import NetOutput
from gateway.mark.surrogates.packs import Surrogate

FEATURE_WEIGHT = 2.0
"""Weight of the feature term; one margin unit is one logit."""
SIZE_FACTORS = (1.0, 0.875, 0.875, 1.125, 1.0, 0.75)
"""Input sizes of the surrogates' views in turn, as factors of the size they were trained for: a texture that fits one
size only is lost on a network that reads another."""


TINY = 1e-38
"""Least probability that is told from none (float32)."""


@dataclass(frozen=True)
class ViewGroup:
    """Views that are computed together: ``count`` views of every image, image by image.

    Attributes
    ----------
    windows
        (B, count, 4) float32: top, bottom, left, right of the window as shares of the image's sides (bottom
        above top or right left of left: flipped).
    factor
        input size as a factor of the surrogate's own.
    """

    windows: Tensor
    factor: float

    @property
    def count(self) -> int:
        """Views per image in this group."""
        return self.windows.shape[1]


def draw_views(
    generators: Sequence[np.random.Generator], shape: Sequence[int], groups: int, count: int, device: torch.device
) -> list[ViewGroup]:
    """Return keyed view groups for a batch; every second one, the first included, begins with the whole image, upright.

    That is the view that most classifiers get; the others keep the texture from fitting it alone.

    Parameters
    ----------
    generators
        one per image, so that an image's views do not depend on its batch.
    shape
        (h, w) of the images.
    groups
        number of groups.
    count
        views per group.
    device
        where the windows are put.
    """
    windows = np.stack([_draw_windows(generator, shape, groups * count) for generator in generators])
    windows = windows.reshape(len(generators), groups, count, 4).astype(np.float32)
    windows[:, ::2, 0] = (0.0, 1.0, 0.0, 1.0)
    factors = [SIZE_FACTORS[index % len(SIZE_FACTORS)] for index in range(groups)]
    return [ViewGroup(torch.from_numpy(windows[:, index]).to(device), factor) for index, factor in enumerate(factors)]


def _draw_windows(random: np.random.Generator, shape: Sequence[int], count: int) -> np.ndarray:
    """Return (count, 4) windows; every second one is cut to a square, as classifiers' preparation does."""
    result = np.empty((count, 4))
    for number in range(count):
        for axis in (0, 1):
            square = min(shape) / shape[axis] if number % 2 else 1.0
            width = square * random.uniform(0.88, 1.04)
            start = (1.0 - width) / 2.0 + random.uniform(-0.05, 0.05)
            flip = random.uniform() < (0.15, 0.3)[axis]
            result[number, 2 * axis : 2 * axis + 2] = (start + width, start) if flip else (start, start + width)
    return result


def see(images: Tensor, group: ViewGroup, side: int) -> Tensor:
    """Return the views (B * count, C, side, side) of images (B, C, h, w)."""
    height, width = images.shape[2:]
    flat = group.windows.reshape(-1, 4)
    rows = resample_matrix(height, side, flat[:, 0] * height, flat[:, 1] * height)
    columns = resample_matrix(width, side, flat[:, 2] * width, flat[:, 3] * width)
    views = apply_separable(images.repeat_interleave(group.count, dim=0), rows, columns)
    return views.contiguous(memory_format=torch.channels_last)


def view_side(surrogate: Surrogate, group: ViewGroup) -> int:
    """Return the input side in pixels of this surrogate for this group (a multiple of 16)."""
    return max(32, round(surrogate.input_size * group.factor / 16.0) * 16)


def margins(output: NetOutput, probabilities: Probabilities) -> Tensor:
    """Return the (N,) log odds, mean over tasks, that the answer is right if the probabilities are.

    Parameters
    ----------
    output
        of N images.
    probabilities
        task -> (N, K). Where one class has all of it, this is its logit minus the log-sum-exp of
        the others.
    """
    values = []
    for task, share in probabilities.items():
        logits = output.logits[task]
        wrong = share @ (1.0 - torch.eye(share.shape[1], device=share.device))  # 1 - share, exact for very small ones
        right = torch.logsumexp(logits + share.clamp(min=TINY).log(), dim=1)
        values.append(right - torch.logsumexp(logits + wrong.clamp(min=TINY).log(), dim=1))
    return torch.stack(values).mean(0)


class Target:
    """One surrogate's view of the clean images, and its loss on marked ones.

    Parameters
    ----------
    surrogate
        the network.
    clean
        (B, C, h, w) float32 in 0..1.
    groups
        views.
    probabilities
        what the clean images are held to be, of this surrogate's tasks
        (``gateway.mark.surrogates.consensus``).
    """

    def __init__(
        self, surrogate: Surrogate, clean: Tensor, groups: Sequence[ViewGroup], probabilities: Probabilities
    ) -> None:
        self.surrogate = surrogate
        self._clean, self._groups = clean, list(groups)
        self._probabilities = [
            {task: share.repeat_interleave(group.count, dim=0) for task, share in probabilities.items()}
            for group in groups
        ]
        self._middle: dict[int, Tensor | None] = {}

    def _before(self, index: int) -> Tensor | None:
        """Return the middle feature map of the clean images seen through a view group; asked for once, when needed."""
        if index not in self._middle:
            group = self._groups[index]
            with torch.no_grad():
                shown = see(self._clean, group, view_side(self.surrogate, group))
                self._middle[index] = self.surrogate.net(shown).middle
        return self._middle[index]

    def loss(self, images: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return ((B,) loss, (B,) mean margin) of images (B, C, h, w) seen through view group ``index``."""
        group = self._groups[index]
        output = self.surrogate.net(see(images, group, view_side(self.surrogate, group)))
        margin = margins(output, self._probabilities[index]).reshape(-1, group.count).mean(1)
        before = self._before(index)
        if output.middle is None or before is None:
            return margin, margin
        same = functional.cosine_similarity(output.middle.flatten(1), before.flatten(1), dim=1)
        return margin + FEATURE_WEIGHT * same.reshape(-1, group.count).mean(1), margin
