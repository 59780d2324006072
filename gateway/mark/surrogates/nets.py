"""The networks that surrogate packs and the held-out judge are made of: a backbone of some family, a head per task.

Families: ``nets_small`` (trained from scratch at small sizes, and EfficientNet-Lite), ``nets_pretrained`` and
``nets_transformer`` (for weights that packages carry). All of them take float32 images ``(N, C, h, w)`` in 0..1
(display space of the primary window, C = 1 or 3, h and w at least 32) and are multi-head: one linear head per task on
one shared backbone. ``forward`` gives the logits of every task *and* the middle-layer feature map that the optimiser
disrupts.

``RESERVED`` families never become surrogates: the held-out judge is made of them, so that an effect shown by it is a
transferred one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gateway.mark.surrogates.nets_pretrained import PRETRAINED
from gateway.mark.surrogates.nets_small import SMALL, Built
from gateway.mark.surrogates.nets_transformer import TRANSFORMERS

MIN_INPUT = 32
"""Smallest image side (pixels) that every family here can take."""


@dataclass(frozen=True)
class NetOutput:
    """What one forward pass gives.

    Attributes
    ----------
    logits
        task name -> float tensor (N, classes of the task).
    middle
        feature map (N, F, h', w') after about half of the layers; None where a foreign network shows none.
    """

    logits: dict[str, Tensor]
    middle: Tensor | None


FAMILIES: dict[str, Callable[[int], Built]] = {**SMALL, **PRETRAINED, **TRANSFORMERS}
"""Family name -> builder of (lower half, upper half, pooled features)."""

RESERVED = frozenset({"efficientnet-lite1"})
"""Families kept for the held-out judge of ``demo`` and the quickstart; no surrogate pack may hold one."""


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place; for evaluation only.

    The result differs by float32 rounding alone and saves about a third of the time of a forward and backward pass.
    """
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.Sequential):
            fold_batch_norms(child)
            continue
        layers: list[nn.Module] = []
        for layer in child:
            if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
            else:
                fold_batch_norms(layer)
                layers.append(layer)
        setattr(module, name, nn.Sequential(*layers))


class MultiTaskNet(nn.Module):
    """A backbone of one family with a linear head per task.

    Parameters
    ----------
    family
        a key of ``families``.
    channels
        1 (gray) or 3 (RGB).
    tasks
        task name -> class names; heads are made in this order.
    shared
        whether the network was trained on gray images (repeated to three channels) and on RGB ones alike, so that packs
        of either kind may hold it; ``channels`` is then that of the pack.
    families
        family name -> builder.

    Raises
    ------
    ValueError
        unknown family or channel count.
    """

    def __init__(
        self,
        family: str,
        channels: int,
        tasks: Mapping[str, Sequence[str]],
        shared: bool = False,
        families: Mapping[str, Callable[[int], Built]] = FAMILIES,
    ) -> None:
        super().__init__()
        if family not in families or channels not in (1, 3):
            raise ValueError(f"no network family {family!r} with {channels} channels")
        self.family, self.channels, self.shared = family, channels, shared
        self.tasks = {task: tuple(classes) for task, classes in tasks.items()}
        self.lower, self.upper, width = families[family](3 if shared else channels)
        stem = next(layer for layer in self.lower.modules() if isinstance(layer, nn.Conv2d))
        self._repeats = stem.in_channels == 3
        self.dropout = nn.Dropout(0.2)
        self.heads = nn.ModuleDict({task: nn.Linear(width, len(names)) for task, names in self.tasks.items()})

    def forward(self, x: Tensor) -> NetOutput:
        """Return logits and the middle feature map for images ``x`` (N, channels, h, w) in 0..1."""
        middle = self.lower(self.prepared(x))
        pooled = self.dropout(self.upper(middle).mean((2, 3)))
        return NetOutput({task: head(pooled) for task, head in self.heads.items()}, middle)

    def prepared(self, x: Tensor) -> Tensor:
        """Return what the backbone takes for images ``x`` (N, channels, h, w) in 0..1."""
        x = (x - 0.5) * 2.0
        # pretrained stems have three channels
        return x.expand(-1, 3, -1, -1) if self._repeats and x.shape[1] == 1 else x

    def keep(self, tasks: Sequence[str]) -> None:
        """Drop every head but those of ``tasks``, in their order.

        Raises
        ------
        KeyError
            there is no such head.
        """
        self.tasks = {task: self.tasks[task] for task in tasks}
        self.heads = nn.ModuleDict({task: self.heads[task] for task in tasks})
