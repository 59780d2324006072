"""Families that no surrogate pack has, for victims with pretrained weights: InceptionV3, Xception, CLIP's ViT-B/16.

In pure torch, in the layouts of the weights that packages carry (``victim_sources``); layers are created in the order
in which those files count them. Sources: InceptionV3 (Szegedy et al. 2016) and Xception (Chollet 2017) as Keras builds
them, CLIP (Radford et al. 2021). A builder returns the lower half, the upper half, and the number of pooled features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gateway.mark.surrogates.nets import FAMILIES
from gateway.mark.surrogates.nets_pretrained import Prepare
from gateway.mark.surrogates.nets_small import Built, SameConv2d
from gateway.mark.surrogates.nets_transformer import PatchTokens, TokenBlock, TokenPool

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of CLIP's RGB in 0..1."""
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""RGB in 0..1 as it is."""
EPS = 1e-3
"""Of Keras' batch norms."""


def _conv(n_in: int, n_out: int, size: tuple[int, int], stride: int = 1, same: bool = True) -> nn.Sequential:
    padding = (size[0] // 2, size[1] // 2) if same else (0, 0)
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, padding, bias=False), nn.BatchNorm2d(n_out, eps=EPS), nn.ReLU()
    )


class Branches(nn.Module):
    """Branches side by side on one input; their maps are joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, sum of channels, h', w') for ``x`` (N, n, h, w)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def _pooled(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), _conv(n_in, n_out, (1, 1)))


def _mixed_35(n: int, pool: int) -> Branches:
    five = nn.Sequential(_conv(n, 48, (1, 1)), _conv(48, 64, (5, 5)))
    double = nn.Sequential(_conv(n, 64, (1, 1)), _conv(64, 96, (3, 3)), _conv(96, 96, (3, 3)))
    return Branches(_conv(n, 64, (1, 1)), five, double, _pooled(n, pool))


def _mixed_17(n: int, wide: int) -> Branches:
    seven = nn.Sequential(_conv(n, wide, (1, 1)), _conv(wide, wide, (1, 7)), _conv(wide, 192, (7, 1)))
    double = [_conv(n, wide, (1, 1)), _conv(wide, wide, (7, 1)), _conv(wide, wide, (1, 7))]
    double += [_conv(wide, wide, (7, 1)), _conv(wide, 192, (1, 7))]
    return Branches(_conv(n, 192, (1, 1)), seven, nn.Sequential(*double), _pooled(n, 192))


def _mixed_8(n: int) -> Branches:
    three = nn.Sequential(_conv(n, 384, (1, 1)), Branches(_conv(384, 384, (1, 3)), _conv(384, 384, (3, 1))))
    ends = Branches(_conv(384, 384, (1, 3)), _conv(384, 384, (3, 1)))
    double = nn.Sequential(_conv(n, 448, (1, 1)), _conv(448, 384, (3, 3)), ends)
    return Branches(_conv(n, 320, (1, 1)), three, double, _pooled(n, 192))


def _inceptionv3(channels: int) -> Built:
    stem = [_conv(3, 32, (3, 3), 2, False), _conv(32, 32, (3, 3), 1, False), _conv(32, 64, (3, 3)), nn.MaxPool2d(3, 2)]
    stem += [_conv(64, 80, (1, 1)), _conv(80, 192, (3, 3), 1, False), nn.MaxPool2d(3, 2)]
    double = nn.Sequential(_conv(288, 64, (1, 1)), _conv(64, 96, (3, 3)), _conv(96, 96, (3, 3), 2, False))
    down = Branches(_conv(288, 384, (3, 3), 2, False), double, nn.MaxPool2d(3, 2))
    lower = [Prepare(*UNIT), *stem, _mixed_35(192, 32), _mixed_35(256, 64), _mixed_35(288, 64), down]
    three = nn.Sequential(_conv(768, 192, (1, 1)), _conv(192, 320, (3, 3), 2, False))
    seven = [
        _conv(768, 192, (1, 1)),
        _conv(192, 192, (1, 7)),
        _conv(192, 192, (7, 1)),
        _conv(192, 192, (3, 3), 2, False),
    ]
    upper = [*(_mixed_17(768, wide) for wide in (128, 160, 160, 192))]
    upper += [Branches(three, nn.Sequential(*seven), nn.MaxPool2d(3, 2)), _mixed_8(1280), _mixed_8(2048)]
    return nn.Sequential(*lower), nn.Sequential(*upper), 2048


def _separable(n_in: int, n_out: int) -> list[nn.Module]:
    depthwise = SameConv2d(n_in, n_in, 3, groups=n_in, bias=False)
    return [depthwise, nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out, eps=EPS)]


class SamePool(nn.Module):
    """3x3 maximum with stride 2 and TensorFlow's "SAME" padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, n, ceil(h / 2), ceil(w / 2)) for ``x`` (N, n, h, w)."""
        pads: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
            pads += [total // 2, total - total // 2]
        return nn.functional.max_pool2d(nn.functional.pad(x, pads, value=float("-inf")), 3, 2)


class XceptionBlock(nn.Module):
    """Separable convolutions with a shortcut, which is a strided 1x1 convolution where sizes differ."""

    def __init__(self, layers: list[nn.Module], shortcut: tuple[int, int] | None) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if shortcut is not None:
            conv = nn.Conv2d(*shortcut, 1, 2, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(shortcut[1], eps=EPS))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n, h, w)."""
        return self.shortcut(x) + self.layers(x)


def _xception(channels: int) -> Built:
    lower: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=EPS), nn.ReLU()]
    lower += [nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64, eps=EPS), nn.ReLU()]
    for n_in, n_out in ((64, 128), (128, 256), (256, 728)):
        first = [] if n_in == 64 else [nn.ReLU()]
        layers = [*first, *_separable(n_in, n_out), nn.ReLU(), *_separable(n_out, n_out), SamePool()]
        lower.append(XceptionBlock(layers, (n_in, n_out)))
    middle = [
        XceptionBlock([layer for _ in range(3) for layer in (nn.ReLU(), *_separable(728, 728))], None) for _ in range(8)
    ]
    last = [nn.ReLU(), *_separable(728, 728), nn.ReLU(), *_separable(728, 1024), SamePool()]
    upper = [*middle[2:], XceptionBlock(last, (728, 1024))]
    upper += [*_separable(1024, 1536), nn.ReLU(), *_separable(1536, 2048), nn.ReLU()]
    return nn.Sequential(*lower, *middle[:2]), nn.Sequential(*upper), 2048


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of ``x``, any shape."""
        return x * torch.sigmoid(1.702 * x)


def _clip_b16(channels: int) -> Built:
    blocks = [TokenBlock(768, 12, 1e-5, QuickGelu()) for _ in range(12)]
    stem = [Prepare(*CLIP), PatchTokens(768, 16, 14, bias=False), nn.LayerNorm(768, eps=1e-5)]
    return nn.Sequential(*stem, *blocks[:6]), nn.Sequential(*blocks[6:], TokenPool(768, 1e-5)), 1536


HELD: dict[str, Callable[[int], Built]] = {"inceptionv3": _inceptionv3, "xception": _xception, "clip-b16": _clip_b16}
"""Family name -> builder."""
VICTIM_FAMILIES = {**FAMILIES, **HELD}
"""Everything that a victim may be."""
